#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails when including lawn/lawn.h after torch/torch.h adds more than a limit to a compile.

usage: compile_time.py BUILD SOURCE [LIMIT_SECONDS]
  BUILD, SOURCE  a build folder and a source in it whose flags and precompiled torch/torch.h are used

Both programs start from the precompiled torch/torch.h, so that the difference is not one of two long times. They are compiled
in turns; CPU time is taken, which other work on the machine disturbs little, and of each the median.
"""

import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

from compile_command import compile_command

ROUNDS = 7


def cpu_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    build, source = sys.argv[1:3]
    limit = float(sys.argv[3]) if len(sys.argv) > 3 else 1.5
    command = compile_command(build, source, keep_precompiled_header=True)
    with tempfile.TemporaryDirectory() as folder:
        programs = {"torch": "#include <torch/torch.h>\n", "lawn": "#include <torch/torch.h>\n#include <lawn/lawn.h>\n"}
        times = {name: [] for name in programs}
        for name, text in programs.items():
            pathlib.Path(folder, name + ".cpp").write_text(text)
        for _ in range(ROUNDS):
            for name in programs:
                times[name].append(cpu_seconds(command + ["-c", f"{folder}/{name}.cpp", "-o", f"{folder}/{name}.o"]))
    added = statistics.median(times["lawn"]) - statistics.median(times["torch"])
    print(f"lawn/lawn.h adds {added:.2f} s to a compile; the limit is {limit} s")
    print({name: [round(t, 2) for t in values] for name, values in times.items()})
    return added > limit


if __name__ == "__main__":
    sys.exit(main())
