#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the C++ blocks of Markdown pages as programs, so that what the pages show is compiled and run as a test.

usage: snippets.py FOLDER PAGE...        prints the names, separated by semicolons

Writes FOLDER/<name>.cpp for each block, a program of its own, which has only what the block includes; and FOLDER/snippets.cpp, which
has all of them and runs those that its arguments name.

A block is named by an HTML comment, which readers do not see, in the line before it:

    <!-- snippet: quickstart -->            <!-- snippet: resume
    ```cpp                                  torch::nn::Linear model(4, 2);
    ...                                     -->
    ```                                     ```cpp
                                            ...

Further lines of the comment are set-up code that stands before the block. A block becomes the body of a function, unless it has
`int main() {`, which becomes one. Its #include lines move to the top.
"""

import pathlib
import re
import sys

BLOCK = re.compile(
    r"(?:^<!-- snippet: (?P<name>\w+)(?P<setup>(?:(?!-->).)*)-->\n)?^```cpp\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def parts_of(page, name, setup, code):
    """Returns the includes of a block, and a function `name` that does what the block shows."""
    lines = (setup.strip("\n") + "\n" + code).splitlines()
    includes = [line for line in lines if line.startswith("#include")]
    body = [line for line in lines if not line.startswith("#include")]
    if "int main() {" in body:
        if "#include <torch/torch.h>" not in includes:
            sys.exit(f"{page}: {name} does not include torch/torch.h, which is precompiled for it")
        return includes, [f"static void {name}() {{" if line == "int main() {" else line for line in body]
    if not any("torch/torch.h" in line for line in includes):
        includes.insert(0, "#include <torch/torch.h>")
    if not any("lawn/lawn.h" in line for line in includes):
        includes.append("#include <lawn/lawn.h>")
    return includes, [f"static void {name}() {{"] + body + ["}"]


def program(snippets):
    """Returns a program of some snippets, {name: parts}: it runs those that its arguments name, or the only one."""
    lines = ["// Written by snippets.py."] + list(dict.fromkeys(line for includes, _ in snippets.values() for line in includes))
    for _, function in snippets.values():
        lines += ["", *function]
    if len(snippets) == 1:
        return "\n".join(lines + ["", f"int main() {{ {next(iter(snippets))}(); }}", ""])
    lines += ["", "int main(int, char** names) {", "  while (*++names != nullptr) {", "    const std::string name = *names;"]
    lines += [f'    if (name == "{name}") {{ {name}(); continue; }}' for name in snippets]
    return "\n".join(lines + ["    return 1;", "  }", "}", ""])


def snippets_of(page):
    text = page.read_text()
    snippets = {}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        name = block["name"]
        if not name:
            sys.exit(f"{page}:{line}: a cpp block without `<!-- snippet: name -->` in the line before it")
        if name in snippets:
            sys.exit(f"{page}:{line}: a second snippet named {name}")
        snippets[name] = parts_of(page.name, name, block["setup"], block["code"])
    if len(snippets) != len(re.findall(r"^\s*(?:```|~~~)\s*(?:cpp|c\+\+|cc|cxx)(?!\w)", text, re.MULTILINE | re.IGNORECASE)):
        sys.exit(f"{page}: a C++ block is written otherwise than ```cpp at the start of its line")
    return snippets


def main():
    folder, pages = pathlib.Path(sys.argv[1]), [pathlib.Path(page) for page in sys.argv[2:]]
    snippets = {}
    for page in pages:
        for name, parts in snippets_of(page).items():
            if name in snippets:
                sys.exit(f"{page}: a second snippet named {name}")
            snippets[name] = parts
    if not snippets:
        sys.exit("no snippet found")

    folder.mkdir(parents=True, exist_ok=True)
    programs = {name: program({name: parts}) for name, parts in snippets.items()}
    for name, code in {**programs, "snippets": program(snippets)}.items():
        file = folder / f"{name}.cpp"
        if not file.exists() or file.read_text() != code:  # an unchanged program is not compiled again
            file.write_text(code)
    print(";".join(snippets), end="")


if __name__ == "__main__":
    main()
