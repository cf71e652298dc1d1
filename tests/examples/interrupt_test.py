#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Interrupts a training program with SIGINT, on both sides of LAWN's switch, resumes it, and checks that it ends with
the weights, figures and records of a run that was never stopped.

    interrupt_test.py PATH_OF_PROGRAM          cifar10 or recommender
"""
import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

PROGRAM = sys.argv[1]
NAME = pathlib.Path(PROGRAM).name
EPOCHS = 4
JOBS = {
    "cifar10": [
        *["--network", "vgg", "--train-size", "512", "--test-size", "64", "--batch-size", "16", "--probe-size", "64"],
        "--augment",
    ],
    "recommender": ["--factors", "4", "--batch-size", "64"],
}
JOB = [
    *[*JOBS[NAME], "--epochs", str(EPOCHS), "--free-fraction", "0.4", "--seed", "3", "--threads", "1"],
    "--compare",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TIMES = {"seconds", "images_per_second", "samples_per_second", "optimizer_seconds_per_step"}


def check(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"FAILED: {what}")


def run(arguments: list[str], interrupt_at: str | None = None) -> tuple[int, str]:
    """Runs the program; sends SIGINT when a line of its output begins with `interrupt_at`."""
    process = subprocess.Popen(
        [PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )
    output = ""
    for line in process.stdout:
        output += line
        if interrupt_at and line.startswith(interrupt_at):
            time.sleep(0.1)  # into the next epoch, on most machines; any moment must do
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    code = process.wait()
    check(interrupt_at is None, f"no line began with {interrupt_at!r}:\n{output}")
    return code, output


def fingerprints(output: str) -> list[str]:
    line = re.search(r"^fingerprint of the weights +(\w+) +(\w+)$", output, re.MULTILINE)
    check(line is not None, f"no fingerprints in:\n{output}")
    return list(line.groups())


def figures(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{name: text for name, text in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def record(path: pathlib.Path) -> dict:
    """A run's record without the times."""
    content = json.loads(path.read_text())
    for part in (content, content["figures"], content["history"]):
        for name in TIMES & part.keys():
            del part[name]
    return content


with tempfile.TemporaryDirectory() as folder:
    whole, stopped = pathlib.Path(folder, "whole"), pathlib.Path(folder, "stopped")
    code, output = run([*JOB, "--out", str(whole)])
    check(code == 0, f"the uninterrupted run ended with {code}:\n{output}")
    expected = fingerprints(output)
    check(expected[0] != expected[1], "with and without LAWN the weights are the same")

    # The plain run in its second epoch; LAWN's in its free phase, and when it is constrained.
    resume: list[str] = []
    stops: list[str] = []
    for name, line in (
        ("adam", f"epoch 1/{EPOCHS} "),
        ("lawn-adam", f"epoch 1/{EPOCHS} "),
        ("lawn-adam", f"epoch 3/{EPOCHS} (constrained)"),
    ):
        # The plain run's lines come first: look for LAWN's only once the plain one is done.
        code, output = run([*JOB, "--out", str(stopped), *resume], line)
        check(code == 130, f"the interrupted run ended with {code}:\n{output}")
        check(f"saved to {stopped / name}.pt" in output, f"not a stop of {name}:\n{output}")
        check("to go on from there:" in output, f"no word on how to resume:\n{output}")
        stops.append(f"{name} after " + re.search(r"stopped after (\d+) steps", output).group(1) + " steps")
        resume = ["--resume", str(stopped)]
        if name == "adam":  # let the plain run end
            single = [argument for argument in JOB if argument != "--compare"]
            code, output = run([*single, "--out", str(stopped), "--resume", str(stopped / "adam.pt")])
            check(code == 0, f"the resumed run ended with {code}:\n{output}")

    code, output = run([*JOB, "--out", str(stopped), *resume])
    check(code == 0, f"the resumed run ended with {code}:\n{output}")
    check(fingerprints(output) == expected, f"weights {fingerprints(output)} instead of {expected}")
    for name in ("adam.csv", "lawn-adam.csv"):
        check(figures(stopped / name) == figures(whole / name), f"{name} differs")
        check(len(figures(whole / name)) == EPOCHS, f"{name} does not hold {EPOCHS} epochs")
    for name in ("adam.json", "lawn-adam.json"):
        check(record(stopped / name) == record(whole / name), f"{name} differs")
        check(record(whole / name)["program"] == NAME, f"{name} does not name {NAME}")

    # A checkpoint of another job is refused, and says why.
    size = JOB.index("--batch-size") + 1
    other = [*JOB[:size], "32", *JOB[size + 1 :]]
    code, output = run([*other, "--out", str(stopped), *resume])
    check(code == 1, f"a checkpoint of another job was taken:\n{output}")
    check(f"a checkpoint of another run: batch-size is {JOB[size]} there and 32 here" in output, output)

print("stopped " + ", ".join(stops) + "; resumed to the same bits")
