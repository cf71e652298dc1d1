#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that a program does not compile, and that the compiler gives the reason that the program's first line names.

usage: compile_fail.py BUILD SOURCE PROGRAM
  BUILD, SOURCE  a build folder and a source in it whose flags are used
  PROGRAM        begins with `// expect: <regular expression>`, to be found in the compiler's first error, or with
                 `// compiles`: the control, which shows that the others are not refused for another reason; a second
                 line `// flags: -O2 ...` adds flags to those of SOURCE
"""

import pathlib
import re
import shlex
import subprocess
import sys

from compile_command import compile_command


def main():
    build, source, program = sys.argv[1:]
    first_line, second_line = pathlib.Path(program).read_text().splitlines()[:2]
    flags = re.fullmatch(r"// flags: (.+)", second_line)
    # With other flags the precompiled header does not fit. The first error is the reason; the compiler need not read on.
    command = compile_command(build, source, keep_precompiled_header=not flags)
    command += (shlex.split(flags.group(1)) if flags else []) + ["-Wfatal-errors", "-fsyntax-only", program]
    run = subprocess.run(command, capture_output=True, text=True)
    errors = "\n".join(line for line in run.stderr.splitlines() if "error:" in line)
    if first_line == "// compiles":
        print(run.stderr)
        return run.returncode != 0
    match = re.fullmatch(r"// expect: (.+)", first_line)
    if not match:
        print(f"{program}: the first line must be `// expect: <regular expression>` or `// compiles`")
        return 1
    if run.returncode == 0:
        print(f"{program} compiles, but must not")
        return 1
    print(errors)
    if not re.search(match.group(1), errors):
        print(f"{program}: this error does not match `{match.group(1)}`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
