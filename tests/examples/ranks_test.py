#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs cifar10 --distributed on several ranks: checks that it trains as one process does, that it stops on Ctrl-C after the
same step everywhere and goes on with another number of ranks, and that a rank which is killed, hangs or was started with
other flags is named by the others in time and harms no checkpoint.

    ranks_test.py PATH_OF_CIFAR10 MPIEXEC...          of Open MPI
"""
import math
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import programs  # noqa: E402
from programs import ENVIRONMENT, PROGRAM, check, history, nth_line, record, run  # noqa: E402

MPIEXEC = sys.argv[2:]
TIMEOUT, ANSWER = 3, 2  # seconds: --timeout, and what lawn::MpiOptions gives ranks to answer in
SLACK = 10  # seconds for what a loaded machine adds
# A network without batch norm; batches that four ranks divide into parts of 0, 1, 1 and 1 images.
SIZES = ["--network", "mlp", "--train-size", "45", "--test-size", "41", "--probe-size", "37", "--batch-size", "3"]
JOB = [*SIZES, "--augment", "--free-fraction", "0.4", "--seed", "3", "--threads", "1"]
RANKS = ["--distributed", "--timeout", str(TIMEOUT)]
# For Open MPI alone: that the loss of a rank does not have it end the others.
GO_ON = {
    **{"OMPI_MCA_orte_enable_recovery": "1", "OMPI_MCA_orte_abort_on_non_zero_status": "0"},
    **{"PRTE_MCA_prte_enable_recovery": "1"},
}


def mpirun(ranks: int) -> list[str]:
    return [*MPIEXEC, "-n", str(ranks)]


def check_close(expected: float, got: float, what: str) -> None:
    check(math.isclose(expected, got, rel_tol=1e-5, abs_tol=1e-5), f"{what}: {got} instead of {expected}")


def check_same_run(expected: pathlib.Path, got: pathlib.Path, name: str, what: str) -> None:
    """Up to rounding: the figures of all epochs, and those of the record."""
    rows, others = history(expected / f"{name}.csv"), history(got / f"{name}.csv")
    check(len(rows) == len(others) > 0, f"{what}: {len(others)} epochs instead of {len(rows)}")
    for row, other in zip(rows, others):
        check(row.keys() == other.keys(), f"{what}: other columns")
        for column in row:
            check_close(float(row[column]), float(other[column]), f"{what}: {column} of epoch {row['epoch']}")
    one, other = record(expected / f"{name}.json"), record(got / f"{name}.json")
    check(one["settings"] == other["settings"], f"{what}: settings {other['settings']} instead of {one['settings']}")
    for figure, value in one["figures"].items():
        check_close(value, other["figures"][figure], f"{what}: {figure}")


def rank_process(launcher: subprocess.Popen, rank: int) -> int:
    """The process of a rank of mpirun's."""
    for process in pathlib.Path("/proc").iterdir():
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            parent = re.search(r"^PPid:\t(\d+)$", (process / "status").read_text(), re.MULTILINE)
        except (OSError, ValueError):
            continue
        if parent and int(parent[1]) == launcher.pid and f"OMPI_COMM_WORLD_RANK={rank}".encode() in variables:
            return int(process.name)
    sys.exit(f"FAILED: no process of rank {rank}")


def trains_as_one_process(folder: pathlib.Path) -> None:
    whole = folder / "whole"
    job = [*JOB, "--epochs", "3", "--compare"]
    code, plain = run([*job, "--out", str(whole)])
    check(code == 0, f"the plain run ended with {code}:\n{plain}")
    for ranks in (0, 1, 2, 3, 4):  # none: without mpirun
        out = folder / f"on-{ranks}"
        code, output = run([*job, *RANKS, "--out", str(out)], launcher=mpirun(ranks) if ranks else [])
        check(code == 0, f"{ranks} ranks ended with {code}:\n{output}")
        check(f" on each of {ranks} ranks\n" in output or ranks < 2, f"no word of {ranks} ranks:\n{output}")
        for line in ("epoch 1/3 ", "epoch 3/3 (constrained) ", "fingerprint of the weights "):
            said = [sum(text.startswith(line) for text in told.splitlines()) for told in (plain, output)]
            check(said[0] == said[1], f"'{line}' is said {said[1]} times by {ranks} ranks:\n{output}")
        check("\r" not in output and "[=" not in output, f"a bar outside a terminal:\n{output}")
        for name in ("adam", "lawn-adam"):
            check_same_run(whole, out, name, f"{name} on {ranks} ranks")
            check(record(out / f"{name}.json")["ranks"] == max(ranks, 1), f"{name}.json does not say {ranks} ranks")
        files = sorted(path.name for path in out.iterdir())
        check(files == sorted(path.name for path in whole.iterdir()), f"{ranks} ranks left {files}")


