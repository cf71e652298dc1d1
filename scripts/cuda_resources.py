#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what each CUDA kernel takes of a GPU, by architecture; fails when one has a stack frame or reads past the caches.

usage: cuda_resources.py [--cuobjdump CUOBJDUMP] [--nvcc NVCC] [--arch 90 ...] OBJECT|SOURCE.cu
  OBJECT       what nvcc has made: build/test/CMakeFiles/lawn_cuda.dir/include/lawn/kernels.cu.o holds lawn's kernels
  SOURCE.cu    is compiled first, for each --arch [90]
  --cuobjdump  default: the one on the path or beside nvcc; exits with 77 where there is none

A stack frame holds spilled registers and arrays that are indexed at run time. Both go through memory, which a kernel bound by
memory has none to spare of. A read of device memory that the whole system must see alike (LDG....STRONG.SYS, what becomes of a
volatile one) passes by a multiprocessor's own cache, each time anew.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = 77
COLUMNS = ("registers", "shared", "stack", "reads past caches")


def run(*command):
    """Runs a command and returns what it prints; ends with that if it fails."""
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{process.stdout}{process.stderr}")
    return process.stdout


def by_architecture(text):
    """Yields (architecture, what cuobjdump says of it)."""
    parts = re.split(r"^arch = sm_(\w+)$", text, flags=re.MULTILINE)[1:]
    yield from zip(parts[::2], parts[1::2])


def functions_of(cuobjdump, binary):
    """Returns {(architecture, name): {column: number}} of the machine code in a file."""
    found = {}
    for arch, text in by_architecture(run(cuobjdump, "-res-usage", binary)):
        for name, registers, stack, shared in re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", text):
            found[arch, name] = dict(zip(COLUMNS, (int(registers), int(shared), int(stack), 0)))
    for arch, text in by_architecture(run(cuobjdump, "-sass", binary)):
        for part in text.split("Function : ")[1:]:
            found[arch, part.split()[0]][COLUMNS[-1]] = len(re.findall(r"\bLDG?\.\S*STRONG\.SYS", part))
    return found


def compiled(source, options):
    """The same of a source."""
    found = {}
    for arch in options.arch:
        with tempfile.NamedTemporaryFile(suffix=".fatbin") as fatbin:
            run(options.nvcc, "-std=c++17", "-O3", f"-arch=sm_{arch}", "-fatbin", "-o", fatbin.name, "-I", str(ROOT / "include"), source)
            found.update(functions_of(options.cuobjdump, fatbin.name))
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
    parser.add_argument("--arch", nargs="+", default=["90"])
    parser.add_argument("file")
    options = parser.parse_args()
    options.nvcc = options.nvcc and shutil.which(options.nvcc)
    if not options.nvcc and options.file.endswith(".cu"):
        print("skipped: there is no nvcc to compile the CUDA kernels with")
        return SKIPPED
    if not options.cuobjdump:
        beside = options.nvcc and shutil.which("cuobjdump", path=str(pathlib.Path(options.nvcc).resolve().parent))
        options.cuobjdump = beside or shutil.which("cuobjdump")
    if not options.cuobjdump:
        print("skipped: there is no cuobjdump to read machine code with")
        return SKIPPED

    found = compiled(options.file, options) if options.file.endswith(".cu") else functions_of(options.cuobjdump, options.file)
    if not found:
        sys.exit(f"{options.file} holds no machine code: nothing was checked")
    names = dict(zip(found, demangled([name for _, name in found])))
    width = max(len(name) for name in names.values())
    print(f"{'function':{width}}  {'arch':>6}" + "".join(f"  {column:>12}" for column in COLUMNS))
    for key in sorted(found, key=lambda key: (names[key], key)):
        print(f"{names[key]:{width}}  {'sm_' + key[0]:>6}" + "".join(f"  {found[key][column]:12}" for column in COLUMNS))
    for column, fault in (("stack", "have a stack frame"), (COLUMNS[-1], "read past the caches")):
        bad = [f"{names[key]} on sm_{key[0]}" for key in found if found[key][column]]
        if bad:
            sys.exit(f"{len(bad)} of {len(found)} functions {fault}: " + "; ".join(bad))
    archs = ", ".join(sorted({f"sm_{arch}" for arch, _ in found}))
    print(f"{len(found)} functions for {archs}: none has a stack frame, none reads past the caches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
