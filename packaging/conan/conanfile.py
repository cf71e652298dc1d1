# SPDX-License-Identifier: Apache-2.0
"""Conan 2: `conan create packaging/conan` puts lawn's headers and its CMake package into the local cache.

LibTorch is not in Conan's centre: the project finds its own, by Torch_DIR, CMAKE_PREFIX_PATH or the Python on the path, as lawn
without Conan does. Generators of Conan's own would know nothing of that, so the package brings lawn's CMake files.
"""

import os
import re

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain
from conan.tools.files import copy, load


class Lawn(ConanFile):
    name = "lawn"
    license = "Apache-2.0"
    description = "Logit Attenuating Weight Normalization for LibTorch"
    topics = ("libtorch", "optimizer", "deep-learning", "header-only")
    package_type = "header-library"
    settings = "os", "compiler", "build_type", "arch"
    no_copy_source = True

    @property
    def checkout(self):
        return os.path.join(self.recipe_folder, os.pardir, os.pardir)

    def set_version(self):
        version = load(self, os.path.join(self.checkout, "include/lawn/version.h"))
        self.version = re.search(r'#define LAWN_VERSION "(\S+)"', version)[1]

    def export_sources(self):
        for part in ("include/*", "cmake/*", "CMakeLists.txt", "LICENSE"):
            copy(self, part, self.checkout, self.export_sources_folder)

    def package_id(self):
        self.info.clear()

    def generate(self):
        toolchain = CMakeToolchain(self)
        for option in ("TESTS", "EXAMPLES", "BENCHMARKS"):
            toolchain.cache_variables[f"LAWN_BUILD_{option}"] = False
        toolchain.cache_variables["LAWN_INSTALL_LIBTORCH"] = False
        toolchain.cache_variables["LAWN_CUDA"] = "OFF"  # projects compile the kernels
        toolchain.generate()

    def package(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.install()

    def package_info(self):
        self.cpp_info.set_property("cmake_find_mode", "none")  # lawn's own files
        self.cpp_info.builddirs = ["share/cmake/lawn"]
        self.cpp_info.bindirs = self.cpp_info.libdirs = []
