#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The archives that CPack makes, unpacked into an empty folder and used from there; pkg-config; Conan and vcpkg, where they are on the
path.

usage: packages_test.py BUILD TORCH_DIR CXX [PackagesTest.test_...]
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD, TORCH_DIR, CXX = None, None, None


def run(*command, **more):
    """Returns what a command prints; fails with it."""
    process = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    if process.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{process.stdout}")
    return process.stdout


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


class PackagesTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        run("cmake", "--install", BUILD, "--prefix", self.folder / "installed")

    def packed(self, generator):
        """Returns the archive."""
        run("cpack", "-G", generator, "-B", self.folder / "packed", cwd=BUILD)
        (archive,) = [path for path in (self.folder / "packed").iterdir() if path.is_file()]
        return archive

    def configure(self, prefix, *found):
        """Configures a project that uses what lies in `prefix`; `found` are the options by which it finds lawn and LibTorch."""
        shown = run("cmake", "-S", ROOT / "tests/consumer", "-B", self.folder / "consumer", "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={CXX}",
                    "-DLAWN_CUDA=OFF", *(found or (f"-Dlawn_ROOT={prefix}", f"-DTorch_DIR={TORCH_DIR}")))
        self.assertIn("lawn: LibTorch", shown)
        self.assertIn(f"lawn_DIR:PATH={prefix}", (self.folder / "consumer/CMakeCache.txt").read_text())

    def test_an_archive_holds_what_is_installed_and_can_be_used(self):
        shutil.unpack_archive(self.packed("TGZ"), self.folder / "unpacked")
        (prefix,) = (self.folder / "unpacked").iterdir()
        self.assertEqual(files_in(prefix), files_in(self.folder / "installed"))
        self.configure(prefix)

    @unittest.skipUnless(shutil.which("dpkg"), "there is no dpkg")
    def test_a_debian_package_holds_what_is_installed_and_can_be_used(self):
        archive = self.packed("DEB")
        fields = run("dpkg", "--field", archive)
        self.assertIn("Package: liblawn-dev", fields)
        run("dpkg", "--extract", archive, self.folder / "unpacked")
        prefix = self.folder / "unpacked/usr"
        self.assertEqual(files_in(prefix), files_in(self.folder / "installed"))
        self.configure(prefix)

    @unittest.skipUnless(shutil.which("pkg-config"), "there is no pkg-config")
    def test_pkg_config_finds_the_headers_wherever_they_lie(self):
        (self.folder / "installed").rename(self.folder / "moved")
        environment = {**os.environ, "PKG_CONFIG_PATH": str(self.folder / "moved/share/pkgconfig")}
        flags = run("pkg-config", "--cflags", "lawn", env=environment).split()
        version = run("pkg-config", "--modversion", "lawn", env=environment).strip()
        source = self.folder / "version.cpp"
        source.write_text('#include <lawn/version.h>\n#include <string_view>\n'
                          f'static_assert(std::string_view(LAWN_VERSION) == "{version}");\n')
        run(CXX, "-std=c++17", "-fsyntax-only", *flags, source)

    @unittest.skipUnless(shutil.which("conan"), "there is no Conan")
    def test_conan_makes_a_package_and_a_program_with_it(self):
        environment = {**os.environ, "CONAN_HOME": str(self.folder / "conan"), "Torch_DIR": TORCH_DIR}
        run("conan", "profile", "detect", env=environment)
        shown = run("conan", "create", ROOT / "packaging/conan", "-s", "compiler.cppstd=17",
                    "-c", f"tools.cmake.cmake_layout:test_folder={self.folder / 'test'}", env=environment)
        self.assertRegex(shown, r"lawn \d+\.\d+\.\d+: drift of a norm")

    @unittest.skipUnless(shutil.which("vcpkg") and "VCPKG_ROOT" in os.environ, "there is no vcpkg, or no VCPKG_ROOT")
    def test_vcpkg_installs_the_port_and_a_program_finds_it(self):
        port = self.folder / "ports/libtorch"  # stands for vcpkg's, which takes hours to build
        port.mkdir(parents=True)
        (port / "vcpkg.json").write_text('{"name": "libtorch", "version": "0"}')
        refer = "".join(f'file(WRITE "${{folder}}/{name}" "include(\\"{TORCH_DIR}/{name}\\")\n")\n'
                        for name in ("TorchConfig.cmake", "TorchConfigVersion.cmake"))
        (port / "portfile.cmake").write_text('set(folder "${CURRENT_PACKAGES_DIR}/share/torch")\n'
                                             "set(VCPKG_POLICY_EMPTY_INCLUDE_FOLDER enabled)\n"
                                             f"set(VCPKG_POLICY_SKIP_COPYRIGHT_CHECK enabled)\n{refer}")
        folders = [f"--x-{name}-root={self.folder / name}" for name in ("install", "packages", "buildtrees")]
        run("vcpkg", "install", "lawn", "--classic", f"--overlay-ports={ROOT / 'packaging/vcpkg/ports'}",
            f"--overlay-ports={self.folder / 'ports'}", "--binarysource=clear", *folders)
        (installed,) = (path for path in (self.folder / "install").iterdir() if path.name != "vcpkg")
        toolchain = pathlib.Path(os.environ["VCPKG_ROOT"]) / "scripts/buildsystems/vcpkg.cmake"
        self.configure(installed, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DVCPKG_INSTALLED_DIR={self.folder / 'install'}")


if __name__ == "__main__":
    BUILD, TORCH_DIR, CXX = sys.argv[1:4]
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
