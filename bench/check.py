#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what lawn promises about speed, and exits with 1 when a promise is missed.

    cmake --preset train -DLAWN_BUILD_BENCHMARKS=ON && ninja -C build/train step_bench
    bench/check.py build/train                    one thread, then two
    bench/check.py --threads 1 build/train
    bench/check.py --device cuda build/train

Every figure is a ratio of medians of one run, in which the repetitions of all benchmarks are
interleaved at random. The build must be the one that a consumer's Release build is: CMake's own
flags, and no -march. `floor` is what the ratio would be if each part took the time that its bytes
(bench/step_bench.cpp counts them) need at the rate of a copy in the same run (memcpy's, on a
CPU, which uses one thread), or the time of the fused optimizer without LAWN, or of loops alone.
"""

import argparse
import os
import re
import subprocess
import sys

import compare


class Times:
    """The medians of one run, in microseconds."""

    def __init__(self, document):
        self.benchmarks = compare.read(document)

    def of(self, name):
        return self.benchmarks[name].median()

    def spread(self, names):
        return max(self.benchmarks[name].spread() for name in names)

    def at_copy_rate(self, name, bytes_of_element=None):
        """Microseconds that the bytes of `name` take at the rate of the copy of its shapes."""
        benchmark = self.benchmarks[name]
        copy = self.benchmarks["copy/" + name.split("/")[2]]
        bytes_moved = benchmark.floor_bytes
        if bytes_of_element is not None:
            bytes_moved = bytes_of_element * benchmark.elements
        return bytes_moved * copy.median() / copy.floor_bytes


class Promise:
    """One line of the table. `value` and `floor` map Times to a number."""

    def __init__(self, what, names, limit, value, floor=None, at_least=False):
        self.what = what
        self.names = names
        self.limit = limit
        self.value = value
        self.floor = floor
        self.at_least = at_least

    def row(self, times):
        value = self.value(times)
        kept = value >= self.limit if self.at_least else value <= self.limit
        floor = f"{self.floor(times):.3f}" if self.floor else "-"
        sign = ">=" if self.at_least else "<="
        return kept, [self.what, f"{value:.3f}", f"{sign} {self.limit:g}", floor,
                      f"{100 * times.spread(self.names):.0f} %", "ok" if kept else "MISSED"]


def ratio(over, under, limit):
    """`over` takes at most `limit` times as long as `under`."""
    shapes = "copy/" + over.split("/")[2]
    return Promise(f"{over} : {under}", [over, under, shapes], limit,
                   lambda times: times.of(over) / times.of(under),
                   lambda times: times.at_copy_rate(over) / times.of(under))


def folded(optimizer, shapes, limit, floor="base"):
    """The constrained step of LAWN<Fused...> takes at most `limit` times as long as LibTorch's plain
    optimizer. The floor is the time of the fused optimizer alone, in the same run, or ("loops") of
    the folded step's loops."""
    over, under, alone = (f"lawn/Fused{optimizer}/{shapes}", f"base/{optimizer}/{shapes}",
                          f"{floor}/Fused{optimizer}/{shapes}")
    return Promise(f"{over} : {under}", [over, under, alone], limit,
                   lambda times: times.of(over) / times.of(under),
                   lambda times: times.of(alone) / times.of(under))


def overhead(over, limit):
    """The step `over` takes at most `limit` times as long as the base step that it contains. The
    floor adds the bytes of what is more."""
    base = "base/" + over.split("/", 1)[1]
    shapes = "copy/" + over.split("/")[2]

    def value(times):
        return times.benchmarks[over].over_base(times.benchmarks[base])

    def floor(times):
        more = times.at_copy_rate(over) - times.at_copy_rate(base)
        return 1 + more * value(times) / times.of(over)

    return Promise(f"{over} : {base}", [over, base, shapes], limit, value, floor)


