#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes up a LibTorch without CUDA out of one with it, to test what a consumer with such a one gets.

usage: cpu_only_libtorch.py LIBTORCH FOLDER CXX
  LIBTORCH  the folder with include/, lib/ and share/ of a CUDA build
  FOLDER    is made anew; FOLDER/torch/share/cmake/Torch is what goes into Torch_DIR
  CXX       a compiler, to make libtorch.so

It is not a CPU build: its libtorch_cpu comes out of the CUDA build, and still loads the CUDA runtime. But to CMake and to the
linker it looks like one: no libtorch_cuda, no libc10_cuda, no headers of the latter, and package files that never speak of CUDA.
"""

import pathlib
import re
import shutil
import subprocess
import sys

CUDA_TARGETS = ("torch_cuda_library", "torch_cuda", "torch_nvshmem", "c10_cuda")


def replace(path, pattern, replacement):
    """Replaces the one place in the file that matches; a LibTorch that looks otherwise must not pass unnoticed."""
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{path}: expected one place that matches {pattern!r}, got {count}")
    path.write_text(text)


def drop_sections(path, start):
    """Drops the parts about CUDA's targets; each part begins with `start` and the target's name."""
    parts = re.split(f"(?=^{start} )", path.read_text(), flags=re.MULTILINE)
    names = "|".join(CUDA_TARGETS)
    kept = [part for part in parts if not re.match(f"{start} \"?({names})\\b", part)]
    if len(kept) == len(parts):
        sys.exit(f"{path}: expected parts that begin with {start!r} about {names}, got none")
    path.write_text("".join(kept))


def main():
    libtorch, folder, compiler = sys.argv[1:]
    libtorch = pathlib.Path(libtorch).resolve()
    folder = pathlib.Path(folder).resolve()
    if folder.exists():
        shutil.rmtree(folder)
    torch = folder / "torch"
    (torch / "lib").mkdir(parents=True)
    (torch / "include/c10").mkdir(parents=True)
    for header in [*(libtorch / "include").iterdir(), *(libtorch / "include/c10").iterdir()]:
        # Whoever includes c10/cuda in a CPU build misses a file.
        if header not in (libtorch / "include/c10", libtorch / "include/c10/cuda"):
            (torch / header.relative_to(libtorch)).symlink_to(header)
    if (libtorch.parent / "nvidia").exists():
        (folder / "nvidia").symlink_to(libtorch.parent / "nvidia")  # for libtorch_cpu, which looks for it there
    for library in (libtorch / "lib").glob("*.so*"):
        if library.is_file() and not re.search("cuda|nvrtc|nvshmem|python|libtorch\\.so|linalg", library.name):
            (torch / "lib" / library.name).symlink_to(library)
    # The real one refers to libtorch_cuda.
    subprocess.run([compiler, "-shared", "-o", torch / "lib/libtorch.so", "-x", "c++", "/dev/null", "-Wl,--no-as-needed",
                    "-Wl,--allow-shlib-undefined", "-L", torch / "lib", "-ltorch_cpu"], check=True)

    cmake = torch / "share/cmake"
    shutil.copytree(libtorch / "share/cmake", cmake)
    shutil.rmtree(cmake / "Caffe2/Modules_CUDA_fix")
    (cmake / "Caffe2/public/cuda.cmake").unlink()
    replace(cmake / "Torch/TorchConfig.cmake", r"if\((?:ON|1)\)(\s+if\(MSVC\)\s+find_library\(CAFFE2_NVRTC)", r"if(OFF)\1")
    replace(cmake / "Caffe2/Caffe2Config.cmake", r"if\((?:ON|1)\)(\s+# The file public/cuda.cmake)", r"if(OFF)\1")
    targets = cmake / "Caffe2/Caffe2Targets.cmake"
    drop_sections(targets, "# Create imported target")
    drop_sections(cmake / "Caffe2/Caffe2Targets-release.cmake", "# Import target")
    replace(targets, r"torch_cpu_library;torch_cuda_library", "torch_cpu_library")
    expected = re.search(r"_expected_target IN ITEMS ([^)]*)", targets.read_text()).group(1)
    kept = " ".join(name for name in expected.split() if name not in CUDA_TARGETS)
    replace(targets, re.escape(expected), kept)


if __name__ == "__main__":
    main()
