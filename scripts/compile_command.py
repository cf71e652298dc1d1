# SPDX-License-Identifier: Apache-2.0
"""Reads from a build folder how one of its sources is compiled, so that other programs are compiled in the same way."""

import json
import pathlib
import shlex


def compile_command(build, source, keep_precompiled_header=False):
    """Returns compiler and flags that `source` is compiled with in the folder `build`.

    Dropped are ccache, the input, the outputs and, unless kept, the precompiled header: a program that is compiled to see
    whether it includes what it uses must not get it for free.
    """
    source = pathlib.Path(source).resolve()
    entries = json.loads((pathlib.Path(build) / "compile_commands.json").read_text())
    words = next(shlex.split(e["command"]) for e in entries if pathlib.Path(e["file"]) == source)
    first_flag = next(i for i, word in enumerate(words) if word.startswith(("-D", "-I", "-isystem")))
    result = [words[first_flag - 1]]  # the compiler, behind whatever launches it
    rest = iter(words[first_flag:])
    for word in rest:
        if word in ("-o", "-c", "-MT", "-MF"):
            next(rest)
        elif word == "-include" and not keep_precompiled_header:
            next(rest)
        elif word not in ("-MD", "-Winvalid-pch", "-fpch-preprocess"):
            result.append(word)
    return result