def cpu_promises(threads):
    promises = [
        ratio("lawn/sphere/ResNet-20", "aten/sphere/ResNet-20", 0.25),
        ratio("lawn/sphere/300x64", "aten/sphere/300x64", 0.12),
        ratio("lawn/sphere/ResNet-18", "aten/sphere/ResNet-18", 0.42 if threads == 1 else 0.65),
        Promise("bytes per second, 32 an element, lawn/sphere/1x25M : memcpy",
                ["lawn/sphere/1x25M", "copy/1x25M"], 1.2,
                lambda times: times.at_copy_rate("lawn/sphere/1x25M", 32)
                / times.of("lawn/sphere/1x25M"), at_least=True),
        overhead("free/Adam/ResNet-18", 1.02),
    ]
    if threads == 1:
        promises += [overhead("lawn/Adam/ResNet-18", 1.2), overhead("centered/SGD/ResNet-18", 1.5),
                     overhead("masked/Adam/ResNet-18", 1.08),
                     overhead("admm/Adam/ResNet-18", 1.4)]
    promises += [
        folded("Adam", "ResNet-18", 0.23 if threads == 1 else 0.32),
        folded("Adam", "ResNet-20", 0.3),
        folded("SGD", "ResNet-18", 1.5),
        folded("SGD", "ResNet-20", 0.75, floor="loops"),
        ratio("lawn/FusedAdam/ResNet-18", "apart/FusedAdam/ResNet-18", 0.75),
    ]
    return promises


def gpu_promises():
    shapes = "ResNet-50"
    return [
        Promise(f"lawn/sphere/{shapes} : 32 bytes an element at the copy rate",
                [f"lawn/sphere/{shapes}", f"copy/{shapes}"], 1.25,
                lambda times: times.of(f"lawn/sphere/{shapes}")
                / times.at_copy_rate(f"lawn/sphere/{shapes}", 32)),
        Promise("lawn/sphere/ResNet-20/graph, microseconds", ["lawn/sphere/ResNet-20/graph"], 40,
                lambda times: times.of("lawn/sphere/ResNet-20/graph")),
        ratio("lawn/sphere/ResNet-20/hot", "aten/sphere/ResNet-20/hot", 0.1),
        Promise(f"lawn/FusedAdam/{shapes} : 44 bytes an element at the copy rate",
                [f"lawn/FusedAdam/{shapes}", f"copy/{shapes}"], 1.25,
                lambda times: times.of(f"lawn/FusedAdam/{shapes}")
                / times.at_copy_rate(f"lawn/FusedAdam/{shapes}", 44)),
        ratio(f"lawn/FusedAdam/{shapes}", f"base/Adam/{shapes}", 0.25),
        Promise(f"lawn/FusedAdam/{shapes}/host, microseconds", [f"lawn/FusedAdam/{shapes}/host"],
                150, lambda times: times.of(f"lawn/FusedAdam/{shapes}/host")),
    ]


def consumer_flags(build):
    """What in the cache of `build` differs from what a consumer's Release build has."""
    with open(os.path.join(build, "CMakeCache.txt"), encoding="utf-8") as file:
        cache = dict(re.findall(r"^(\w+):\w+=(.*)$", file.read(), re.MULTILINE))
    wanted = {"CMAKE_BUILD_TYPE": "Release", "CMAKE_CXX_FLAGS": "",
              "CMAKE_CXX_FLAGS_RELEASE": "-O3 -DNDEBUG"}
    return [f"{name} is \"{cache.get(name, '')}\", not \"{value}\""
            for name, value in wanted.items() if cache.get(name, "").strip() != value]


def check(program, arguments, promises, options):
    """Runs what the promises name and prints their table. Returns how many were missed."""
    names = sorted({name for promise in promises for name in promise.names})
    pattern = "^(" + "|".join(names) + ")(/iterations:[0-9]+)?(/manual_time)?$"
    document = compare.run(program, [*arguments, f"--benchmark_filter={pattern}"],
                           options.repetitions, options.min_time, None)
    times = Times(document)
    results = [promise.row(times) for promise in promises]
    table = [["promise", "measured", "limit", "floor", "spread", ""], *[row for _, row in results]]
    compare.print_columns(table, left=1)
    return sum(not kept for kept, _ in results)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", help="build folder with bench/step_bench in it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, choices=(1, 2),
                        help="measure with this number only")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--min-time", type=float, default=0.1, help="seconds of a repetition")
    options = parser.parse_args()
    program = os.path.join(options.build, "bench", "step_bench")
    if not os.path.exists(program):
        sys.exit(f"check.py: expected {program}; build step_bench there "
                 "(-DLAWN_BUILD_BENCHMARKS=ON)")
    differences = consumer_flags(options.build)
    if differences:
        sys.exit("check.py: expected a build with CMake's Release flags: " + "; ".join(differences))
    missed = 0
    if options.device == "cuda":
        missed += check(program, ["--device=cuda"], gpu_promises(), options)
    else:
        for threads in [options.threads] if options.threads else [1, 2]:
            print(f"CPU, {threads} thread{'s' if threads > 1 else ''}")
            missed += check(program, [f"--threads={threads}"], cpu_promises(threads), options)
    print(f"{missed} missed" if missed else "all kept")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"check.py: {error}")
