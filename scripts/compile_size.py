#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails when including lawn/lawn.h after torch/torch.h gives the compiler more lines to read than a limit.

usage: compile_size.py BUILD SOURCE LIMIT
  BUILD, SOURCE  a build folder and a source in it whose flags are used

Counted are the lines that preprocessing leaves and that are not empty: their number is the same in every run, as the time of a
compile is not.
"""

import collections
import re
import subprocess
import sys

from compile_command import compile_command

TORCH = "#include <torch/torch.h>\n"
LAWN = TORCH + "#include <lawn/lawn.h>\n"
OWNERS = {"lawn": "/include/lawn/", "LibTorch": "/torch/include/"}  # by a part of the path; the rest is the compiler's


def lines_by_file(command, program):
    """Returns how many lines come from each file."""
    run = subprocess.run([*command, "-E", "-x", "c++", "-"], input=program, check=True, capture_output=True, text=True)
    lines = collections.Counter()
    file = ""
    for line in run.stdout.splitlines():
        marker = re.match(r'# \d+ "(.*?)"', line)
        if marker:
            file = marker[1]
        elif line.strip():
            lines[file] += 1
    return lines


def main():
    build, source, limit = *sys.argv[1:3], int(sys.argv[3])
    command = compile_command(build, source)
    added = lines_by_file(command, LAWN) - lines_by_file(command, TORCH)
    shares = collections.Counter()
    for file, count in added.items():
        owner = next((name for name, part in OWNERS.items() if part in file), "the compiler")
        shares[owner] += count
    total = sum(added.values())
    print(f"lawn/lawn.h adds {total} lines to those of torch/torch.h; the limit is {limit}")
    print(", ".join(f"{count} of {owner}" for owner, count in shares.most_common()))
    for file, count in added.most_common(10):
        print(f"{count:7}  {file}")
    return total > limit


if __name__ == "__main__":
    sys.exit(main())
