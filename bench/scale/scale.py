#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what several ranks cost, and turns the lines of bench/scale/results.jsonl into the tables of docs/scale.md.

    bench/scale/scale.py --run BUILD   measures on 1 to 4 ranks of this machine, by BUILD/bench/scale (built with LAWN_BUILD_BENCHMARKS)
    bench/scale/scale.py               rewrites what stands between the markers of the page
    bench/scale/scale.py --check       changes nothing; fails if the page does not say what the lines say
"""
import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
PAGE = HERE.parent.parent / "docs" / "scale.md"
MARKERS = re.compile(r"(<!-- scale: (\w+) -->\n).*?(<!-- end of scale -->)", re.DOTALL)

RANKS = (1, 2, 3, 4)
PREDICTED = (64, 1024)
# What takes the place of the measured latency and rate between machines: an assumption, of a usual network.
NETWORK = {"us_per_message": 20.0, "bytes_per_us": 10_000.0}

ENVIRONMENT = {  # more ranks than cores, for Open MPI
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}


def run(build):
    lines = []
    for ranks in RANKS:
        command = ["mpirun", "-n", str(ranks), str(pathlib.Path(build) / "bench" / "scale")]
        done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True, check=True)
        lines += [line for line in done.stdout.splitlines() if line.startswith("{")]
    RESULTS.write_text("\n".join(lines) + "\n")


class Results:
    def __init__(self, lines):
        self.lines = lines

    def us(self, what, ranks, **facts):
        """The median of one measurement."""
        found = [
            line["us"]
            for line in self.lines
            if line["what"] == what and line["ranks"] == ranks and all(line[k] == v for k, v in facts.items())
        ]
        if len(found) != 1:
            sys.exit(f"scale.py: {RESULTS.name}: expected one line of {what} on {ranks} ranks with {facts}, got {len(found)}")
        return found[0]

    def all_of(self, what, *facts):
        """The different values of `facts` of the measurements of `what`, in order."""
        return sorted({tuple(line[fact] for fact in facts) for line in self.lines if line["what"] == what})


def time_text(us):
    if us < 1000:
        return f"{us:.0f} us"
    return f"{us / 1000:.1f} ms" if us < 100_000 else f"{us / 1000:.0f} ms"


def bytes_text(number):
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:g} {unit}"
        number /= 1000
    return f"{number:g} GB"


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def rank_heads():
    return [f"{ranks} rank" + ("s" if ranks > 1 else "") for ranks in RANKS]


def sums(results):
    rows = []
    for (size,) in results.all_of("sum", "bytes"):
        rows.append([bytes_text(size)] + [time_text(results.us("sum", ranks, bytes=size)) for ranks in RANKS])
    return table(["summed over the ranks"] + rank_heads(), rows)


def steps(results):
    """What sharding adds to a step: the two sums, and what is done a layer for them."""
    rows = []
    for layers, parameters in results.all_of("sharded step", "layers", "parameters"):
        row = [f"{layers:,}", f"{parameters:,}", bytes_text(8 * (3 * layers + 2))]
        for ranks in RANKS:
            local, sharded = (
                results.us(what, ranks, layers=layers, parameters=parameters) for what in ("local step", "sharded step")
            )
            row.append(f"{time_text(sharded - local)} (+ {time_text(local)})")
        rows.append(row)
    return table(["layers", "parameters", "bytes in the sums"] + rank_heads(), rows)


def gathers(results):
    rows = []
    for layers, parameters in results.all_of("gather parameters", "layers", "parameters"):
        rows.append(
            [f"{layers:,}", bytes_text(4 * parameters)]
            + [time_text(results.us("gather parameters", ranks, layers=layers, parameters=parameters)) for ranks in RANKS]
        )
    return table(["layers", "gathered"] + rank_heads(), rows)


def rates(results):
    """Of one machine: what a sum costs without others, a message, and the rate of much data, from one and two ranks."""
    alone = results.us("sum", 1, bytes=400)
    message = results.us("sum", 2, bytes=400) - alone
    large = 4_000_000
    return alone, message, large / results.us("sum", 2, bytes=large)


def predicted_sum(ranks, size, alone, message, rate):
    """By halving and doubling: 2 log2(N) messages where there is much, log2(N) where there is little."""
    rounds = math.ceil(math.log2(ranks))
    little = alone + rounds * (message + size / rate)
    much = alone + 2 * rounds * message + 2 * (ranks - 1) / ranks * size / rate
    return min(little, much)


def predictions(results):
    alone, message, rate = rates(results)
    rows = []
    subjects = [(f"LAWN's two sums, {layers:,} layers", (8 * (2 * layers + 2), 8 * layers)) for layers in (21, 100, 1000)]
    subjects += [(f"one sum of {bytes_text(4 * p)} of gradients", (4 * p,)) for p in (272_474, 11_173_962)]
    for name, sizes in subjects:
        row = [name]
        for us_per_message, bytes_per_us in ((message, rate), tuple(NETWORK.values())):
            for ranks in PREDICTED:
                row.append(time_text(sum(predicted_sum(ranks, n, alone, us_per_message, bytes_per_us) for n in sizes)))
        rows.append(row)
    heads = [f"{ranks:,} ranks, {how}" for how in ("as measured", "a network") for ranks in PREDICTED]
    text = (
        f"From one and two ranks: {alone:.1f} us for a sum without others, {message:.1f} us for a message, "
        f"{rate / 1000:.2f} GB/s. The network is an assumption: {NETWORK['us_per_message']:g} us and "
        f"{NETWORK['bytes_per_us'] / 1000:g} GB/s.\n\n"
    )
    return text + table([""] + heads, rows)


def page_of(text, results):
    makers = {"sums": sums, "steps": steps, "gathers": gathers, "predictions": predictions}
    return MARKERS.sub(lambda match: match[1] + makers[match[2]](results) + match[3], text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", metavar="BUILD")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run)
    results = Results([json.loads(line) for line in RESULTS.read_text().splitlines()])
    old = PAGE.read_text()
    new = page_of(old, results)
    if arguments.check and new != old:
        sys.exit(f"scale.py: {PAGE.name} does not say what {RESULTS.name} says; run bench/scale/scale.py")
    if not arguments.check:
        PAGE.write_text(new)


if __name__ == "__main__":
    main()
