#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the line coverage of include/ after the tests of the preset `coverage`; fails below a minimum.

usage: coverage.py BUILD [MINIMUM_PERCENT]

A header is compiled into many programs, a template of it many times into each: a line counts as covered when it ran in any of
them. A template that no test instantiates has no lines for the compiler and is not seen here, nor is a header that no test
includes; the latter is listed.
"""

import collections
import concurrent.futures
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADERS = ROOT / "include"


def counts_of(data_file):
    """Returns {header: {line: count}} of one program's counts."""
    counts = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcov", "--json-format", data_file], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for report in pathlib.Path(folder).glob("*.gcov.json.gz"):
            for file in json.loads(gzip.decompress(report.read_bytes()))["files"]:
                path = pathlib.Path(file["file"])
                if path.is_relative_to(HEADERS):
                    for line in file["lines"]:
                        counts[path][line["line_number"]] += line["count"]
    return counts


def ranges(lines):
    """Writes [3, 4, 5, 9] as "3-5, 9"."""
    parts = []
    for line in sorted(lines):
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    minimum = float(sys.argv[2]) if len(sys.argv) > 2 else 95.0
    data_files = sorted(build.rglob("*.gcda"))
    if not data_files:
        sys.exit(f"no counts under {build}: run `cmake --workflow --preset coverage`")

    total = collections.defaultdict(collections.Counter)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for counts in pool.map(counts_of, data_files):
            for path, lines in counts.items():
                total[path].update(lines)

    all_lines = covered_lines = 0
    for path in sorted(HEADERS.rglob("*.h")):
        lines = total.get(path)
        name = path.relative_to(ROOT)
        if not lines:
            print(f"   -           {name}  (no code, or included by no test)")
            continue
        missed = [line for line, count in lines.items() if count == 0]
        all_lines += len(lines)
        covered_lines += len(lines) - len(missed)
        share = 100 * (len(lines) - len(missed)) / len(lines)
        print(f"{share:6.1f} %  {len(lines):4}  {name}" + (f"  missed: {ranges(missed)}" if missed else ""))
    if all_lines == 0:
        sys.exit("the tests include no header of lawn that has code")
    share = 100 * covered_lines / all_lines
    print(f"{share:6.1f} %  {all_lines:4}  lines of include/ in all; the minimum is {minimum:g} %")
    return share < minimum


if __name__ == "__main__":
    sys.exit(main())
