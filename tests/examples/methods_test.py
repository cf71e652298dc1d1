#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program that compares methods, small: checks its table, its records and what must hold of their figures, then
interrupts it with SIGINT, resumes it, and checks that it ends with the same weights and records.

    methods_test.py PATH_OF_PROGRAM          mimicnorm, eman or afan
"""
import math
import pathlib
import re
import sys
import tempfile

sys.dont_write_bytecode = True
import programs  # noqa: E402
from programs import NAME, check, nth_line, record  # noqa: E402

EPOCHS = 2
SIZES = ["--train-size", "128", "--test-size", "64", "--probe-size", "32", "--batch-size", "32"]
JOB = [*SIZES, "--epochs", str(EPOCHS), "--seed", "3", "--threads", "1"]


def check_mimicnorm(records: dict[str, dict]) -> None:
    kept = {name: record["kept_bytes"] for name, record in records.items()}
    check(kept["none"] == kept["centred"], f"centring changed what is kept for backward: {kept}")
    check(kept["last-norm"] == kept["mimicnorm"], f"centring changed what is kept for backward: {kept}")
    check(kept["last-norm"] > kept["none"], f"a last norm keeps nothing: {kept}")
    # Behind a convolution, batch norm keeps one more activation beside the ReLU's.
    check(kept["batch-norm"] > 1.8 * kept["mimicnorm"], f"batch norm keeps too little for backward: {kept}")


def check_eman(records: dict[str, dict]) -> None:
    for name in ("student", "eman", "copied", "stale"):
        shuffled, by_class = (records[name][f"teacher_accuracy_{order}"] for order in ("shuffled", "sorted"))
        # Sums in another order may turn one image of a tie.
        check(abs(shuffled - by_class) <= 1 / 64 + 1e-9, f"{name}: {shuffled} shuffled, {by_class} sorted")
    student = records["student"]
    check(abs(student["teacher_accuracy_shuffled"] - student["test_accuracy"]) <= 1 / 64 + 1e-9, "another student")
    used = [record["pseudo_labels_used"] for record in records.values()]
    right = [record["pseudo_labels_right"] for record in records.values()]
    check(max(used) > 0 and all(0 <= r <= u <= 1 for r, u in zip(right, used)), f"pseudo-labels: {used}, {right}")


def check_afan(records: dict[str, dict]) -> None:
    for name, record in records.items():
        clean, signs, adversarial = (record[f"{kind}test_loss"] for kind in ("", "signs_", "adversarial_"))
        check(adversarial > clean, f"{name}: adversarial loss {adversarial} is not above clean {clean}")
        check(adversarial > signs, f"{name}: adversarial loss {adversarial} is not above that of signs {signs}")
        check(signs != clean, f"{name}: random signs change nothing")


# Methods and rows of the table; what more the program is given; what must hold of the figures of all records. A width below
# eight would not do: see tests/examples/checkpoint_test.cpp.
CASES = {
    "mimicnorm": (
        ["batch-norm", "none", "last-norm", "centred", "mimicnorm"],
        ["test accuracy", "test loss", "train accuracy", "train loss", "kept for backward, MiB"],
        [],
        check_mimicnorm,
    ),
    "eman": (
        ["student", "eman", "copied", "stale", "batch-statistics"],
        ["student: test accuracy", "teacher: shuffled batches", "teacher: sorted batches", "pseudo-labels used"],
        ["--labels", "40", "--threshold", "0.2", "--width", "8"],
        check_eman,
    ),
    "afan": (
        ["clean", "signs", "signs-mixed", "adversarial", "adversarial-mixed"],
        ["test accuracy", "test loss", "  with random signs", "  adversarial", "train loss"],
        ["--width", "8", "--step-size", "5", "--epsilon", "20"],
        check_afan,
    ),
}
METHODS, ROWS, MORE, CHECK = CASES[NAME]


def run(arguments: list[str], interrupt_at: int = 0, gate: pathlib.Path | None = None) -> tuple[int, str]:
    """Runs the program; sends SIGINT at its `interrupt_at`th first epoch: that of the method of that number."""
    stop = nth_line(f"epoch 1/{EPOCHS} ", interrupt_at) if interrupt_at else None
    return programs.run([*JOB, *MORE, *arguments], stop, gate=gate)


def table(output: str) -> dict[str, list[str]]:
    """The cells of each row of the table by its title, and those of the heading by an empty one."""
    lines = output.splitlines()
    rules = [number for number, line in enumerate(lines) if re.fullmatch("-+", line)]
    check(len(rules) == 1, f"not one table in:\n{output}")
    rows = {"": lines[rules[0] - 1].split()}
    for line in lines[rules[0] + 1 :]:
        title, *cells = re.split(r" {2,}", line.lstrip())
        indent = " " * (len(line) - len(line.lstrip()))
        rows[indent + title] = cells
    return rows


with tempfile.TemporaryDirectory() as folder:
    whole, stopped = pathlib.Path(folder, "whole"), pathlib.Path(folder, "stopped")
    code, output = run(["--out", str(whole)])
    check(code == 0, f"the program ended with {code}:\n{output}")
    rows = table(output)
    check(rows[""] == METHODS, f"columns {rows['']} instead of {METHODS}")
    for title in [*ROWS, "fingerprint of the weights"]:
        check(len(rows.get(title, [])) == len(METHODS), f"no row '{title}' with a cell for each method:\n{output}")
    fingerprints = rows["fingerprint of the weights"]
    check(len(set(fingerprints)) == len(METHODS), f"two methods end with the same weights: {fingerprints}")
    records = {name: record(whole / f"{name}.json") for name in METHODS}
    for name, content in records.items():
        check((content["program"], content["run"]) == (NAME, name), f"{name}.json is of {content['program']}")
        check(len(content["history"]["epoch"]) == EPOCHS, f"{name}.json does not hold {EPOCHS} epochs")
        lost = [figure for figure, value in content["figures"].items() if value is None or not math.isfinite(value)]
        check(not lost, f"{name}: {lost} are not finite")
    CHECK({name: content["figures"] for name, content in records.items()})

    # Within the first run, and within the fourth when three are done.
    resume: list[str] = []
    stops: list[str] = []
    for method in (1, 4):
        name = METHODS[method - 1]
        code, output = run(
            ["--out", str(stopped), *resume], interrupt_at=method if not resume else method - 1, gate=stopped / f"{name}.csv"
        )
        check(code == 130, f"the interrupted program ended with {code}:\n{output}")
        stop = re.search(r"^stopped after (\d+) steps of (\S+); saved to (.+)$", output, re.MULTILINE)
        check(stop is not None and stop[2] == name, f"no word on a stop of {name}:\n{output}")
        check(stop[3] == f"{stopped / stop[2]}.pt" and pathlib.Path(stop[3]).is_file(), f"no checkpoint:\n{output}")
        stops.append(f"{stop[2]} after {stop[1]} steps")
        resume = ["--resume", str(stopped)]
    code, output = run(["--out", str(stopped), *resume])
    check(code == 0, f"the resumed program ended with {code}:\n{output}")
    check(table(output)["fingerprint of the weights"] == fingerprints, f"not the weights {fingerprints}:\n{output}")
    for name in METHODS:
        check(record(stopped / f"{name}.json") == records[name], f"{name}.json differs")

    # Some methods, in another order, are the same runs.
    some = pathlib.Path(folder, "some")
    code, output = run(["--method", f"{METHODS[-1]},{METHODS[0]}", "--out", str(some)])
    for name in (METHODS[-1], METHODS[0]):
        check(code == 0 and record(some / f"{name}.json") == records[name], f"{name} among some:\n{output}")
    check(sorted(path.name for path in some.glob("*.json")) == sorted(f"{name}.json" for name in (METHODS[-1], METHODS[0])), "others ran")

print("stopped " + ", ".join(stops) + "; resumed to the same bits")
