#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where lawn finds LibTorch, and what it says of it: configures the project beside this file, with made-up LibTorches.

usage: find_torch_test.py CMAKE [FindTorch.test_...]
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent
CONFIG = "share/cmake/Torch"
# Nothing is built.
GENERATOR = ["-G", "Unix Makefiles", "-DCMAKE_MAKE_PROGRAM=make"]
# This machine may have a LibTorch, too.
ISOLATED = ["-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF", "-DCMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH=OFF",
            "-DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF", "-DCMAKE_FIND_USE_SYSTEM_PACKAGE_REGISTRY=OFF"]


class FindTorch(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name).resolve()
        self.cache = self.root / "home/.cache/lawn/libtorch-2.11.0/torch"
        self.write_python("exit 1")

    def write_python(self, line):
        """The python3 on the path, as a shell script."""
        python = self.root / "bin/python3"
        python.parent.mkdir(exist_ok=True)
        python.write_text(f"#!/bin/sh\n{line}\n")
        python.chmod(0o755)

    def libtorch(self, name, version=None, cuda=False):
        """Makes a LibTorch in `name` and returns that folder."""
        folder = self.root / name
        (folder / CONFIG).mkdir(parents=True)
        (folder / CONFIG / "TorchConfig.cmake").write_text("set(Torch_FOUND TRUE)\n")
        if version:
            (folder / CONFIG / "TorchConfigVersion.cmake").write_text(f'set(PACKAGE_VERSION "{version}")\n')
        if cuda:
            (folder / "lib").mkdir()
            (folder / "lib/libtorch_cuda.so").touch()
        return folder

    def python_torch(self):
        torch = self.libtorch("site-packages/torch")
        self.write_python(f"echo {torch}/share/cmake")
        return torch

    def configure(self, *options, **environment):
        """Returns what CMake says, its lines joined into one."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CMAKE_", "Torch_", "XDG_"))}
        clean.update(PATH=f"{self.root}/bin:{os.environ['PATH']}", HOME=f"{self.root}/home",
                     **{name: str(value) for name, value in environment.items()})
        command = [CMAKE, "-S", SOURCE, "-B", self.root / "build", *GENERATOR, *ISOLATED, *options]
        run = subprocess.run(command, capture_output=True, text=True, env=clean)
        return re.sub(r"\s+", " ", run.stdout + run.stderr)

    def expect(self, text, folder, reason):
        self.assertIn(f"took {folder / CONFIG}, from {reason} --", text)

    def as_find_package(self, *options, **environment):
        return self.configure("-DCOMPARE=ON", *options, **environment)

    # --- where find_package looks ---------------------------------------------------------------------------------------

    def test_takes_torch_dir(self):
        torch = self.libtorch("a")
        self.libtorch("b")
        text = self.configure(f"-DTorch_DIR={torch}/{CONFIG}", f"-DCMAKE_PREFIX_PATH={self.root}/b")
        self.expect(text, torch, "Torch_DIR")

    def test_takes_torch_root_before_the_prefix_path(self):
        torch = self.libtorch("a")
        prefix = self.libtorch("b")
        self.expect(self.as_find_package(f"-DTorch_ROOT={torch}", f"-DCMAKE_PREFIX_PATH={prefix}"), torch, "Torch_ROOT")

    def test_takes_torch_root_in_a_project_of_older_policies(self):
        torch = self.libtorch("a")
        self.libtorch(self.cache)
        self.expect(self.configure("-DOLD_POLICIES=ON", f"-DTorch_ROOT={torch}"), torch, "Torch_ROOT")

    def test_takes_the_torch_root_of_the_environment_before_the_prefix_path(self):
        torch = self.libtorch("a")
        prefix = self.libtorch("b")
        text = self.as_find_package(f"-DCMAKE_PREFIX_PATH={prefix}", Torch_ROOT=torch)
        self.expect(text, torch, "Torch_ROOT")

    def test_takes_the_first_of_several_entries_of_the_prefix_path(self):
        torch = self.libtorch("a")
        other = self.libtorch("b")
        text = self.as_find_package(f"-DCMAKE_PREFIX_PATH={self.root}/none;{torch};{other}")
        self.expect(text, torch, "CMAKE_PREFIX_PATH")

    def test_takes_the_first_of_several_entries_of_the_prefix_path_of_the_environment(self):
        torch = self.libtorch("a")
        other = self.libtorch("b")
        self.libtorch(self.cache)
        self.python_torch()
        text = self.as_find_package(CMAKE_PREFIX_PATH=f"{self.root}/none:{torch}:{other}")
        self.expect(text, torch, "the environment's CMAKE_PREFIX_PATH")

    def test_takes_the_prefix_path_before_that_of_the_environment(self):
        torch = self.libtorch("a")
        other = self.libtorch("b")
        text = self.as_find_package(f"-DCMAKE_PREFIX_PATH={torch}", CMAKE_PREFIX_PATH=other, Torch_DIR=other)
        self.expect(text, torch, "CMAKE_PREFIX_PATH")

    def test_takes_the_torch_dir_of_the_environment_before_its_prefix_path(self):
        torch = self.libtorch("a")
        other = self.libtorch("b")
        text = self.as_find_package(CMAKE_PREFIX_PATH=other, Torch_DIR=torch / CONFIG)
        self.expect(text, torch, "the environment's Torch_DIR")

    def test_takes_a_prefix_as_torch_dir_of_the_environment_as_find_package_does(self):
        torch = self.libtorch("a")
        for name in (torch, f"{torch}/", f"{torch.parent}/x/../{torch.name}"):
            self.expect(self.as_find_package("--fresh", Torch_DIR=name), torch, "the environment's Torch_DIR")

    def test_takes_the_torch_in_a_folder_of_python_packages(self):
        torch = self.libtorch("packages/torch")
        self.expect(self.as_find_package(CMAKE_PREFIX_PATH=torch.parent), torch, "the environment's CMAKE_PREFIX_PATH")

    def test_takes_one_of_the_systems_folders_before_the_torch_of_python(self):
        torch = self.libtorch("system")
        self.python_torch()
        text = self.as_find_package("-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=ON", "-DCMAKE_IGNORE_PREFIX_PATH=/usr/local;/usr",
                                    f"-DCMAKE_INSTALL_PREFIX={torch}")
        self.expect(text, torch, "the system's folders")

    # --- where it does not ----------------------------------------------------------------------------------------------

    def test_takes_the_torch_of_python_before_the_cache(self):
        self.libtorch(self.cache)
        torch = self.python_torch()
        self.expect(self.configure(), torch, "the torch of python3")

    def test_takes_the_cache_last_and_says_that_the_prefix_path_has_none(self):
        torch = self.libtorch(self.cache)
        self.expect(self.configure(), torch, "the per-user cache")
        (self.root / "build/CMakeCache.txt").unlink()
        text = self.configure(CMAKE_PREFIX_PATH=f"{self.root}/x:{self.root}/y")
        self.expect(text, torch, "the per-user cache, since CMAKE_PREFIX_PATH has none")

    def test_says_where_it_looked_and_installs_nothing_when_there_is_none(self):
        self.write_python(f'echo "$2" >> "{self.root}/calls"; exit 1')
        text = self.configure()
        self.assertIn("lawn: no LibTorch was found in Torch_DIR, Torch_ROOT, CMAKE_PREFIX_PATH, the system's folders, the torch "
                      f"of python3 or {self.root}/home/.cache/lawn/libtorch-2.11.0. Install it", text)
        self.assertEqual((self.root / "calls").read_text(), "import torch; print(torch.utils.cmake_prefix_path)\n")
        self.assertFalse((self.root / "home").exists())

    def test_lets_a_project_go_on_that_can_do_without_lawn(self):
        optional = self.configure("-DCMAKE_FIND_PACKAGE_NAME=lawn")  # as find_package(lawn) sets it
        self.assertIn("took , from --", optional)
        required = self.configure("-DCMAKE_FIND_PACKAGE_NAME=lawn", "-Dlawn_FIND_REQUIRED=ON")
        self.assertIn("lawn: no LibTorch was found", required)

    # --- what is refused ------------------------------------------------------------------------------------------------

    def test_refuses_a_torch_dir_without_a_libtorch(self):
        self.libtorch(self.cache)
        text = self.configure(f"-DTorch_DIR={self.root}/typo")
        self.assertIn(f"lawn: expected TorchConfig.cmake in Torch_DIR, got {self.root}/typo, where there is none; pass the folder "
                      "of TorchConfig.cmake (share/cmake/Torch in a LibTorch), or -UTorch_DIR to search elsewhere", text)

    def test_refuses_the_root_of_a_libtorch_as_torch_dir_and_names_the_folder_to_pass(self):
        torch = self.libtorch("a")
        self.assertIn(f"got {torch}, where there is none; pass -DTorch_DIR={torch}/{CONFIG}",
                      self.configure(f"-DTorch_DIR={torch}"))
        packages = self.libtorch("packages/torch").parent
        self.assertIn(f"got {packages}, where there is none; pass -DTorch_DIR={packages}/torch/{CONFIG}",
                      self.configure(f"-DTorch_DIR={packages}"))

    def test_refuses_a_torch_root_without_a_libtorch(self):
        other = self.libtorch("b")
        wanted = f"lawn: expected a LibTorch in Torch_ROOT, got {self.root}/typo, where there is none; correct it, or unset it"
        self.assertIn(wanted, self.configure(f"-DTorch_ROOT={self.root}/typo", f"-DCMAKE_PREFIX_PATH={other}"))
        self.assertIn(wanted, self.configure("-UTorch_ROOT", Torch_ROOT=f"{self.root}/typo"))

    def test_refuses_a_torch_dir_of_the_environment_without_a_libtorch(self):
        other = self.libtorch("b")
        text = self.configure(Torch_DIR=f"{self.root}/typo", CMAKE_PREFIX_PATH=other)
        self.assertIn(f"lawn: expected a LibTorch in the environment's Torch_DIR, got {self.root}/typo, where there is none; "
                      "correct it, or unset it", text)

    def check(self, torch, *options):
        return self.configure("--fresh", "-DCHECK=ON", f"-DTorch_DIR={torch / CONFIG}", *options)

    def test_refuses_a_libtorch_outside_the_supported_versions_and_names_both(self):
        for version in ("1.13.1", "2.4.0", "2.16.0", "3.0.0"):
            torch = self.libtorch(version, version)
            self.assertIn(f"lawn: expected LibTorch 2.4.1 to 2.15, found {version} in {torch / CONFIG} (from Torch_DIR); give one of "
                          "these", self.check(torch))
        for version in ("2.4.1", "2.4.1+cu121", "2.10.0", "2.15.3"):
            self.assertIn(f"version {version}, kernels: ", self.check(self.libtorch(version, version)))

    def test_says_that_later_versions_require_a_later_standard(self):
        torch = self.libtorch("a", "2.14.0")
        text = self.check(torch, "-DCMAKE_CXX_STANDARD=17")
        self.assertIn("LibTorch 2.14 and later require C++20: set CMAKE_CXX_STANDARD 20; it is 17, and found is LibTorch 2.14.0", text)
        for options in ([], ["-DCMAKE_CXX_STANDARD=20"]):
            self.assertNotIn("C++20", self.check(torch, *options))
        self.assertNotIn("C++20", self.check(self.libtorch("b", "2.13.1"), "-DCMAKE_CXX_STANDARD=17"))
        self.assertIn("require C++20, which /usr/bin/old++ does not know", self.check(
            torch, "-DCMAKE_CXX_COMPILE_FEATURES=cxx_std_17", "-DCMAKE_CXX_COMPILER=/usr/bin/old++"))

    # --- whether there are kernels --------------------------------------------------------------------------------------

    def nvcc(self):
        (self.root / "bin/nvcc").write_text("#!/bin/sh\n")
        (self.root / "bin/nvcc").chmod(0o755)
        return ["-DCMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH=ON"]

    def without_nvcc(self):
        return ["-DCMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH=OFF",
                "-DCMAKE_IGNORE_PATH=/usr/local/cuda/bin"]

    def test_has_kernels_by_default_where_there_are_a_cuda_build_and_an_nvcc(self):
        torch = self.libtorch("a", "2.11.0", cuda=True)
        self.assertIn("kernels: .", self.check(torch, *self.nvcc()))
        self.assertIn("kernels: LAWN_CUDA is OFF.", self.check(torch, *self.nvcc(), "-DLAWN_CUDA=OFF"))
        self.assertIn("kernels: LibTorch is built without CUDA.", self.check(self.libtorch("b", "2.11.0"), *self.nvcc()))

    def test_has_kernels_or_refuses_where_they_are_asked_for(self):
        torch = self.libtorch("a", "2.11.0", cuda=True)
        self.assertIn("kernels: .", self.check(torch, *self.nvcc(), "-DLAWN_CUDA=ON"))
        self.assertIn("since LAWN_CUDA is ON, but LibTorch is built without CUDA; LibTorch is in",
                      self.check(self.libtorch("b", "2.11.0"), *self.nvcc(), "-DLAWN_CUDA=ON"))
        self.assertIn("lawn: expected AUTO, ON or OFF as LAWN_CUDA, got yes", self.check(torch, "-DLAWN_CUDA=yes"))

    def test_has_no_kernels_without_an_nvcc_and_says_so(self):
        torch = self.libtorch("a", "2.11.0", cuda=True)
        nowhere = {"CUDA_HOME": "", "CUDA_PATH": "", "CUDACXX": ""}
        check = ["--fresh", "-DCHECK=ON", f"-DTorch_DIR={torch / CONFIG}", *self.without_nvcc()]
        self.assertIn("kernels: there is no nvcc.", self.configure(*check, **nowhere))
        self.assertIn("since LAWN_CUDA is ON, but there is no nvcc", self.configure(*check, "-DLAWN_CUDA=ON", **nowhere))

    def test_has_no_kernels_where_libtorch_asks_for_more_than_the_toolkit_has(self):
        torch = self.libtorch("a", "2.6.0", cuda=True)
        asking = torch / "share/cmake/Caffe2/public/cuda.cmake"
        asking.parent.mkdir(parents=True)
        asking.write_text("set_property(TARGET t PROPERTY INTERFACE_LINK_LIBRARIES CUDA::nvToolsExt)\n")
        nvcc = [*self.nvcc(), f"-DLAWN_CUDA_COMPILER={self.root}/bin/nvcc"]
        reason = f"this LibTorch asks for a CUDA toolkit with nvToolsExt, which {self.root} has not"
        self.assertIn(f"kernels: {reason}.", self.check(torch, *nvcc))
        self.assertIn(f"since LAWN_CUDA is ON, but {reason}; LibTorch", self.check(torch, *nvcc, "-DLAWN_CUDA=ON"))
        self.assertIn("kernels: .", self.check(torch, *nvcc, "-DUSE_SYSTEM_NVTX=ON"))
        library = self.root / "lib64/libnvToolsExt.so"
        library.parent.mkdir()
        library.touch()
        self.assertIn("kernels: .", self.check(torch, *nvcc))
        library.unlink()
        asking.write_text("")
        self.assertIn("kernels: .", self.check(torch, *nvcc))

    def check_toolkits(self, torch, *expected, cuda="AUTO"):
        """Expects of each (version of nvcc, reason) that there are no kernels for that reason, where it is not empty."""
        nvcc = self.root / "toolkit/nvcc"  # CUDACXX names the file
        nvcc.parent.mkdir(exist_ok=True)
        for version, reason in expected:
            nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.1'\n")
            nvcc.chmod(0o755)
            check = ["--fresh", "-DCHECK=ON", f"-DTorch_DIR={torch / CONFIG}", *self.without_nvcc(), f"-DLAWN_CUDA={cuda}"]
            text = self.configure(*check, CUDA_HOME="", CUDA_PATH="", CUDACXX=nvcc)
            reason = reason and f"{reason}, and {nvcc} is of {version}"
            self.assertIn(f"since LAWN_CUDA is ON, but {reason}; LibTorch" if cuda == "ON" else f"kernels: {reason}.", text)

    def test_has_no_kernels_where_the_toolkit_is_older_than_they_take(self):
        torch = self.libtorch("a", "2.11.0", cuda=True)
        reason = "lawn's kernels ask for CUDA 12.1 or later"
        self.check_toolkits(torch, ("11.8", reason), ("12.0", reason), ("12.1", ""), ("12.10", ""), ("13.0", ""))
        self.check_toolkits(torch, ("12.0", reason), cuda="ON")

    def test_has_no_kernels_where_the_toolkit_is_older_than_libtorch_takes(self):
        torch = self.libtorch("a", "2.11.0", cuda=True)
        asking = torch / "share/cmake/Caffe2/public/cuda.cmake"
        asking.parent.mkdir(parents=True)
        for asks, asked_by in (("12.0", "lawn's kernels ask for CUDA 12.1"), ("12.6", "this LibTorch asks for CUDA 12.6")):
            asking.write_text(f'message(FATAL_ERROR "PyTorch requires CUDA {asks} or above.")\n')
            self.check_toolkits(torch, ("11.8", f"{asked_by} or later"), ("12.0", f"{asked_by} or later"), ("12.6", ""))
        self.check_toolkits(torch, ("12.4", f"{asked_by} or later"))

    # --- configuring again ----------------------------------------------------------------------------------------------

    def test_keeps_what_it_took_and_its_reason_when_configured_again(self):
        torch = self.libtorch("a")
        self.expect(self.configure(CMAKE_PREFIX_PATH=torch), torch, "the environment's CMAKE_PREFIX_PATH")
        text = self.configure(CMAKE_PREFIX_PATH=torch)
        self.expect(text, torch, "the environment's CMAKE_PREFIX_PATH")
        self.assertNotIn("Warning", text)
        self.expect(self.configure(), torch, "the environment's CMAKE_PREFIX_PATH")

    def test_warns_when_it_keeps_what_it_took_although_another_is_asked_for(self):
        cached = self.libtorch(self.cache)
        asked = self.libtorch("a")
        self.configure()
        text = self.configure(f"-DCMAKE_PREFIX_PATH={asked}")
        self.assertIn(f"lawn: keeps the LibTorch in {cached}/{CONFIG}, which this build folder was first configured with, although "
                      f"CMAKE_PREFIX_PATH now leads to {asked}/{CONFIG}; to change, configure with --fresh", text)
        self.expect(text, cached, "the per-user cache")
        self.expect(self.configure("--fresh", f"-DCMAKE_PREFIX_PATH={asked}"), asked, "CMAKE_PREFIX_PATH")

    def test_searches_anew_and_says_so_when_torch_dir_is_taken_back(self):
        self.configure(f"-DTorch_DIR={self.libtorch('a')}/{CONFIG}")
        other = self.libtorch("b")
        self.expect(self.configure("-UTorch_DIR", Torch_ROOT=other), other, "Torch_ROOT")


if __name__ == "__main__":
    CMAKE = sys.argv.pop(1)
    unittest.main()
