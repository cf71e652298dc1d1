#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs cifar10 --distributed on several ranks: checks that it trains as one process does, that it stops on Ctrl-C after the
same step everywhere and goes on with another number of ranks, and that a rank which is killed or was started with other flags
is named by the others in time and harms no checkpoint, and what a full disk of a rank does. (A rank that hangs: distributed/lost_rank_test.py.)

    ranks_test.py PATH_OF_CIFAR10 MPIEXEC...          of Open MPI
"""
import fcntl
import math
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import programs  # noqa: E402
from programs import ENVIRONMENT, PROGRAM, check, history, nth_line, record, run  # noqa: E402

MPIEXEC = sys.argv[2:]
TIMEOUT = 10  # seconds: --timeout
# A network without batch norm; batches that four ranks divide into parts of 0, 1, 1 and 1 images.
SIZES = ["--network", "mlp", "--train-size", "45", "--test-size", "41", "--probe-size", "37", "--batch-size", "3"]
JOB = [*SIZES, "--augment", "--free-fraction", "0.4", "--seed", "3", "--threads", "1"]
SAVING = [*JOB, "--epochs", "6", "--checkpoint-every", "1"]
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
    for ranks in (0, 2, 4):  # none: without mpirun; others are below
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
    begin = time.monotonic()
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
    most = (time.monotonic() - begin) / 0.2 + 1  # it draws at most so often; three of them would draw more
    check(1 <= len(drawn) <= most, f"{len(drawn)} bars instead of {most:.1f} at most:\n{output.decode()}")


def stops_after_the_same_step_and_goes_on(folder: pathlib.Path) -> None:
    """Signals to one rank; then on with other numbers of ranks."""
    whole, stopped = folder / "long", folder / "stopped"
    job = [*JOB, "--epochs", "6", "--lawn"]
    code, output = run([*job, "--out", str(whole)])
    check(code == 0, f"the plain run ended with {code}:\n{output}")
    resume: list[str] = []
    steps = [0]
    for ranks in (3, 2):
        last = lambda process: os.kill(rank_process(process, ranks - 1), signal.SIGUSR1)  # noqa: B023, E731
        code, output = run(
            [*job, *RANKS, "--out", str(stopped), *resume], nth_line("epoch "), mpirun(ranks), last, stopped / "lawn-adam.csv"
        )
        check(code == 130, f"{ranks} ranks were stopped with {code}:\n{output}")
        found = re.findall(r"^stopped after (\d+) steps of lawn-adam; saved to (\S+)$", output, re.MULTILINE)
        check(len(found) == 1 and int(found[0][0]) > steps[-1], f"not one word on where it stopped:\n{output}")
        check(f"on any number of ranks:\n  mpirun -n {ranks} {PROGRAM} " in output, f"no word on how to go on:\n{output}")
        steps.append(int(found[0][0]))
        resume = ["--resume", found[0][1]]
    code, output = run([*job, "--out", str(stopped), *resume])
    check(code == 0, f"the resumed run ended with {code}:\n{output}")
    check_same_run(whole, stopped, "lawn-adam", f"stopped after {steps[1:]} steps")
    print("stopped after", *steps[1:], "steps on 3 and 2 ranks, and ended as one process does")


def stops_on_signals_to_mpirun(folder: pathlib.Path) -> None:
    """Which it passes on at different moments; Open MPI's answers Ctrl-C with a SIGTERM to each rank, and later a SIGKILL."""
    job = [*JOB, *RANKS, "--epochs", "100000", "--out", str(folder / "mpirun")]  # it does not end first
    resume: list[str] = []
    steps = [0]
    for ranks, what in ((2, signal.SIGINT), (3, signal.SIGUSR1)):
        how = lambda process: process.send_signal(what)  # noqa: B023, E731
        if what == signal.SIGINT:
            ENVIRONMENT["OMPI_MCA_odls_base_sigkill_timeout"] = "10"  # seconds: what a loaded machine may take to save
        _, output = run([*job, *resume], nth_line("epoch ", 2), mpirun(ranks), how)
        ENVIRONMENT.pop("OMPI_MCA_odls_base_sigkill_timeout", None)
        found = re.findall(r"^stopped after (\d+) steps of adam; saved to (\S+)$", output, re.MULTILINE)
        check(len(found) == 1 and int(found[0][0]) > steps[-1], f"{what.name}: not one word on where:\n{output}")
        steps.append(int(found[0][0]))
        resume = ["--resume", found[0][1]]


