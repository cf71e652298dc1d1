#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Interrupts a training program with SIGINT, on both sides of LAWN's switch, resumes it, and checks that it ends with
the weights, figures and records of a run that was never stopped.

    interrupt_test.py PATH_OF_PROGRAM          cifar10, recommender or language
"""
import pathlib
import re
import sys
import tempfile

sys.dont_write_bytecode = True
from programs import NAME, check, history, nth_line, record, run  # noqa: E402

EPOCHS = 4
JOBS = {
    "cifar10": [
        *["--network", "vgg", "--train-size", "512", "--test-size", "64", "--batch-size", "16", "--probe-size", "64"],
        *["--augment", "--label-noise", "0.2", "--betas", "0.9,0.95"],
    ],
    "recommender": ["--factors", "4", "--batch-size", "64"],
    "language": [
        *["--layers", "2", "--width", "16", "--heads", "2", "--context", "16", "--windows", "512"],
        *["--optimizer", "adam", "--batch-size", "16", "--probe-size", "50", "--init-scale", "1.5"],
    ],
}
# With what else the same checkpoint is of another job.
OTHERS = {
    "cifar10": [("--batch-size", "32"), ("--label-noise", "0.4")],
    "recommender": [("--batch-size", "32")],
    "language": [("--batch-size", "32"), ("--context", "15"), ("--init-scale", "2")],
}
JOB = [
    *[*JOBS[NAME], "--epochs", str(EPOCHS), "--free-fraction", "0.4", "--seed", "3", "--threads", "1"],
    "--compare",
]


def fingerprints(output: str) -> list[str]:
    line = re.search(r"^fingerprint of the weights +(\w+) +(\w+)$", output, re.MULTILINE)
    check(line is not None, f"no fingerprints in:\n{output}")
    return list(line.groups())


with tempfile.TemporaryDirectory() as folder:
    whole, stopped = pathlib.Path(folder, "whole"), pathlib.Path(folder, "stopped")
    code, output = run([*JOB, "--out", str(whole)])
    check(code == 0, f"the uninterrupted run ended with {code}:\n{output}")
    expected = fingerprints(output)
    check(expected[0] != expected[1], "with and without LAWN the weights are the same")

    # The plain run; LAWN's in its free phase, and when it is constrained.
    resume: list[str] = []
    stops: list[str] = []
    for name, line in (
        ("adam", f"epoch 1/{EPOCHS} "),
        ("lawn-adam", f"epoch 1/{EPOCHS} "),
        ("lawn-adam", f"epoch 2/{EPOCHS} (constrained)"),
    ):
        # The plain run's lines come first: look for LAWN's only once the plain one is done.
        code, output = run([*JOB, "--out", str(stopped), *resume], nth_line(line), gate=stopped / f"{name}.csv")
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
        check(history(stopped / name) == history(whole / name), f"{name} differs")
        check(len(history(whole / name)) == EPOCHS, f"{name} does not hold {EPOCHS} epochs")
    for name in ("adam.json", "lawn-adam.json"):
        check(record(stopped / name) == record(whole / name), f"{name} differs")
        check(record(whole / name)["program"] == NAME, f"{name} does not name {NAME}")

    # A checkpoint of another job is refused, and says why.
    for flag, value in OTHERS[NAME]:
        place = JOB.index(flag) + 1
        other = [*JOB[:place], value, *JOB[place + 1 :]]
        code, output = run([*other, "--out", str(stopped), *resume])
        check(code == 1, f"a checkpoint of another job was taken:\n{output}")
        difference = f"{flag[2:]} is {JOB[place]} there and {value} here"
        check("a checkpoint of another run: " in output and difference in output, output)

    # So is a batch of more samples than an epoch has.
    code, output = run([*JOB, "--batch-size", "1000000", "--out", str(whole)])
    check(code == 1 and "--batch-size 1000000: an epoch has only " in output, f"too large a batch was taken:\n{output}")

print("stopped " + ", ".join(stops) + "; resumed to the same bits")
