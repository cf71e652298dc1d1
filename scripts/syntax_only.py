#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Has the compiler of a configured build folder read its sources, without making programs; fails on any error or warning.

usage: syntax_only.py BUILD [PATTERN]   BUILD is configured with Ninja and CMAKE_EXPORT_COMPILE_COMMANDS; only sources whose path
                                        matches are read: "/headers/" are all headers, each alone

This takes half the time of a build and shows all that the compiler has to say. Precompiled headers and sources that the build
writes are made first.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys


def output(entry):
    words = shlex.split(entry["command"])
    return words[words.index("-o") + 1]


def syntax_only(entry):
    """Returns how one source is read, out of how it is compiled."""
    command = []
    words = iter(shlex.split(entry["command"]))
    for word in words:
        if word in ("-o", "-MT", "-MF"):
            next(words)
        elif word not in ("-c", "-MD"):
            command.append(word)
    return command + ["-fsyntax-only"]


def read(entry):
    run = subprocess.run(syntax_only(entry), cwd=entry["directory"], capture_output=True, text=True)
    return entry["file"], run.returncode, run.stdout + run.stderr


def main():
    build = pathlib.Path(sys.argv[1])
    pattern = re.compile(sys.argv[2] if len(sys.argv) > 2 else "")
    entries = [e for e in json.loads((build / "compile_commands.json").read_text()) if not e["file"].endswith(".cu")]
    precompiled = [e for e in entries if pathlib.Path(e["file"]).name.startswith("cmake_pch")]
    sources = [e for e in entries if e not in precompiled and pattern.search(e["file"])]
    needed = " ".join(e["command"] for e in sources)
    made = [output(e) for e in precompiled if output(e) in needed]
    targets = subprocess.run(["ninja", "-C", str(build), "-t", "targets", "all"], check=True, capture_output=True, text=True).stdout
    targets = {line.rsplit(":", 1)[0] for line in targets.splitlines()}
    made += [path for e in sources for path in (e["file"], os.path.relpath(e["file"], build)) if path in targets]
    if made:
        subprocess.run(["ninja", "-C", str(build), "--quiet", *made], check=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, status, said in pool.map(read, sources):
            if status != 0 or said:
                failed += 1
                print(f"{file}:\n{said}")
    if failed or not sources:
        sys.exit(f"{failed} of {len(sources)} sources have errors or warnings")
    print(f"{len(sources)} sources have neither errors nor warnings")


if __name__ == "__main__":
    main()
