#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds and runs the core tests against each of some versions of LibTorch; prints a table.

usage: versions.py [options] BUILD VERSION ...
  BUILD    a folder; each version is built in a folder of its own there
  VERSION  2.4.1, say; its wheel is installed with pip into the per-user cache, where it is not there yet

The tests are those of the library, on a CPU, without lawn's kernels. From 2.14 on they are built in C++20. The wheels up to 2.6 have the older ABI of
std::string, for which GoogleTest is built from source: from --googletest, else from /usr/src/googletest (Debian's libgtest-dev),
else downloaded.

Exits with 0 where everything compiles and passes, else with 1.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = "lawn_test"


def cache_folder(version):
    """The folder of a version in the per-user cache, as LawnFindTorch.cmake names it."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ["HOME"], ".cache")
    return pathlib.Path(cache) / f"lawn/libtorch-{version}"


def config_folder(version):
    return cache_folder(version) / "torch/share/cmake/Torch"


def install(version):
    """Installs a version as lawn's own build does; returns whether it is there."""
    if not (config_folder(version) / "TorchConfig.cmake").exists():
        with tempfile.NamedTemporaryFile("w", suffix=".cmake") as script:
            script.write(f'include("{ROOT}/cmake/InstallLibTorch.cmake")\n'
                         f'lawn_install_libtorch("{cache_folder(version)}" {version})\n')
            script.flush()
            subprocess.run(["cmake", "-P", script.name])
    return (config_folder(version) / "TorchConfig.cmake").exists()


def find(version, cpu):
    """Installs the wheel for CPUs if asked for and if the index has it, else the usual one; returns the one that is there."""
    candidates = [f"{version}+cpu", version] if cpu else [version]
    return next((candidate for candidate in candidates if install(candidate)), None)


def options_for(version, googletest):
    """The options of CMake for a LibTorch in the cache."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    config = config_folder(version)
    options = [f"-DTorch_DIR={config}", f"-DLAWN_CXX_STANDARD={20 if numbers >= (2, 14) else 17}"]
    if "_GLIBCXX_USE_CXX11_ABI=0" in (config / "TorchConfig.cmake").read_text():
        if (googletest / "CMakeLists.txt").exists():  # Development.cmake does not take the system's
            options.append(f"-DFETCHCONTENT_SOURCE_DIR_GTEST={googletest}")
    return options


def count(output):
    """Returns how many tests ran and how many passed, by what GoogleTest prints."""
    ran = re.search(r"^\[=+\] (\d+) tests? from \d+ test suites? ran", output, re.MULTILINE)
    passed = re.search(r"^\[  PASSED  \] (\d+) tests?", output, re.MULTILINE)
    skipped = re.search(r"^\[  SKIPPED \] (\d+) tests?, listed", output, re.MULTILINE)
    return (int(ran[1]) - (int(skipped[1]) if skipped else 0) if ran else 0), (int(passed[1]) if passed else 0)


def run_tests(folder):
    """Returns the last cell of a row, and whether all is well."""
    run = subprocess.run([folder / "tests" / PROGRAM], capture_output=True, text=True, cwd=folder)
    log = folder / f"{PROGRAM}.log"
    log.write_text(run.stdout + run.stderr)
    ran, passed = count(run.stdout)
    good = run.returncode == 0 and ran > 0
    return f"{passed} of {ran}" + ("" if good else f"; see {log.name}"), good


def try_version(version, options):
    """Returns the row of a version, and whether all is well."""
    found = find(version, options.cpu)
    if found is None:
        return (version, "not installed", "-"), False
    folder = options.build.resolve() / found
    configure = ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "--compile-no-warning-as-error", "-DCMAKE_BUILD_TYPE=Release",
                 "-DCMAKE_CXX_FLAGS_RELEASE=-O0", "-DLAWN_CUDA=OFF", "-DLAWN_MPI=OFF", "-DLAWN_BUILD_EXAMPLES=OFF",
                 "-DLAWN_TEST_PACKAGING=OFF", *options_for(found, options.googletest), *options.cmake]
    if subprocess.run(configure).returncode != 0:
        return (found, "not configured", "-"), False
    build = ["cmake", "--build", folder, "--parallel", str(options.jobs), "--target", PROGRAM, "--", "-k", "0"]
    if subprocess.run(build).returncode != 0:
        return (found, "no", "-"), False
    tests, good = run_tests(folder)
    return (found, "yes", tests), good


def table(rows):
    """The rows as a table in Markdown."""
    lines = [("LibTorch", "compiles", "tests passed"), ("---", "---", "---"), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, metavar="BUILD")
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    parser.add_argument("--cpu", action="store_true", help="prefer the wheel VERSION+cpu, where the package index has it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many files are compiled at once")
    parser.add_argument("--googletest", type=pathlib.Path, default=pathlib.Path("/usr/src/googletest"))
    parser.add_argument("--cmake", nargs="+", action="extend", default=[], help="further options, -DNAME=VALUE as NAME=VALUE")
    options = parser.parse_args()
    for version in options.versions:
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            parser.error(f"expected a version as 2.4.1, got {version}")
    options.cmake = [f"-D{option}" for option in options.cmake]
    results = [try_version(version, options) for version in options.versions]
    print(table([row for row, _ in results]))
    return 0 if all(good for _, good in results) else 1


if __name__ == "__main__":
    sys.exit(main())
