#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the whole of a program whose training runs start from one another, on a tiny job: checks the rows of its table
and its records, interrupts it with SIGINT, resumes it, and checks that it ends with the records of the run that
was never stopped.

    pruning_and_unification_test.py PATH_OF_PROGRAM          pruning or unification
"""
import pathlib
import re
import sys
import tempfile

sys.dont_write_bytecode = True
from programs import NAME, check, history, nth_line, record, run  # noqa: E402

COMMON = [
    *["--train-size", "128", "--test-size", "64", "--batch-size", "16", "--probe-size", "32", "--epochs", "2"],
    *["--seed", "3", "--threads", "1"],
]
JOBS = {
    "pruning": [*COMMON, "--sparsity", "0.9", "--lr", "0.05"],
    "unification": [
        *[*COMMON, "--network", "vgg", "--lr", "0.01", "--fraction", "0.75", "--admm-epochs", "4"],
        *["--retrain-epochs", "2", "--rho", "0.1", "--max-rho", "4"],
    ],
}
JOB = JOBS[NAME]
COLUMNS = {"pruning": ["dense", "fine-tune", "ticket", "fresh"], "unification": ["dense", "one-shot", "admm"]}[NAME]
ROWS = {
    "pruning": ["weights pruned", "test accuracy before training", "test accuracy", "overlap R_p, start and end"],
    "unification": [
        "test accuracy before the projection",
        "residual ||W - P(W)|| / ||W||",
        "test accuracy at the projection",
        "test accuracy after retraining",
        "bytes of the weights, encoded",
    ],
}[NAME]
STAGES = {
    "pruning": COLUMNS,
    "unification": ["pretraining", "plain", "admm-training", *COLUMNS],
}[NAME]
# Where the program is stopped: the stage, of which it is the first epoch since the program started, and how many epochs it has
# then trained. In the first run, and in those whose optimizer has masks, ADMM's targets and multipliers, a frozen structure.
STOPS = {
    "pruning": [("dense", 1), ("fine-tune", 2)],
    "unification": [("pretraining", 1), ("admm-training", 6), ("one-shot", 6)],
}[NAME]


def row(output: str, title: str) -> list[str]:
    """The cells of a row of the table."""
    line = re.search(rf"^{re.escape(title)}  +(.*)$", output, re.MULTILINE)
    check(line is not None, f"no row {title!r} in:\n{output}")
    cells = re.split(r"  +", line.group(1).strip())
    check(len(cells) == len(COLUMNS), f"{len(cells)} cells in row {title!r} of:\n{output}")
    return cells


def refused(more: list[str], message: str) -> None:
    code, output = run([*JOB, *more])
    check(code == 1, f"{more} ended with {code}:\n{output}")
    check(message in output, f"not refused with {message!r}:\n{output}")
    check("epoch 1/" not in output, f"refused after training had begun:\n{output}")


def check_pruning(records: dict[str, dict]) -> None:
    figures = {name: content["figures"] for name, content in records.items()}
    starts = [content["settings"]["start"] for content in records.values()]
    check(figures["dense"]["pruned"] == 0, "something of the dense network was pruned")
    for name in COLUMNS[1:]:
        check(abs(figures[name]["pruned"] - 0.9) < 1e-4, f"{name}: {figures[name]['pruned']} was pruned, not 0.9")
        check("overlap" not in figures[name], f"{name} has an overlap")
    check(0.1 < figures["dense"]["overlap"] < 1, f"an overlap of {figures['dense']['overlap']}")
    check(len(set(starts)) == 4, f"two runs have one start: {starts}")
    refused(["--scope", "layer", "--sparsity", "0.9999"], "everything pruned")


def check_unification(records: dict[str, dict]) -> None:
    dense, one_shot, admm = (records[name]["figures"] for name in COLUMNS)
    check(dense["test_accuracy_before"] == one_shot["test_accuracy_before"], "dense and one shot start from two networks")
    check(0 < admm["residual"] < 0.9 * one_shot["residual"], f"ADMM: {admm['residual']}, else {one_shot['residual']}")
    check(dense["bytes"] == dense["dense_bytes"], "the dense network was encoded")
    check(one_shot["bytes"] == admm["bytes"] < dense["bytes"], "bytes of the encoded networks")
    # Three quarters of the 4x4 blocks of float32 take 32 + 16 bits instead of 512, all a bit more; edges are smaller.
    expected = (0.75 * 48 + 0.25 * 512 + 1) / 512
    check(abs(admm["bytes"] / admm["dense_bytes"] - expected) < 0.01, f"{admm['bytes']} bytes, not {expected} of all")
    refused(["--block-rows", "11"], "expected blocks that fit the matrix 10x256 of head.weight, got 11x4")
    refused(["--max-rho", "0.01"], "max_rho must be finite and >= rho")


with tempfile.TemporaryDirectory() as folder:
    whole, stopped = pathlib.Path(folder, "whole"), pathlib.Path(folder, "stopped")
    code, output = run([*JOB, "--out", str(whole)])
    check(code == 0, f"the uninterrupted run ended with {code}:\n{output}")
    for title in ROWS:
        row(output, title)
    fingerprints = row(output, "fingerprint of the weights")
    check(len(set(fingerprints)) == len(COLUMNS), f"two runs ended with the same weights: {fingerprints}")
    records = {name: record(whole / f"{name}.json") for name in STAGES}
    for name, content in records.items():
        check(content["program"] == NAME and content["run"] == name, f"{name}.json names another run")
    {"pruning": check_pruning, "unification": check_unification}[NAME](
        {name: content for name, content in records.items() if name in COLUMNS}
    )

    resume: list[str] = []
    stops: list[str] = []
    for name, epochs in STOPS:
        code, output = run(
            [*JOB, "--out", str(stopped), *resume], nth_line("epoch ", epochs), gate=stopped / f"{name}.csv"
        )
        check(code == 130, f"the interrupted run ended with {code}:\n{output}")
        stop = re.search(r"stopped after (\d+) steps of ([\w-]+);", output)
        check(stop is not None and f"--resume {stopped}" in output, f"no word on how to resume:\n{output}")
        check(stop.group(2) == name, f"not a stop of {name}:\n{output}")
        stops.append(f"{stop.group(2)} after {stop.group(1)} steps")
        resume = ["--resume", str(stopped)]
    code, output = run([*JOB, "--out", str(stopped), *resume])
    check(code == 0, f"the resumed run ended with {code}:\n{output}")
    check(row(output, "fingerprint of the weights") == fingerprints, f"not {fingerprints} in:\n{output}")
    for name in STAGES:
        check(record(stopped / f"{name}.json") == records[name], f"{name}.json differs")
        check(history(stopped / f"{name}.csv") == history(whole / f"{name}.csv"), f"{name}.csv differs")

    refused(["--out", str(stopped), *resume, "--weight-decay", "0.1"], "weight-decay is 0 there and 0.1 here")
    (stopped / f"{STAGES[0]}.pt").unlink()
    refused(["--out", str(stopped), *resume], f"there is no {STAGES[0]}.pt in that folder")

print("stopped " + ", ".join(stops) + "; resumed to the same bits")
