#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what each CUDA kernel takes of a GPU, by architecture; fails when one spills registers.

usage: cuda_resources.py [--nvcc NVCC] [--arch 80 ...] [SOURCE]
  --nvcc  default: the one on the path; exits with 77 where there is none
  SOURCE  default: lawn's kernels

Spilled registers go through memory, which a kernel bound by memory has none to spare of. A stack frame without spills (an
array that is indexed at run time) is shown and no error.
"""

import argparse
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = 77
COLUMNS = ("registers", "shared", "stack", "spill stores", "spill loads")


def compile_for(arch, options):
    """Returns what the assembler says of each function, as text."""
    command = [options.nvcc, "-std=c++17", "-O3", f"-arch=sm_{arch}", "-cubin", "-o", "/dev/null", "-Xptxas=-v", "-I",
               str(ROOT / "include"), options.source]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
    return run.stdout + run.stderr


def functions_in(text):
    """Returns [(name, whether it is a kernel, {column: number})]."""
    found = []
    kernels = set(re.findall(r"Compiling entry function '(\S+)'", text))
    for part in re.split(r"Function properties for ", text)[1:]:
        name = part.split()[0]
        numbers = dict.fromkeys(COLUMNS, 0)
        patterns = {"registers": r"Used (\d+) registers", "shared": r"(\d+) bytes smem", "stack": r"(\d+) bytes stack",
                    "spill stores": r"(\d+) bytes spill stores", "spill loads": r"(\d+) bytes spill loads"}
        for column, pattern in patterns.items():
            match = re.search(pattern, part)
            if match:
                numbers[column] = int(match.group(1))
        found.append((name, name in kernels, numbers))
    return found


def demangled(names):
    if not shutil.which("c++filt"):
        return names
    run = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    # The template arguments tell kernels apart, the parameters do not.
    return [re.sub(r"\(anonymous namespace\)::|lawn::sphere::(cuda::)?|^void ", "", name).split("(")[0]
            for name in run.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nvcc", default=shutil.which("nvcc"))
    parser.add_argument("--arch", nargs="+", default=["80", "90", "100"])
    parser.add_argument("source", nargs="?", default=str(ROOT / "include/lawn/sphere/cuda/launchers.cu"))
    options = parser.parse_args()
    if not options.nvcc or not shutil.which(options.nvcc):
        print("skipped: there is no nvcc to compile the CUDA kernels with")
        return SKIPPED

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda arch: functions_in(compile_for(arch, options)), options.arch))
    rows = [(arch, *function) for arch, report in zip(options.arch, reports) for function in report]
    names = demangled([name for _, name, _, _ in rows])
    width = max([len(name) for name in names] + [6])
    print(f"{'kernel':{width}}  {'arch':>6}" + "".join(f"  {column:>12}" for column in COLUMNS))
    spilled = []
    for (arch, _, kernel, numbers), name in sorted(zip(rows, names), key=lambda pair: (pair[1], int(pair[0][0]))):
        print(f"{name:{width}}  {'sm_' + arch:>6}" + "".join(f"  {numbers[column]:12}" for column in COLUMNS)
              + ("" if kernel else "  called, not launched"))
        if numbers["spill stores"] or numbers["spill loads"]:
            spilled.append(f"{name} on sm_{arch}")
    if not any(kernel for _, _, kernel, _ in rows):
        sys.exit(f"{options.source} holds no kernel: nothing was checked")
    if spilled:
        sys.exit(f"{len(spilled)} of {len(rows)} functions spill registers: " + "; ".join(spilled))
    print(f"{len(rows)} functions, none spills registers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
