#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes each C++ block of Markdown pages as a program, so that what the pages show is compiled and run as a test.

usage: snippets.py FOLDER PAGE...        prints the names, separated by semicolons, and writes FOLDER/<name>.cpp

A block is named by an HTML comment, which readers do not see, in the line before it:

    <!-- snippet: quickstart -->            <!-- snippet: resume
    ```cpp                                  torch::nn::Linear model(4, 2);
    ...                                     -->
    ```                                     ```cpp
                                            ...

Further lines of the comment are set-up code that stands before the block. A block with `int main` is a program as it is;
any other becomes the body of a function. Its #include lines move to the top.
"""

import pathlib
import re
import sys

BLOCK = re.compile(
    r"(?:^<!-- snippet: (?P<name>\w+)(?P<setup>(?:(?!-->).)*)-->\n)?^```cpp\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def program(page, name, setup, code):
    if re.search(r"^int main\(", code, re.MULTILINE):
        if "#include <torch/torch.h>" not in code:
            sys.exit(f"{page}: {name} does not include torch/torch.h, which is precompiled for it")
        return code
    lines = (setup.strip("\n") + "\n" + code).splitlines()
    includes = [line for line in lines if line.startswith("#include")]
    body = [line for line in lines if not line.startswith("#include")]
    top = [f"// Written from {page} by snippets.py."]
    if not any("torch/torch.h" in line for line in includes):
        includes.insert(0, "#include <torch/torch.h>")
    if not any("lawn/lawn.h" in line for line in includes):
        includes.append("#include <lawn/lawn.h>")
    return "\n".join(top + includes + ["", f"static void {name}() {{"] + body + ["}", "", f"int main() {{ {name}(); }}", ""])


def programs_of(page):
    text = page.read_text()
    programs = {}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        name = block["name"]
        if not name:
            sys.exit(f"{page}:{line}: a cpp block without `<!-- snippet: name -->` in the line before it")
        if name in programs:
            sys.exit(f"{page}:{line}: a second snippet named {name}")
        programs[name] = program(page.name, name, block["setup"], block["code"])
    if len(programs) != len(re.findall(r"^\s*(?:```|~~~)\s*(?:cpp|c\+\+|cc|cxx)(?!\w)", text, re.MULTILINE | re.IGNORECASE)):
        sys.exit(f"{page}: a C++ block is written otherwise than ```cpp at the start of its line")
    return programs


def main():
    folder, pages = pathlib.Path(sys.argv[1]), [pathlib.Path(page) for page in sys.argv[2:]]
    programs = {}
    for page in pages:
        for name, code in programs_of(page).items():
            if name in programs:
                sys.exit(f"{page}: a second snippet named {name}")
            programs[name] = code
    if not programs:
        sys.exit("no snippet found")

    folder.mkdir(parents=True, exist_ok=True)
    for name, code in programs.items():
        file = folder / f"{name}.cpp"
        if not file.exists() or file.read_text() != code:  # an unchanged program is not compiled again
            file.write_text(code)
    print(";".join(programs), end="")


if __name__ == "__main__":
    main()
