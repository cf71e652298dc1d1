#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""For which architectures lawn compiles its CUDA kernels, by the GPUs that are there and by the version of nvcc: with made-up ones,
and with the real nvcc.

usage: cuda_architectures_test.py CMAKE [NVCC]
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

MODULE = pathlib.Path(__file__).resolve().parent.parent / "cmake/LawnCudaArchitectures.cmake"


def write_program(folder, name, lines):
    path = pathlib.Path(folder, name)
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)
    return path


def run_cmake(folder, lines):
    """Returns what CMake says after it has read the module and these lines, with the programs in `folder`."""
    script = pathlib.Path(folder, "ask.cmake")
    script.write_text(f'include("{MODULE}")\n{lines}')
    run = subprocess.run([CMAKE, "-P", script], capture_output=True, text=True,
                         env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
    return re.sub(r"\s+", " ", run.stdout + run.stderr)


def ask(nvcc, nvidia_smi="exit 9\n", torch="2.11.0"):
    """Returns the list, and what CMake says beside, with an nvidia-smi of these lines."""
    with tempfile.TemporaryDirectory() as folder:
        write_program(folder, "nvidia-smi", nvidia_smi)
        text = run_cmake(folder, f'lawn_cuda_architectures(list reason "{nvcc}" {torch})\n'
                                 'message("took ${list}")\nmessage("from ${reason}.")\n')
    return re.search(r"took (\S*) from ", text)[1], text


def ask_version(version, *more, **named):
    """The same of an nvcc that says it is of `version`, and knows some architectures."""
    with tempfile.TemporaryDirectory() as folder:
        nvcc = write_program(folder, "nvcc", f"""
case "$*" in
  --version) echo 'nvcc: NVIDIA (R) Cuda compiler driver'; echo 'Cuda compilation tools, release {version}, V{version}.99' ;;
  --list-gpu-arch) echo compute_61; echo compute_75; echo compute_80; echo compute_89; echo compute_120 ;;
  *) exit 1 ;;
esac
""")
        return ask(nvcc, *more, **named)


def gpus(*capabilities):
    """An nvidia-smi of a machine with these GPUs."""
    lines = "".join(f"echo {capability}\n" for capability in capabilities)
    return f'[ "$*" = "--query-gpu=compute_cap --format=csv,noheader" ] || exit 1\n{lines}'


class CudaArchitectures(unittest.TestCase):
    def expect(self, version, expected):
        architectures, text = ask_version(version)
        self.assertEqual(architectures, expected, version)
        self.assertNotIn("Warning", text)

    def test_are_those_that_each_version_knows(self):
        for version in ("12.8", "12.9", "13.0", "13.4"):
            self.expect(version, "7.5;8.0;9.0;10.0+PTX")
        for version in ("12.1", "12.4", "12.6"):
            self.expect(version, "7.5;8.0;9.0+PTX")

    def test_are_those_of_the_gpus_that_are_there(self):
        for there, expected in ((["8.9"], "8.9"), (["12.0", "8.0", "8.0"], "8.0;12.0")):
            architectures, text = ask_version("13.0", gpus(*there))
            self.assertEqual(architectures, expected)
            self.assertIn("from the GPUs here.", text)

    def test_are_the_usual_ones_where_nvcc_does_not_know_a_gpu_or_there_is_none(self):
        for nvidia_smi in (gpus("8.9", "7.2"), gpus("7.5", "12.1")):
            architectures, text = ask_version("13.0", nvidia_smi)
            self.assertEqual(architectures, "7.5;8.0;9.0;10.0+PTX")
            self.assertIn("does not know the architecture", text)
        for nvidia_smi in (gpus(), "echo No devices were found\n", "echo '[N/A]'\n", "echo 9.0; exit 1\n"):
            architectures, text = ask_version("13.0", nvidia_smi)
            self.assertEqual(architectures, "7.5;8.0;9.0;10.0+PTX")
            self.assertIn("from lawn's own list, since no GPU was found here.", text)

    def test_leave_out_what_libtorch_does_not_know_and_newer_gpus_get_their_code_from_the_driver(self):
        for torch, expected in (("2.5.1", "7.5;8.0;9.0+PTX"), ("2.6.0", "7.5;8.0;9.0;10.0+PTX")):
            self.assertEqual(ask_version("13.0", torch=torch)[0], expected)
        self.assertEqual(ask_version("13.0", gpus("8.9"), torch="2.5.1")[0], "8.9")
        for there in (["12.0"], ["8.9", "12.0"]):
            architectures, text = ask_version("13.0", gpus(*there), torch="2.5.1")
            self.assertEqual(architectures, "7.5;8.0;9.0+PTX")
            self.assertIn("since LibTorch 2.5.1 does not know the architecture 12.0 of a GPU here.", text)

    def test_are_the_usual_ones_where_a_gpu_is_too_old_for_the_kernels(self):
        for there in (["6.1"], ["8.9", "6.1"]):
            architectures, text = ask_version("12.8", gpus(*there))
            self.assertEqual(architectures, "7.5;8.0;9.0;10.0+PTX")
            self.assertIn("since lawn's CUDA kernels need 7.0 or later, and a GPU here has 6.1.", text)

    def test_that_are_too_old_for_the_kernels_are_refused_by_name(self):
        with tempfile.TemporaryDirectory() as folder:
            def check(architectures):
                return run_cmake(folder, f'lawn_refuse_old_architectures("{architectures}" "MY_LIST")\n')
            for architectures, old in (("6.1", "6.1"), ("8.0;6.0+PTX", "6.0+PTX"), ("7.5 5.2(5.0) 3.5", "5.2(5.0)"),
                                       ("Turing Pascal", "Pascal"), ("Maxwell+Tegra", "Maxwell+Tegra"), ("Common", "Common"),
                                       ("All", "All")):
                self.assertIn("lawn: expected architectures from 7.0 on in MY_LIST, which lawn's CUDA kernels need, "
                              f"got {old}; leave it out", check(architectures))
            for architectures in ("7.0", "7.5 8.0;9.0a+PTX", "10.0;12.0+PTX", "Volta;Ampere", "Auto"):
                self.assertEqual(check(architectures), "")

    def test_are_told_with_a_warning_where_nvcc_does_not_tell_its_version(self):
        for nvcc in ("/bin/false", "/there/is/none"):
            architectures, text = ask(nvcc)
            self.assertEqual(architectures, "7.5;8.0;9.0;10.0+PTX")
            self.assertIn(f"lawn: {nvcc} does not tell its version", text)

    def test_are_known_to_the_nvcc_that_is_here(self):
        if not NVCC:
            self.skipTest("there is no nvcc")
        known = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
        for architecture in ask(NVCC)[0].removesuffix("+PTX").split(";"):
            self.assertIn("compute_" + architecture.replace(".", ""), known)


if __name__ == "__main__":
    CMAKE = sys.argv.pop(1)
    NVCC = shutil.which(sys.argv.pop(1)) if len(sys.argv) > 1 and not sys.argv[1].startswith(("-", "Cuda")) else None
    unittest.main()