def draws_one_bar_on_a_terminal(folder: pathlib.Path) -> None:
    ours, theirs = pty.openpty()
    command = [*mpirun(3), PROGRAM, *JOB, *RANKS, "--epochs", "100000", "--stop-after", "1.5", "--out", str(folder / "bar")]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=ENVIRONMENT)
    os.close(theirs)
    output = b""
    try:
        while part := os.read(ours, 65536):
            output += part
    except OSError:  # the end of a terminal's output
        pass
    check(process.wait() == 130, f"--stop-after ended with {process.returncode}:\n{output.decode()}")
    drawn = re.findall(rb"\radam  \[[= ]{30}\] ", output)
    check(1 <= len(drawn) <= 12, f"{len(drawn)} bars in 1.5 s:\n{output.decode()}")


def stops_after_the_same_step_and_goes_on(folder: pathlib.Path) -> None:
    """Signals to mpirun, which passes them on at different moments; then on with other numbers of ranks."""
    whole, stopped = folder / "long", folder / "stopped"
    job = [*JOB, "--epochs", "12", "--lawn"]
    code, output = run([*job, "--out", str(whole)])
    check(code == 0, f"the plain run ended with {code}:\n{output}")
    resume: list[str] = []
    steps = [0]
    usr1 = lambda process: process.send_signal(signal.SIGUSR1)  # noqa: E731
    for ranks, line in ((3, "epoch 2/"), (2, "epoch 5/"), (4, "epoch 8/")):
        code, output = run([*job, *RANKS, "--out", str(stopped), *resume], nth_line(line), 0.04, mpirun(ranks), usr1)
        check(code == 130, f"{ranks} ranks were stopped with {code}:\n{output}")
        found = re.findall(r"^stopped after (\d+) steps of lawn-adam; saved to (\S+)$", output, re.MULTILINE)
        check(len(found) == 1 and int(found[0][0]) > steps[-1], f"not one word on where it stopped:\n{output}")
        check(f"on any number of ranks:\n  mpirun -n {ranks} {PROGRAM} " in output, f"no word on how to go on:\n{output}")
        steps.append(int(found[0][0]))
        resume = ["--resume", found[0][1]]
    code, output = run([*job, "--out", str(stopped), *resume])
    check(code == 0, f"the resumed run ended with {code}:\n{output}")
    check_same_run(whole, stopped, "lawn-adam", f"stopped after {steps[1:]} steps")
    print("stopped after", *steps[1:], "steps on 3, 2, 4 ranks, and ended as one process does")


def stops_on_one_ctrl_c(folder: pathlib.Path) -> None:
    """Open MPI's mpirun answers Ctrl-C with a SIGTERM to each rank."""
    job = [*JOB, *RANKS, "--epochs", "100000", "--out", str(folder / "ctrl-c")]
    _, output = run(job, nth_line("epoch 2/"), launcher=mpirun(2))
    found = re.findall(r"^stopped after (\d+) steps of adam; saved to (\S+)$", output, re.MULTILINE)
    check(len(found) == 1, f"not one word on where it stopped:\n{output}")
    code, output = run([*job, "--resume", found[0][1], "--stop-after", "0.5"], launcher=mpirun(3))
    later = re.search(r"^stopped after (\d+) steps", output, re.MULTILINE)
    check(code == 130 and later is not None and int(later[1]) > int(found[0][0]), f"did not go on:\n{output}")


