#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Configures the preset `test` and runs tests of consumers with only the tools that the README asks for: a C++ compiler with the
# programs that it calls, CMake, Ninja, git and Python 3. Other tools that a machine happens to have (ccache, MPI, CUDA, OpenMP,
# zlib, clang, clang-format) cannot hide that something depends on them. Builds in build/declared-tools, anew; needs build/test
# configured, for where GoogleTest is.
set -euo pipefail
cd "${0%/*}/.."
build=$PWD/build/declared-tools
rm -rf "$build"
mkdir -p "$build/tools"
for tool in c++ g++ cc gcc as ld ar nm ranlib strip objcopy objdump readelf cmake ctest ninja git bash sh; do
  ln -s "$(command -v "$tool")" "$build/tools/$tool"
done
ln -s "$(python3 -c 'import sys; print(sys.executable)')" "$build/tools/python3" # itself, not a script that picks one

# CMake looks for programs and libraries in the system's folders as well, and for nvcc where CUDA is installed by default. OpenMP is
# a part of the compiler.
hidden=(-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF -DCMAKE_IGNORE_PATH=/usr/local/cuda/bin
        -DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON)
# So GoogleTest, which may be there or else is downloaded, has to be pointed to.
while IFS= read -r line; do
  hidden+=("-DGTest_DIR=${line#*=}")
done < <(grep '^GTest_DIR:[A-Z]*=/' build/test/CMakeCache.txt)

alone() { env -i HOME="$HOME" XDG_CACHE_HOME="${XDG_CACHE_HOME:-}" PATH="$build/tools" CI=true "$@"; }
alone cmake --preset test -B "$build" -DLAWN_BUILD_BENCHMARKS=OFF "${hidden[@]}"
for name in LAWN_CCACHE LAWN_CUDA_COMPILER LAWN_CLANG MPI_CXX_HEADER_DIR ZLIB_LIBRARY_RELEASE; do
  if grep "^$name:[A-Z]*=." "$build/CMakeCache.txt" | grep -v NOTFOUND; then
    echo "$name was to be hidden, and was found"
    exit 1
  fi
done
# Tests that leave out a tool which is hidden anyway would repeat others; further ones differ only in what they link.
alone ctest --test-dir "$build" -R '^consumer_(fetch_content(_by_make)?|find_package)$' --output-on-failure --no-tests=error --parallel 2
