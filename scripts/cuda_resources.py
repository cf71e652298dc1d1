#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what each CUDA kernel takes of a GPU, by architecture; fails when one spills registers or reads past the caches.

usage: cuda_resources.py [--nvcc NVCC] [--cuobjdump CUOBJDUMP] [--arch 80 ...] [SOURCE]
  --nvcc       default: the one on the path; exits with 77 where there is none
  --cuobjdump  default: the one beside nvcc or on the path; without it the reads are not looked at, which is said
  SOURCE       default: lawn's kernels

Spilled registers go through memory, which a kernel bound by memory has none to spare of. A stack frame without spills (an
array that is indexed at run time) is shown and no error. A read of device memory that the whole system must see alike
(LDG....STRONG.SYS, what becomes of a volatile one) passes by a multiprocessor's own cache, each time anew.
"""

import argparse
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = 77
COLUMNS = ("registers", "shared", "stack", "spill stores", "spill loads", "reads past caches")
PAST_CACHES = "reads past caches"


def run(command):
    """Runs a command and returns what it prints; ends with that if it fails."""
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{process.stdout}{process.stderr}")
    return process.stdout + process.stderr


def functions_for(arch, options):
    """Compiles for one architecture; returns what `functions_in` does."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        said = run([options.nvcc, "-std=c++17", "-O3", f"-arch=sm_{arch}", "-cubin", "-o", cubin.name, "-Xptxas=-v", "-I",
                    str(ROOT / "include"), options.source])
        code = run([options.cuobjdump, "-sass", cubin.name]) if options.cuobjdump else ""
    return functions_in(said, reads_past_caches(code))


def reads_past_caches(code):
    """Returns {function: how many} of the machine code of all functions."""
    parts = re.split(r"Function : ", code)[1:]
    return {part.split()[0]: len(re.findall(r"\bLDG?\.\S*STRONG\.SYS", part)) for part in parts}


def functions_in(text, past_caches):
    """Returns [(name, whether it is a kernel, {column: number})] of what the assembler says."""
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
        numbers[PAST_CACHES] = past_caches.get(name, 0)
        found.append((name, name in kernels, numbers))
    return found


def demangled(names):
    if not shutil.which("c++filt"):
        return names
    filtered = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    # The template arguments tell kernels apart, the parameters do not.
    return [re.sub(r"\(anonymous namespace\)::|lawn::sphere::(cuda::)?|^void ", "", name).split("(")[0]
            for name in filtered.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nvcc", default=shutil.which("nvcc"))
    parser.add_argument("--cuobjdump")
    parser.add_argument("--arch", nargs="+", default=["80", "90", "100"])
    parser.add_argument("source", nargs="?", default=str(ROOT / "include/lawn/kernels.cu"))
    options = parser.parse_args()
    if not options.nvcc or not shutil.which(options.nvcc):
        print("skipped: there is no nvcc to compile the CUDA kernels with")
        return SKIPPED
    if not options.cuobjdump:
        beside = pathlib.Path(shutil.which(options.nvcc)).resolve().parent
        options.cuobjdump = shutil.which("cuobjdump", path=str(beside)) or shutil.which("cuobjdump")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda arch: functions_for(arch, options), options.arch))
    rows = [(arch, *function) for arch, report in zip(options.arch, reports) for function in report]
    names = demangled([name for _, name, _, _ in rows])
    width = max([len(name) for name in names] + [6])
    print(f"{'kernel':{width}}  {'arch':>6}" + "".join(f"  {column:>12}" for column in COLUMNS))
    spilled = []
    past_caches = []
    for (arch, _, kernel, numbers), name in sorted(zip(rows, names), key=lambda pair: (pair[1], int(pair[0][0]))):
        print(f"{name:{width}}  {'sm_' + arch:>6}" + "".join(f"  {numbers[column]:12}" for column in COLUMNS)
              + ("" if kernel else "  called, not launched"))
        if numbers["spill stores"] or numbers["spill loads"]:
            spilled.append(f"{name} on sm_{arch}")
        if numbers[PAST_CACHES]:
            past_caches.append(f"{name} on sm_{arch}")
    if not any(kernel for _, _, kernel, _ in rows):
        sys.exit(f"{options.source} holds no kernel: nothing was checked")
    if spilled:
        sys.exit(f"{len(spilled)} of {len(rows)} functions spill registers: " + "; ".join(spilled))
    if past_caches:
        sys.exit(f"{len(past_caches)} of {len(rows)} functions read past the caches: " + "; ".join(past_caches))
    reads = "none reads past the caches" if options.cuobjdump else "their reads were not looked at, since there is no cuobjdump"
    print(f"{len(rows)} functions, none spills registers, {reads}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