def loses_a_rank(folder: pathlib.Path, lost: int, how: int, by_mpirun: bool) -> None:
    """Kills or stops a rank of three in the middle of a run that saves every epoch, rank 0 while it writes a checkpoint; then
    goes on with two."""
    name = signal.Signals(how).name
    what = f"{name} for rank {lost}{', mpirun ending all' if by_mpirun else ''}"
    out = folder / what
    job = [*JOB, "--epochs", "12", "--checkpoint-every", "1"]
    began: list[float] = []

    def lose(process: subprocess.Popen) -> None:
        victim = rank_process(process, lost)
        began.append(time.monotonic())
        while lost == 0 and not (out / "adam.pt.tmp").exists():
            if time.monotonic() - began[0] > 10:
                process.terminate()  # mpirun takes its ranks along
                check(False, f"{what}: no checkpoint is written beside the last one")
        os.kill(victim, how)

    ENVIRONMENT.update(GO_ON if how == signal.SIGKILL and not by_mpirun else {})
    code, output = run([*job, *RANKS, "--out", str(out)], nth_line("epoch 3/"), 0.03 * lost, mpirun(3), lose)
    for variable in GO_ON:
        ENVIRONMENT.pop(variable, None)
    took = time.monotonic() - began[0]
    check("epoch 12/" not in output, f"{what}: the run came to its end:\n{output}")
    check(took < TIMEOUT + ANSWER + SLACK, f"{what}: took {took:.1f} s")
    if by_mpirun:
        check(code != 0 and re.search(rf"rank {lost}\b.*signal 9", output, re.DOTALL), f"{what}, {code}:\n{output}")
    else:
        for rank in {0, 1, 2} - {lost}:
            said = re.search(rf"^cifar10: rank {rank}: (.*)$", output, re.MULTILINE)
            check(said is not None, f"{what}: no word of rank {rank}:\n{output}")
            check(f"rank {lost} has not come, and did not answer within {ANSWER}000 ms" in said[1], f"{what}: {said[1]}")
    check((out / "adam.pt").is_file(), f"{what}: there is no checkpoint")
    code, output = run([*job, *RANKS, "--out", str(out), "--resume", str(out / "adam.pt")], launcher=mpirun(2))
    check(code == 0, f"{what}: the resumed run ended with {code}:\n{output}")
    check_same_run(folder / "undisturbed", out, "adam", what)
    print(f"{what}: over after {took:.1f} s, and resumed on two ranks")


def names_other_flags(folder: pathlib.Path) -> None:
    job = [*JOB, *RANKS, "--epochs", "3", "--out", str(folder / "flags")]
    for more, difference in (
        (["--lr", "0.5"], "expected 'lr 0', got 'lr 0.5'"),
        (["--batch-size", "4"], "expected 'batch-size 3', got 'batch-size 4'"),
        (["--compare"], "expected 'compare off', got 'compare on'"),
    ):
        begin = time.monotonic()
        code, output = run([*job, ":", "-n", "1", PROGRAM, *job, *more, ":", "-n", "1", PROGRAM, *job], launcher=mpirun(1))
        took = time.monotonic() - begin
        check(code != 0 and took < TIMEOUT + ANSWER + SLACK, f"{more} on rank 1 ended with {code} after {took:.1f} s")
        said = [line for line in output.splitlines() if line.startswith("cifar10: --distributed: ")]
        check(len(said) == 3 and all(f"rank 1: {difference}" in line for line in said), f"{more} on rank 1:\n{output}")
    # A file that is missing on one rank is named with the rank, by all.
    code, output = run(
        [*job, ":", "-n", "1", PROGRAM, *job, "--resume", str(folder / "none.pt")], launcher=mpirun(1)
    )
    check(code != 0 and "cifar10: rank 1: " in output and "rank 1 failed: " in output, f"a file is missing:\n{output}")
    check("none.pt: there is no such checkpoint" in output, f"a file is missing:\n{output}")
    check(not list((folder / "flags").glob("*.pt")), "a run that did not begin left a checkpoint")


def names_the_rank_that_cannot_write(folder: pathlib.Path) -> None:
    out = folder / "gone"
    remove = lambda process: shutil.rmtree(out)  # noqa: E731
    code, output = run([*JOB, *RANKS, "--epochs", "1000", "--out", str(out)], nth_line("epoch 2/"), 0, mpirun(2), remove)
    reason = re.search(r"^cifar10: rank 0: (.*adam.csv: \d+ bytes could not be written: .*)$", output, re.MULTILINE)
    check(code != 0 and reason is not None, f"a folder that is gone, {code}:\n{output}")
    check(re.search(rf"^cifar10: rank 1: .*rank 0 failed: {re.escape(reason[1])}", output, re.MULTILINE), output)


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    trains_as_one_process(folder)
    draws_one_bar_on_a_terminal(folder)
    stops_after_the_same_step_and_goes_on(folder)
    stops_on_one_ctrl_c(folder)
    names_other_flags(folder)
    names_the_rank_that_cannot_write(folder)
    code, output = run([*JOB, "--epochs", "12", "--checkpoint-every", "1", "--out", str(folder / "undisturbed")])
    check(code == 0, f"the plain run ended with {code}:\n{output}")
    loses_a_rank(folder, lost=1, how=signal.SIGKILL, by_mpirun=False)
    loses_a_rank(folder, lost=2, how=signal.SIGSTOP, by_mpirun=False)
    for rank in (0, 1):
        loses_a_rank(folder, lost=rank, how=signal.SIGKILL, by_mpirun=True)