def loses_a_rank(folder: pathlib.Path, lost: int, how: int, by_mpirun: bool) -> None:
    """Signals to a rank of three in the middle of a run that saves every epoch; then goes on with two."""
    name = signal.Signals(how).name
    what = f"{name} for rank {lost}{', mpirun ending all' if by_mpirun else ''}"
    out = folder / what
    lose = lambda process: os.kill(rank_process(process, lost), how)  # noqa: E731
    ENVIRONMENT.update(GO_ON if how == signal.SIGKILL and not by_mpirun else {})
    code, output = run([*SAVING, *RANKS, "--out", str(out)], nth_line("epoch "), mpirun(3), lose, out / "adam.csv")
    for variable in GO_ON:
        ENVIRONMENT.pop(variable, None)
    check("epoch 3/" not in output, f"{what}: the run went on:\n{output}")
    if by_mpirun:
        check(code != 0 and re.search(rf"rank {lost}\b.*signal 9", output, re.DOTALL), f"{what}, {code}:\n{output}")
    else:
        for rank in {0, 1, 2} - {lost}:
            said = re.search(rf"^cifar10: rank {rank}: (.*)$", output, re.MULTILINE)
            check(said is not None, f"{what}: no word of rank {rank}:\n{output}")
            check(f"no message from rank {lost} for " in said[1], f"{what}: {said[1]}")
    goes_on(folder, out, what)


def loses_rank_0_while_it_saves(folder: pathlib.Path) -> None:
    """Kills it when it has written a part of a checkpoint beside the last one; mpirun ends the others; then goes on with two."""
    out = folder / "killed while it saves"
    code, output = run([*SAVING, "--out", str(out)], nth_line("epoch "), gate=out / "adam.csv")
    check(code == 130 and (out / "adam.pt").is_file(), f"the first run ended with {code}:\n{output}")
    written = b""

    def kill(process: subprocess.Popen) -> None:
        nonlocal written
        with (out / "adam.pt.tmp").open("rb") as reader:
            written = reader.read(1000)  # comes when it is written; of the rest a pipe does not hold all
            os.kill(rank_process(process, 0), signal.SIGKILL)
            process.wait()

    code, output = run(
        [*SAVING, *RANKS, "--out", str(out), "--resume", str(out / "adam.pt")], nth_line("epoch 2/"), mpirun(3), kill, out / "adam.pt"
    )
    check(code != 0 and re.search(r"rank 0\b.*signal 9", output, re.DOTALL), f"killed while it saves, {code}:\n{output}")
    check("epoch 3/" not in output, f"the run went on:\n{output}")
    (out / "adam.pt.tmp").write_bytes(written)  # what a file would hold
    goes_on(folder, out, "rank 0 killed while it saves")


def goes_on(folder: pathlib.Path, out: pathlib.Path, what: str) -> None:
    """From a checkpoint that a lost rank has left, on two ranks, to where an undisturbed run comes."""
    check((out / "adam.pt").is_file(), f"{what}: there is no checkpoint")
    code, output = run([*SAVING, *RANKS, "--out", str(out), "--resume", str(out / "adam.pt")], launcher=mpirun(2))
    check(code == 0, f"{what}: the resumed run ended with {code}:\n{output}")
    check_same_run(folder / "undisturbed", out, "adam", what)
    print(f"{what}: resumed on two ranks")


