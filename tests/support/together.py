#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a source that includes several test files, each in a namespace of its own, to be compiled at once.

usage: together.py OUTPUT FOLDER FILE...          FILEs are relative to FOLDER

What the compiler makes of torch/torch.h's templates at the end of every source takes longer than most test files themselves.
What the files include comes first, outside the namespaces; there, guarded as every header is, it is empty. So a name need not
differ from those in other files; the name of a test suite must, within one program.
"""

import pathlib
import re
import sys


def main():
    output, folder, files = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
    includes = []
    for file in files:
        includes += re.findall(r"^#include [<\"].*", (folder / file).read_text(), re.MULTILINE)
    lines = [f"// Written by {pathlib.Path(__file__).name}.", *dict.fromkeys(includes)]
    for file in files:
        namespace = "in_" + re.sub(r"\W", "_", file.removesuffix(".cpp"))
        lines += [f"namespace {namespace} {{", f'#include "{folder / file}"', f"}}  // namespace {namespace}"]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
