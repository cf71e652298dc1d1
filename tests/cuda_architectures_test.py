#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""For which architectures lawn compiles its CUDA kernels, by the version of nvcc: with made-up ones, and with the real one.

usage: cuda_architectures_test.py CMAKE [NVCC]
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

MODULE = pathlib.Path(__file__).resolve().parent.parent / "cmake/LawnCudaArchitectures.cmake"


def ask(nvcc):
    """Returns the list, and what CMake says beside."""
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder, "ask.cmake")
        script.write_text(f'include("{MODULE}")\nlawn_cuda_architectures(list "{nvcc}")\nmessage("took ${{list}}")\n')
        run = subprocess.run([CMAKE, "-P", script], capture_output=True, text=True, check=True)
    return re.search(r"^took (.*)$", run.stderr, re.MULTILINE)[1], re.sub(r"\s+", " ", run.stderr)


def ask_version(version):
    """The same of an nvcc that says it is of `version`."""
    with tempfile.TemporaryDirectory() as folder:
        nvcc = pathlib.Path(folder, "nvcc")
        nvcc.write_text("#!/bin/sh\n[ \"$*\" = --version ] || exit 1\necho 'nvcc: NVIDIA (R) Cuda compiler driver'\n"
                        f"echo 'Cuda compilation tools, release {version}, V{version}.99'\n")
        nvcc.chmod(0o755)
        return ask(nvcc)


class CudaArchitectures(unittest.TestCase):
    def expect(self, version, expected):
        architectures, text = ask_version(version)
        self.assertEqual(architectures, expected, version)
        self.assertNotIn("Warning", text)

    def test_are_those_that_each_version_knows(self):
        for version in ("12.8", "12.9", "13.0", "13.4"):
            self.expect(version, "7.5;8.0;9.0;10.0+PTX")
        for version in ("11.8", "12.1", "12.4", "12.6"):
            self.expect(version, "7.5;8.0;9.0+PTX")
        for version in ("11.1", "11.7"):
            self.expect(version, "7.5;8.0+PTX")

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
