#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs all that needs a GPU, and prints one table: the tests, compute-sanitizer's tools on them, the benchmarks.

usage: gpu.py [--leave-out tests sanitizer benchmarks] BUILD
  BUILD  a built folder of the preset `test` (Release, for benchmarks that mean something)

Exits with 0 where everything passed, 1 where something failed or could not run, 77 where there is no GPU.
"""

import argparse
import ctypes
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = 77
MOST_SECONDS = 3600

# compute-sanitizer makes launches wait, and looks after each allocation alone only where LibTorch does not cut its tensors out
# of large ones, which in turn rules out graphs.
NOT_WHERE_LAUNCHES_WAIT = ["CudaStream.StepReturnsWhileTheDeviceIsBusy", "CudaStream.AsksTheDeviceForNoMemoryAfterTheFirstStep"]
NOT_WITHOUT_CACHE = ["CudaStream.ReplaysInAGraphWhatItDoesEagerly", "CudaStream.LaunchesAtMostFourKernelsForAThousandLayers"]
SANITIZERS = {
    # A kernel that is not watched would not be seen to initialise memory: all are, in two of them.
    "memcheck": {"cached": False, "options": []},
    "racecheck": {"cached": True, "options": ["--kernel-name", "kns=lawn"]},
    "initcheck": {"cached": False, "options": []},
    "synccheck": {"cached": True, "options": ["--kernel-name", "kns=lawn"]},
}


def gpus():
    """Returns how many GPUs the driver has for this process, and why there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, "there is no CUDA driver"
    error = driver.cuInit(0)
    count = ctypes.c_int(0)
    if error == 0:
        error = driver.cuDeviceGetCount(ctypes.byref(count))
    return count.value, f"the CUDA driver finds none (error {error})"


def run(command, environment=None):
    """Runs a command, showing what it prints; returns its exit status, output and seconds."""
    print("$", " ".join(str(word) for word in command), flush=True)
    start = time.monotonic()
    lines = []
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, text=True, errors="replace",
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return process.wait(), "".join(lines), time.monotonic() - start


def gpu_programs(build):
    """Returns {name: command} of ctest's entries with the label gpu."""
    shown = subprocess.run(["ctest", "--test-dir", build, "-L", "^gpu$", "--show-only=json-v1"], check=True,
                           capture_output=True, text=True).stdout
    tests = json.loads(shown)["tests"]
    missing = [test["name"] for test in tests if not pathlib.Path(test.get("command", [""])[0]).exists()]
    if missing or not tests:
        sys.exit(f"{build}: {', '.join(missing) or 'the tests with the label gpu'} not built; build the folder first")
    return {test["name"]: test["command"] for test in tests}


def run_tests(build):
    status, output, seconds = run(["ctest", "--test-dir", build, "-L", "^gpu$", "--output-on-failure", "-V"])
    rows = []
    for name, result, took in re.findall(r"Test +#\d+: (\S+) \.*\** *(Passed|Skipped|.*?) +([\d.]+) sec", output):
        result = result.strip("* ").lower()
        if result == "skipped":
            result += ": " + (re.search(r"Skipped\n\d+: (.*)", output) or ["", "see above"])[1]
        rows.append((f"test {name}", result, float(took)))
    return rows or [("tests", f"failed ({status})", seconds)]


def run_sanitizers(programs):
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if not sanitizer:
        return [(tool, "not run: compute-sanitizer is not installed", 0) for tool in SANITIZERS]
    rows = []
    for tool, how in SANITIZERS.items():
        left_out = NOT_WHERE_LAUNCHES_WAIT + ([] if how["cached"] else NOT_WITHOUT_CACHE)
        environment = {} if how["cached"] else {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        for name, command in programs.items():
            status, output, seconds = run(
                ["timeout", str(MOST_SECONDS), sanitizer, "--tool", tool, "--error-exitcode", "1", *how["options"], *command,
                 "--gtest_filter=-" + ":".join(left_out)], environment)
            summary = re.findall(r"=+ ((?:ERROR|RACECHECK) SUMMARY: .*)", output)
            # The tool's status need not tell how the tests went.
            result = {0: "passed", SKIPPED: "skipped"}.get(status, f"failed ({status})")
            if status == 0 and not summary:
                result = "failed: it has printed no summary"
            elif status == 0 and "[  FAILED  ]" in output:
                result = "failed: a test has"
            elif status == 0 and "[  PASSED  ] 0 tests" in output:
                result = "skipped"
            rows.append((f"{tool} {name}", result + (f", {summary[-1].lower()}" if summary else ""), seconds))
    return rows


def run_benchmarks(build):
    script = ROOT / "bench/check.py"
    if not script.exists():
        return [("benchmarks", "not run: bench/check.py is missing", 0)]
    status, _, seconds = run([sys.executable, str(script), "--device", "cuda", build])
    return [("benchmarks", "passed" if status == 0 else f"failed ({status})", seconds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--leave-out", nargs="+", default=[], choices=["tests", "sanitizer", "benchmarks"])
    parser.add_argument("build")
    options = parser.parse_args()
    count, why = gpus()
    if count == 0:
        print(f"skipped: there is no GPU here: {why}")
        return SKIPPED
    print(f"GPUs: {count}", flush=True)

    programs = gpu_programs(options.build)
    parts = {"tests": lambda: run_tests(options.build), "sanitizer": lambda: run_sanitizers(programs),
             "benchmarks": lambda: run_benchmarks(options.build)}
    rows = []
    for name, part in parts.items():
        rows += [(name, "left out", 0)] if name in options.leave_out else part()

    width = max(len(what) for what, _, _ in rows)
    print(f"\n{'what':{width}}  {'seconds':>8}  result")
    for what, result, seconds in rows:
        print(f"{what:{width}}  {seconds:8.1f}  {result}")
    # Where there is a GPU, a test that is skipped has not shown what it is there for.
    bad = [what for what, result, _ in rows if not result.startswith(("passed", "left out"))]
    print(f"{len(rows) - len(bad)} of {len(rows)} passed or were left out" + (": not " + ", ".join(bad) if bad else ""))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
