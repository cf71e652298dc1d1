#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what LAWN costs, as ratios of medians, from the JSON of step_bench or training_bench.

    bench/compare.py --run build/test/bench/step_bench -- --threads=1     runs it, prints the table
    bench/compare.py result.json                                          prints that of an earlier run

The repetitions of all benchmarks are interleaved at random, so that a disturbance of the machine
falls on both sides of each ratio; on the CPU free/base and lawn/base compare steps that take turns
on one optimizer's state. Columns:

    base         the optimizer alone, median time of a step in microseconds
    free/base    LAWN in its free phase over the optimizer alone
    lawn/base    LAWN in its constrained phase over the optimizer alone
    aten/base    the same written naively with ATen calls over the optimizer alone
    lawn/aten    LAWN over the naive form
    captured     LAWN with rates and clocks in the device's memory over LAWN
    lawn/floor   LAWN over the time that its bytes take at the rate of `copy/<shapes>`
    share        what the optimizer, with LAWN, takes of a whole training step (training_bench)
    spread       widest interquartile range of a row's benchmarks, over its median

The rows `sphere` are the projection and the rescaling without an optimizer. Of a GPU's timings each
has rows of its own: /hot, /host and /graph behind the shapes (bench/timing.h).
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile

MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
SUFFIXES = ("manual_time", "real_time", "process_time")
VARIANTS = ("base", "free", "lawn", "aten", "captured")
COLUMNS = ("optimizer", "shapes", "base", "free/base", "lawn/base", "aten/base", "lawn/aten",
           "captured", "lawn/floor", "share", "spread")


class Benchmark:
    """The repetitions of one benchmark."""

    def __init__(self):
        self.times = []  # microseconds
        self.base_times = []  # of the base steps that took turns with these, where there are any
        self.elements = 0.0
        self.floor_bytes = 0.0

    def median(self):
        return statistics.median(self.times)

    def over_base(self, base):
        """Median ratio to the base step: to the one that took turns, else to the median of `base`."""
        if self.base_times:
            return statistics.median(own / other
                                     for own, other in zip(self.times, self.base_times))
        return self.median() / base.median()

    def spread(self):
        if len(self.times) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.times, n=4, method="inclusive")
        return (high - low) / self.median()


def read(document):
    """Benchmarks of a parsed JSON document by name: "lawn/SGD/ResNet-18"."""
    found = collections.defaultdict(Benchmark)
    for entry in document["benchmarks"]:
        if entry.get("error_occurred"):
            sys.exit(f"compare.py: {entry['name']} failed: {entry.get('error_message')}")
        if entry.get("run_type", "iteration") != "iteration":
            continue
        parts = [part for part in entry.get("run_name", entry["name"]).split("/")
                 if part not in SUFFIXES and not part.startswith(("iterations:", "repeats:"))]
        benchmark = found["/".join(parts)]
        benchmark.times.append(entry["real_time"] * MICROSECONDS[entry["time_unit"]])
        if "base_us" in entry:
            benchmark.base_times.append(entry["base_us"])
        benchmark.elements = entry.get("elements", 0.0)
        benchmark.floor_bytes = entry.get("floor_bytes", 0.0)
    return found


def rows(benchmarks):
    """One list of cells for each optimizer and list of shapes, small networks first."""
    keys = {tuple(name.split("/", 2)[1:]): benchmark.elements
            for name, benchmark in benchmarks.items() if name.split("/")[0] in VARIANTS}
    for optimizer, shapes in sorted(keys, key=lambda key: (key[0] == "sphere", key[0], keys[key])):
        variants = {variant: benchmarks[f"{variant}/{optimizer}/{shapes}"]
                    for variant in VARIANTS
                    if f"{variant}/{optimizer}/{shapes}" in benchmarks}
        copy = benchmarks.get(f"copy/{shapes}")

        def ratio(over, under):
            if over not in variants or under not in variants:
                return "-"
            if under == "base":
                return f"{variants[over].over_base(variants[under]):.2f}"
            return f"{variants[over].median() / variants[under].median():.2f}"

        floor = "-"
        if copy and "lawn" in variants:
            bytes_per_microsecond = copy.floor_bytes / copy.median()
            least = variants["lawn"].floor_bytes / bytes_per_microsecond
            floor = f"{variants['lawn'].median() / least:.1f}"
        passes = benchmarks.get(f"forward_backward/{shapes}")
        share = "-"
        if passes and "lawn" in variants:
            share = f"{100 * (1 - passes.median() / variants['lawn'].median()):.1f} %"
        base = f"{variants['base'].median():.0f}" if "base" in variants else "-"
        spread = max(benchmark.spread() for benchmark in variants.values())
        yield [optimizer, shapes, base, ratio("free", "base"), ratio("lawn", "base"),
               ratio("aten", "base"), ratio("lawn", "aten"), ratio("captured", "lawn"), floor, share,
               f"{100 * spread:.0f} %"]


def print_table(document):
    context = document.get("context", {})
    known = ("device", "torch_threads", "torch_version", "lawn_version")
    print(", ".join(f"{key} {context[key]}" for key in known if key in context))
    table = [list(COLUMNS), *rows(read(document))]
    if len(table) == 1:
        sys.exit("compare.py: the file holds no benchmark named <variant>/<optimizer>/<shapes>")
    print_columns(table, left=2)


def print_columns(table, left):
    """Prints rows of cells; the first `left` columns begin at the left, the others end at the right."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        cells = [cell.ljust(width) if column < left else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip(), flush=True)


def run(program, arguments, repetitions, min_time, output):
    """Runs the program and returns its parsed JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = output or os.path.join(folder, "result.json")
        subprocess.run([program, f"--benchmark_repetitions={repetitions}",
                        "--benchmark_enable_random_interleaving=true",
                        f"--benchmark_min_time={min_time}", "--benchmark_out_format=json",
                        f"--benchmark_out={path}", *arguments],
                       check=True, stdout=subprocess.DEVNULL)
        with open(path, encoding="utf-8") as file:
            return json.load(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="?", help="result of an earlier run")
    parser.add_argument("--run", metavar="PROGRAM", help="run this step_bench or training_bench instead")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--min-time", type=float, default=0.05, help="seconds of a repetition")
    parser.add_argument("--output", help="keep the JSON of the run here")
    own = sys.argv[1:]
    passed_on = []
    if "--" in own:
        split = own.index("--")
        own, passed_on = own[:split], own[split + 1:]
    options = parser.parse_args(own)
    if bool(options.json) == bool(options.run):
        parser.error("give either a JSON file or --run PROGRAM")
    if options.run:
        print_table(run(options.run, passed_on, options.repetitions, options.min_time,
                        options.output))
    else:
        with open(options.json, encoding="utf-8") as file:
            print_table(json.load(file))


if __name__ == "__main__":
    main()