def names_other_flags(folder: pathlib.Path) -> None:
    job = [*JOB, *RANKS, "--epochs", "3", "--out", str(folder / "flags")]
    for more, difference in (
        (["--lr", "0.5"], "expected 'lr 0', got 'lr 0.5'"),
        (["--compare"], "expected 'compare off', got 'compare on'"),
    ):
        code, output = run([*job, ":", "-n", "1", PROGRAM, *job, *more, ":", "-n", "1", PROGRAM, *job], launcher=mpirun(1))
        check(code != 0, f"{more} on rank 1 ended with {code}:\n{output}")
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
    out = folder / "taken"
    (out / "adam.csv").mkdir(parents=True)  # where the file should go
    code, output = run([*JOB, *RANKS, "--epochs", "3", "--out", str(out)], launcher=mpirun(2))
    reason = re.search(r"^cifar10: rank 0: (.*adam.csv: \d+ bytes could not be written: .*)$", output, re.MULTILINE)
    check(code != 0 and reason is not None, f"a file that cannot be written, {code}:\n{output}")
    check(re.search(rf"^cifar10: rank 1: .*rank 0 failed: {re.escape(reason[1])}", output, re.MULTILINE), output)


def full_disk(folder: pathlib.Path) -> list[str]:
    """Runs what follows with `folder` on a disk of its own that 400 KiB fill: less than a checkpoint takes, more than other files do."""
    mounts = 'mount -t tmpfs -o size=400k none "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mounts, str(folder)]


def trains_while_a_disk_is_full(folder: pathlib.Path) -> None:
    """That of rank 1, which writes nothing, is not missed; that of rank 0 is named by all."""
    out = folder / "full disk of rank 1"
    out.mkdir()
    if subprocess.run([*full_disk(out), "true"], capture_output=True).returncode != 0:
        print("full disks are skipped: they take root, and unshare")
        return
    job = [*SAVING, *RANKS, "--out", str(out)]
    filled = [*full_disk(out), "sh", "-c", 'head -c 1000000 /dev/zero > "$0/full"; exec "$@"', str(out)]
    code, output = run([*job, ":", "-n", "1", *filled, PROGRAM, *job], launcher=mpirun(1))
    check(code == 0, f"a full disk of rank 1, {code}:\n{output}")
    check_same_run(folder / "undisturbed", out, "adam", "a full disk of rank 1")
    code, output = run([*job, ":", "-n", "1", PROGRAM, *job], launcher=[*mpirun(1), *full_disk(out)])
    reason = re.search(r"^cifar10: rank 0: (.*adam.pt: \d+ bytes could not be written: No space left on device.*)$", output, re.MULTILINE)
    check(code != 0 and reason is not None, f"a full disk of rank 0, {code}:\n{output}")
    check(re.search(rf"^cifar10: rank 1: .*rank 0 failed: {re.escape(reason[1])}", output, re.MULTILINE), output)


def refuses_a_folder_that_another_run_has(folder: pathlib.Path) -> None:
    out = folder / "locked"
    out.mkdir()
    with (out / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("process 77 on elsewhere", end="", file=lock, flush=True)
        code, output = run([*JOB, *RANKS, "--epochs", "3", "--out", str(out)], launcher=mpirun(2))
    reason = f"--out {out}: another run has this folder: process 77 on elsewhere"
    check(code != 0 and f"rank 0: {reason}" in output, f"a folder that another run has, {code}:\n{output}")
    check(f"rank 0 failed: {reason}" in output, output)


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    trains_as_one_process(folder)
    draws_one_bar_on_a_terminal(folder)
    stops_after_the_same_step_and_goes_on(folder)
    stops_on_signals_to_mpirun(folder)
    names_other_flags(folder)
    names_the_rank_that_cannot_write(folder)
    refuses_a_folder_that_another_run_has(folder)
    code, output = run([*SAVING, "--out", str(folder / "undisturbed")])
    check(code == 0, f"the plain run ended with {code}:\n{output}")
    trains_while_a_disk_is_full(folder)
    loses_a_rank(folder, lost=1, how=signal.SIGKILL, by_mpirun=False)
    loses_a_rank(folder, lost=1, how=signal.SIGKILL, by_mpirun=True)
    loses_rank_0_while_it_saves(folder)
