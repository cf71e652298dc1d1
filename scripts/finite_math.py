#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that every header with numbers that may be NaN or infinite refuses -ffinite-math-only: that it includes
lawn/finite_math.h, directly or through other headers of lawn.

usage: finite_math.py [INCLUDE]
  INCLUDE  default: lawn's include folder
"""

import pathlib
import re
import sys

GUARD = "lawn/finite_math.h"
NUMBERS = re.compile(r"\b(double|float|isfinite|isinf|isnan)\b")


def code_of(text):
    """Returns `text` without comments and without the strings of messages."""
    return re.sub(r'^(?!\s*#).*', lambda line: re.sub(r'"[^"]*"', '""', line.group()), re.sub(r"//.*", "", text),
                  flags=re.MULTILINE)


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent / "include")
    texts = {str(path.relative_to(root)): code_of(path.read_text())
             for path in root.rglob("*") if path.suffix in (".h", ".cuh", ".cu")}
    includes = {name: re.findall(r"#include [<\"](lawn/[^>\"]+)", text) for name, text in texts.items()}

    def reached_from(name, seen):
        if name not in seen:
            seen.add(name)
            for other in includes.get(name, []):
                reached_from(other, seen)
        return seen

    numeric = [name for name, text in texts.items() if NUMBERS.search(text)]
    bare = sorted(name for name in numeric if GUARD not in reached_from(name, set()))
    for name in bare:
        print(f"{name} has floating-point numbers and does not include {GUARD}, directly or through others")
    if not numeric:
        print(f"{root}: no header there has floating-point numbers")
    return 1 if bare or not numeric else 0


if __name__ == "__main__":
    sys.exit(main())
