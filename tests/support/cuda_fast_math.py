#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that --use_fast_math and -Ofast in a project's CMAKE_CUDA_FLAGS change nothing of lawn's CUDA object.

usage: cuda_fast_math.py KERNELS [NVCC OPTION...]
  KERNELS  the object's source, include/lawn/kernels.cu
  OPTION   what the object is compiled with behind the project's flags; exits with 77 where there is no nvcc

A kernel with a division, a square root and a number that may be subnormal is compiled to PTX with the object's options, with and
without these flags before them. And the object's source has to be accepted with them.
"""

import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

FAST = ["--use_fast_math", "-Xcompiler=-Ofast"]
SKIPPED = 77
PROBE = "__global__ void probe(float* x) { x[0] = x[1] / x[2] + sqrtf(x[3]) * x[4]; }"


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{result.stdout}{result.stderr}")


def main():
    kernels, nvcc, *options = sys.argv[1:] + ["nvcc"] * (len(sys.argv) == 2)
    if not shutil.which(nvcc):
        print("skipped: there is no nvcc")
        sys.exit(SKIPPED)
    compiler = [nvcc, "-std=c++17", "-arch=sm_80"]
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "probe.cu"
        source.write_text(PROBE)

        def ptx(flags):
            run([*compiler, *flags, "-ptx", "-o", f"{folder}/probe.ptx", str(source)])
            return pathlib.Path(f"{folder}/probe.ptx").read_text()

        if ptx(FAST) == ptx([]):
            sys.exit(f"{shlex.join(FAST)} do nothing of themselves: this test shows nothing")
        if ptx(FAST + options) != ptx(options):
            sys.exit(f"{shlex.join(FAST)} change the kernels, in spite of {shlex.join(options)}")
    # Preprocessing suffices to meet the refusal of lawn/finite_math.h.
    include = pathlib.Path(kernels).resolve().parents[1]
    run([*compiler, *FAST, *options, "-I", str(include), "-E", "-o", "/dev/null", kernels])


if __name__ == "__main__":
    main()
