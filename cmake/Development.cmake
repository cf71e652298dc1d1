# SPDX-License-Identifier: Apache-2.0
#
# What only lawn's own developers need, never a consumer: third parties of tests and benchmarks, warnings, ccache.

include(FetchContent)

set(CMAKE_CXX_STANDARD ${LAWN_CXX_STANDARD})
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(LAWN_CCACHE ccache)
if(LAWN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # With a precompiled header ccache needs to be told not to look at time stamps and at __TIME__.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${LAWN_CCACHE})
endif()

# The pip wheels of LibTorch 2.4 to 2.6 have the old ABI of g++'s library: so must all that is linked with them, and what the system
# has does not.
file(STRINGS "${Torch_DIR}/TorchConfig.cmake" old_abi REGEX "_GLIBCXX_USE_CXX11_ABI=0")
if(old_abi)
  add_compile_definitions("$<$<COMPILE_LANGUAGE:CXX>:_GLIBCXX_USE_CXX11_ABI=0>")
  set(FETCHCONTENT_TRY_FIND_PACKAGE_MODE NEVER)
endif()

# Third parties come before the warnings below, which are for our code: the system's, else the pinned source.
if(LAWN_BUILD_TESTS)
  set(INSTALL_GTEST OFF)
  FetchContent_Declare(
    GTest URL https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
    URL_HASH SHA256=8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7
    FIND_PACKAGE_ARGS NAMES GTest)
  FetchContent_MakeAvailable(GTest)
endif()
if(LAWN_BUILD_BENCHMARKS)
  set(BENCHMARK_ENABLE_TESTING OFF)
  set(BENCHMARK_ENABLE_INSTALL OFF)
  FetchContent_Declare(
    benchmark URL https://github.com/google/benchmark/archive/refs/tags/v1.8.3.tar.gz
    URL_HASH SHA256=6bc180a57d23d4d9515519f92b0c83d61b05b5bab188961f36ac7b06b0d9e9ce
    FIND_PACKAGE_ARGS)
  FetchContent_MakeAvailable(benchmark)
endif()

# Warnings are errors where tests are built and in CI, and nowhere else: newer compilers know more of them.
# `cmake --compile-no-warning-as-error` lets one build on regardless.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion>")
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # In g++ the first is no part of -Wconversion; the second is of GoogleTest's macros.
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-sign-conversion;-Wno-gnu-zero-variadic-macro-arguments>")
endif()
if(LAWN_BUILD_TESTS OR DEFINED ENV{CI})
  set(CMAKE_COMPILE_WARNING_AS_ERROR ON)
endif()
if(TARGET lawn_cuda)
  target_compile_options(lawn_cuda PRIVATE --Werror=all-warnings)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU") # clang as nvcc's host compiler would warn of functions of the toolkit
    # No -Wpedantic: the host code that nvcc makes of the kernels is not ours.
    target_compile_options(lawn_cuda PRIVATE -Xcompiler=-Wall,-Wextra)
  endif()
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>") # lets ccache keep files that use a precompiled header
endif()

include(cmake/Headers.cmake)
include(cmake/Docs.cmake)
