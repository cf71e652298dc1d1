#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs clang-tidy over the headers of lawn, as one program that includes them all; fails on any finding.

usage: tidy.py BUILD SOURCE
  BUILD, SOURCE  a build folder and a source in it whose flags are used; of a source that has MPI, MPI's headers are read too

Reading LibTorch's headers takes most of the time: hence one program, not one for each header.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

from compile_command import compile_command

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    build, source = sys.argv[1:]
    tidy = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if not tidy:
        sys.exit("clang-tidy is not installed")
    # clang does not know g++'s OpenMP runtime, which is the compiler's business anyway.
    flags = [flag for flag in compile_command(build, source)[1:] if flag not in ("-fopenmp", "-Werror")]
    headers = sorted(path.relative_to(ROOT / "include") for path in (ROOT / "include").rglob("*.h"))
    if not any("SKIP_MPICXX" in flag for flag in flags):  # a definition that CMake's MPI brings
        headers = [header for header in headers if not str(header).startswith("lawn/distributed/mpi")]
    with tempfile.TemporaryDirectory() as folder:
        everything = pathlib.Path(folder, "every_header.cpp")
        everything.write_text("".join(f"#include <{header}>\n" for header in headers))
        command = [tidy, "--quiet", f"--config-file={ROOT / '.clang-tidy'}"]
        run = subprocess.run(command + [str(everything), "--", *flags], capture_output=True, text=True)
    print(run.stdout, end="")
    if run.returncode != 0:
        print(run.stderr, file=sys.stderr)
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
