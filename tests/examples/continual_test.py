#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs continual small, by each method and on each stream: checks its table, records and figures, stops it in the middle of a
task and by SIGINT between two, resumes it, and checks that it ends with the same weights and records; and that it refuses by
name what cannot be.

    continual_test.py PATH_OF_PROGRAM
"""
import math
import pathlib
import re
import sys
import tempfile

sys.dont_write_bytecode = True
from programs import check, history, nth_line, record, run  # noqa: E402

METHODS = ["adam", "adamw", "sgd", "l2-init", "shrink-and-perturb", "fresh", "lawn", "lawn+l2-init"]
TASKS = 3
SMALL = ["--train-size", "64", "--test-size", "32", "--batch-size", "32", "--seed", "3", "--threads", "1"]
JOB = [*SMALL, "--tasks", str(TASKS), "--epochs", "2", "--free-tasks", "0.5"]
INTERRUPTED = ("adam", "shrink-and-perturb", "lawn+l2-init")
STREAMS = {  # what more the program is given, and whether there are test images
    "permuted-inputs": (["--layer-norm"], True),
    "class-pairs": (["--network", "vgg", "--batch-size", "4", "--epochs", "1", "--granularity", "unit"], True),
    "growing-classes": (["--network", "cnn", "--biases", "--reset-state"], True),
    "warm-start": (["--tasks", "0", "--select", "all", "--network", "resnet20-without-norm", "--epochs", "1"], True),
}
REFUSED = [
    (["--stream", "tides"], "--stream: expected one of random-labels, permuted-inputs, class-pairs, growing-classes, warm-start"),
    (["--method", "hope"], "--method: expected all, or some of adam, adamw, sgd, l2-init"),
    (["--method", "adam,lawn,adam"], "separated by commas and each once; got 'adam,lawn,adam'"),
    (["--betas", "0.9"], "--betas: expected two numbers from 0 to below 1, as in 0.9,0.999; got '0.9'"),
    (["--method", "sgd", "--betas", "0.9,0.95"], "--betas: sgd has none; leave --betas out"),
    (["--shrink", "1.5"], "--shrink: expected a number from 0 to 1; got 1.5"),
    (["--layer-norm", "--network", "vgg"], "--layer-norm: expected --network mlp, got vgg"),
    (["--stream", "warm-start", "--tasks", "3"], "--tasks 3: warm-start has 2"),
    (["--label-noise", "0.4"], "--label-noise: the labels of random-labels are random; expected another --stream"),
    (["--batch-size", "100"], "--batch-size 100: a task has only 64 images"),
]


def cells(output: str, title: str) -> list[str]:
    line = re.search(rf"^{re.escape(title)} {{2,}}(.+)$", output, re.MULTILINE)
    check(line is not None, f"no row '{title}' in:\n{output}")
    return re.split(r" {2,}", line[1].strip())


def check_figures(content: dict, tested: bool, ends: bool = False) -> None:
    figures, rows = content["figures"], content["history"]
    lost = [name for name, value in figures.items() if value is None or not math.isfinite(value)]
    check(not lost, f"{content['run']}: {lost} are not finite")
    check(tested == ("test_accuracy" in figures), f"{content['run']}: test images: {not tested}")
    for name in ("online_accuracy", "task_accuracy", "dead_units", "angle"):
        tasks = rows[name]
        check(math.isclose(figures[name], sum(tasks) / len(tasks)), f"{name} is not the mean over tasks")
        check(figures[f"{name}_first_tenth"] == tasks[0], f"{name} does not begin with the first task")
        check(figures[f"{name}_last_tenth"] == tasks[-1], f"{name} does not end with the last task")
    check(all(0 < angle < 1 for angle in rows["angle"]), f"angles {rows['angle']}")
    name = "test_accuracy_last_tenth" if ends else "online_accuracy"
    check(figures["score"] == figures[name], f"{content['run']}: the score {figures['score']} is not {name}")


with tempfile.TemporaryDirectory() as folder:
    whole, stopped = pathlib.Path(folder, "whole"), pathlib.Path(folder, "stopped")
    code, output = run([*JOB, "--out", str(whole)])
    check(code == 0, f"the program ended with {code}:\n{output}")
    fingerprints = cells(output, "fingerprint of the weights")
    check(len(set(fingerprints)) == len(METHODS), f"two methods end with the same weights: {fingerprints}")
    check(len(cells(output, "online accuracy")) == len(METHODS), f"no column for each method:\n{output}")
    sentence = r"^From the first tenth of the tasks to the last the online accuracy of adam (fell|rose) by [\d.]+ points, that of"
    check(re.search(sentence, output, re.MULTILINE) is not None, f"no sentence on what was seen:\n{output}")
    records = {name: record(whole / f"{name}.json") for name in METHODS}
    for name, content in records.items():
        check((content["program"], content["run"]) == ("continual", name), f"{name}.json is of {content['program']}")
        check(content["history"]["task"] == [1, 2, 3], f"{name}.json does not hold {TASKS} tasks")
        check_figures(content, tested=False)
        expected = [float("lawn" in name)] * TASKS  # the switch comes in the middle of the first
        check(content["history"]["constrained"] == expected, f"{name}: {content['history']['constrained']}")
    norms = records["lawn"]["history"]["weight_norm"]
    check(max(norms) - min(norms) < 1e-4 * norms[0], f"LAWN's norms move: {norms}")

    # In the middle of the first task, which has four steps; by SIGINT at its end; and to the end.
    for name in METHODS:
        job = [*JOB, "--method", name, "--out", str(stopped)]
        code, output = run([*job, "--stop-after", "1e-9"])
        check(code == 130 and f"stopped after 1 steps of {name}; saved to" in output, f"no stop of {name}:\n{output}")
        job += ["--resume", str(stopped / f"{name}.pt")]
        if name in INTERRUPTED:
            code, output = run(job, nth_line(f"task 1/{TASKS} "), gate=stopped / f"{name}.csv")
            check(code == 130 and f"stopped after 4 steps of {name}" in output, f"no stop of {name}:\n{output}")
        code, output = run(job)
        check(code == 0, f"the resumed program ended with {code}:\n{output}")
        check(cells(output, "fingerprint of the weights") == [fingerprints[METHODS.index(name)]], f"other weights:\n{output}")
        check(record(stopped / f"{name}.json") == records[name], f"{name}.json differs")
        check(history(stopped / f"{name}.csv") == history(whole / f"{name}.csv"), f"{name}.csv differs")

    for name, (more, tested) in STREAMS.items():
        job = [*JOB, "--stream", name, "--method", "lawn", *more]
        code, output = run([*job, "--out", str(whole / name)])
        check(code == 0, f"{name}: the program ended with {code}:\n{output}")
        content = record(whole / name / "lawn.json")
        check_figures(content, tested, ends=name in ("growing-classes", "warm-start"))
        code, output = run([*job, "--out", str(stopped / name), "--stop-after", "1e-9"])
        check(code == 130, f"{name}: the program ended with {code}:\n{output}")
        code, output = run([*job, "--out", str(stopped / name), "--resume", str(stopped / name / "lawn.pt")])
        check(code == 0 and record(stopped / name / "lawn.json") == content, f"{name}: another record:\n{output}")

    for arguments, message in REFUSED:
        code, output = run([*SMALL, "--method", "adam", "--out", str(stopped), *arguments])
        check(code == 1 and message in output, f"{arguments}: expected '{message}', got:\n{output}")

print("each method and stream, stopped in the middle of a task; resumed to the same bits")
