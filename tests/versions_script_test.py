#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/versions.py with a stub for cmake, which installs, configures and builds nothing but notes its calls.

usage: versions_script_test.py [VersionsScript.test_...]
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts/versions.py"
PASSES = 'echo "[==========] 3 tests from 2 test suites ran. (1 ms total)"; echo "[  PASSED  ] 3 tests."'
FAILS = 'echo "[==========] 5 tests from 1 test suite ran."; echo "[  PASSED  ] 3 tests."; ' \
        'echo "[  SKIPPED ] 1 test, listed below:"; echo "[  FAILED  ] 1 test, listed below:"; exit 1'
# Installs what PyPI is made to have, and "builds" what is in the folder `programs`.
CMAKE = """
case "$1" in
  -P) version=$(sed -n 's/.*libtorch-.*" \\(.*\\))/\\1/p' "$2")
      case " $INDEX " in
        *" $version "*) folder="$XDG_CACHE_HOME/lawn/libtorch-$version/torch/share/cmake/Torch"; mkdir -p "$folder"
                        echo "$CONFIG" > "$folder/TorchConfig.cmake" ;;
      esac ;;
  -S) exit ${CONFIGURES:-0} ;;
  --build) mkdir -p "$2/tests"; cp "$PROGRAMS"/* "$2/tests"; exit ${BUILDS:-0} ;;
esac
"""


class VersionsScript(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name).resolve()
        self.write("bin/cmake", f'echo "$*" >> {self.root}/calls{CMAKE}')
        (self.root / "calls").write_text("")
        (self.root / "programs").mkdir()
        self.write("programs/lawn_test", PASSES)

    def write(self, name, lines):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)

    def run_script(self, *arguments, index="2.4.1 2.15.0", **environment):
        """Returns the exit status, what is printed, and the calls of cmake."""
        clean = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}", "XDG_CACHE_HOME": f"{self.root}/cache",
                 "INDEX": index, "PROGRAMS": f"{self.root}/programs", "CONFIG": "", **environment}
        run = subprocess.run([sys.executable, "-B", SCRIPT, self.root / "build", *arguments], capture_output=True, text=True, env=clean)
        return run.returncode, run.stdout + run.stderr, (self.root / "calls").read_text()

    def test_prints_a_row_for_each_version(self):
        status, text, _ = self.run_script("2.4.1", "2.15.0")
        self.assertEqual(status, 0)
        self.assertIn("| LibTorch | compiles | tests passed |\n| --- | --- | --- |\n| 2.4.1 | yes | 3 of 3 |\n| 2.15.0 | yes | 3 of 3 |",
                      text)

    def test_names_what_does_not_install_configure_compile_or_pass_and_ends_with_one(self):
        status, text, _ = self.run_script("2.9.0")
        self.assertIn("| 2.9.0 | not installed | - |", text)
        self.assertEqual(status, 1)
        status, text, _ = self.run_script("2.4.1", CONFIGURES="1")
        self.assertIn("| 2.4.1 | not configured | - |", text)
        self.assertEqual(status, 1)
        self.write("programs/lawn_test", FAILS)
        status, text, _ = self.run_script("2.4.1")
        self.assertIn("| 2.4.1 | yes | 3 of 4; see lawn_test.log |", text)
        self.assertEqual(status, 1)
        self.write("programs/lawn_test", PASSES)  # as an earlier build left it
        status, text, _ = self.run_script("2.4.1", BUILDS="1")
        self.assertIn("| 2.4.1 | no | - |", text)
        self.assertEqual(status, 1)

    def test_installs_once_and_takes_the_wheel_for_cpus_where_the_index_has_it(self):
        for _ in range(2):
            _, text, calls = self.run_script("2.4.1", "--cpu", index="2.4.1 2.4.1+cpu")
            self.assertIn("| 2.4.1+cpu | yes |", text)
        self.assertEqual(calls.count("-P "), 1)
        _, text, _ = self.run_script("2.15.0", "--cpu")
        self.assertIn("| 2.15.0 | yes |", text)

    def test_configures_for_the_abi_and_the_standard_of_the_version(self):
        _, _, calls = self.run_script("2.15.0", "--cmake", "CMAKE_CXX_COMPILER=clang++")
        self.assertIn("-DLAWN_CXX_STANDARD=20 -DCMAKE_CXX_COMPILER=clang++", calls)
        self.assertNotIn("ABI", calls)
        (self.root / "gtest").mkdir()
        (self.root / "gtest/CMakeLists.txt").touch()
        _, _, calls = self.run_script("2.4.1", "--googletest", self.root / "gtest",
                                      CONFIG='set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")')
        self.assertIn("-DLAWN_CXX_STANDARD=17 "
                      f"-DFETCHCONTENT_SOURCE_DIR_GTEST={self.root}/gtest", calls)

    def test_refuses_what_is_not_a_version(self):
        status, text, _ = self.run_script("2.4")
        self.assertIn("expected a version as 2.4.1, got 2.4", text)
        self.assertEqual(status, 2)


if __name__ == "__main__":
    unittest.main()
