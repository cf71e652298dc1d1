#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What Doxygen reads of a header: the docstrings, with fences around the lines that are set apart in them.

usage: doxygen_filter.py FILE          prints it

An equation or a piece of code in a docstring is indented by two spaces or more:

    /// Brings each weight back to its sphere.
    ///   w <- R w / ||w||
    /// @param layers  each with a radius

Doxygen would make one paragraph of it with the lines around. Lines that go on after a command (@param) are indented as well, and stay.
"""

import pathlib
import re
import sys

LINE = re.compile(r"^(\s*///)( ?)(.*)$")


def filtered(lines):
    inside = False  # a fence
    in_command = False  # after @param and the like, up to an empty line or the end of the docstring
    for line in lines:
        if re.search(r"= default;$", line):  # says all
            line = ""
        match = LINE.match(line)
        text = match[3] if match else None
        if text is None or not text.strip():
            in_command = False
        elif text.startswith("@"):
            in_command = True
        apart = match is not None and text.startswith("  ") and text.strip() != "" and not in_command
        if apart and not inside:
            yield f"{match[1]} ```text"
        if inside and not apart:
            # An empty line between two equations is one of theirs; the command goes in front of what follows.
            yield f"{prefix} ```"
        inside = apart
        if match:
            prefix = match[1]
        yield line
    if inside:
        yield f"{prefix} ```"


if __name__ == "__main__":
    sys.stdout.write("\n".join(filtered(pathlib.Path(sys.argv[1]).read_text().split("\n"))))
