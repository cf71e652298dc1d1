#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a training program makes of a folder that another run has, that cannot be written to, that holds a checkpoint, or in which
files must stay small, and of a terminal that is gone.

    output_folder_test.py PATH_OF_CIFAR10
"""
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from programs import ENVIRONMENT, PROGRAM, check, nth_line, run  # noqa: E402

JOB = ["--network", "mlp", "--train-size", "40", "--test-size", "20", "--probe-size", "20", "--batch-size", "10", "--threads", "1"]
ENDLESS = [*JOB, "--epochs", "1000000"]  # it does not end first


def files(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuses_a_second_run_and_saves_on_a_hangup(out: pathlib.Path) -> None:
    def try_another(first: subprocess.Popen) -> None:
        second = subprocess.run(
            [PROGRAM, *JOB, "--lawn", "--out", str(out)], capture_output=True, text=True, env=ENVIRONMENT, check=False
        )
        check(second.returncode == 1 and not second.stdout, f"the second run ended with {second.returncode}:\n{second.stdout}")
        said = f"cifar10: --out {out}: another run has this folder: process {first.pid} on "
        check(second.stderr.startswith(said), f"the second run says {second.stderr}")
        first.send_signal(signal.SIGHUP)

    code, output = run([*ENDLESS, "--out", str(out)], nth_line("epoch "), how=try_another)
    check(code == 130, f"after SIGHUP the run ended with {code}:\n{output}")
    check(re.search(r"^stopped after \d+ steps of adam; saved to \S+$", output, re.MULTILINE), f"no word on saving:\n{output}")
    check(files(out) == ["adam.csv", "adam.pt"], f"the first run left {files(out)}")


def saves_also_when_nobody_reads_its_output(out: pathlib.Path) -> None:
    """As when the terminal's end takes `tee` along, too."""
    process = subprocess.Popen(
        [PROGRAM, *ENDLESS, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    )
    while not process.stdout.readline().startswith("epoch "):
        check(process.poll() is None, "the run ended before its first epoch")
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGHUP)  # which it finds before it writes again
    process.stdout.close()
    process.send_signal(signal.SIGCONT)
    check(process.wait() == 130, f"with its output closed the run ended with {process.returncode}")
    check(files(out) == ["adam.csv", "adam.pt"], f"the run left {files(out)}")


def leaves_a_hangup_ignored_as_nohup_has_it(out: pathlib.Path) -> None:
    def look(process: subprocess.Popen) -> None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        ignored = int(re.search(r"^SigIgn:\s*(\w+)$", status, re.MULTILINE)[1], 16)
        check(ignored >> (signal.SIGHUP - 1) & 1 == 1, f"SIGHUP is not ignored:\n{status}")
        process.send_signal(signal.SIGINT)

    code, output = run([*ENDLESS, "--out", str(out)], nth_line("epoch "), launcher=["nohup"], how=look)
    check(code == 130, f"under nohup the run ended with {code}:\n{output}")


def names_the_limit_of_a_files_size(out: pathlib.Path) -> None:
    limited = ["sh", "-c", 'ulimit -f 16 && exec "$0" "$@"']  # 8 or 16 KiB
    code, output = run([*JOB, "--epochs", "1", "--out", str(out)], launcher=limited)
    check(code == 1, f"with a limit the run ended with {code}:\n{output}")
    check(re.search(r"adam\.pt: \d+ bytes could not be written: File too large", output), f"no word of the limit:\n{output}")
    check(files(out) == ["adam.csv"], f"the limited run left {files(out)}")


def finds_before_training_that_it_cannot_write(folder: pathlib.Path) -> None:
    (folder / "taken" / "run.lock").mkdir(parents=True)
    (folder / "file").write_text("x")
    for out, why in (
        (folder / "taken", "cannot be written to: Is a directory"),
        (folder / "file" / "out", "the folder cannot be made: Not a directory"),
    ):
        code, output = run([*JOB, "--epochs", "1", "--out", str(out)])
        check(code == 1 and output.startswith(f"cifar10: --out {out}: {why}"), f"it ended with {code}:\n{output}")


def says_that_it_replaces_a_checkpoint(out: pathlib.Path) -> None:
    first = [*JOB, "--epochs", "1", "--out", str(out)]
    said = "of an earlier run will be replaced: this one starts anew; to go on from it, stop and give --resume"
    code, output = run(first)
    check(code == 0 and said not in output, f"a run in a new folder ended with {code}:\n{output}")
    code, output = run([*first, "--resume", str(out / "adam.pt")])
    check(code == 0 and said not in output, f"a run that goes on ended with {code}:\n{output}")
    code, output = run(first)
    check(code == 0 and f"{out}/adam.pt {said} '{out}/adam.pt'\n" in output, f"a run that starts anew ended with {code}:\n{output}")
    code, output = run([*first, "--compare"])
    check(code == 0 and output.count(f"{said} '{out}'\n") == 1, f"two that start anew ended with {code}:\n{output}")


with tempfile.TemporaryDirectory() as name:
    work = pathlib.Path(name)
    refuses_a_second_run_and_saves_on_a_hangup(work / "two")
    saves_also_when_nobody_reads_its_output(work / "closed")
    leaves_a_hangup_ignored_as_nohup_has_it(work / "nohup")
    names_the_limit_of_a_files_size(work / "limited")
    says_that_it_replaces_a_checkpoint(work / "with a space")
    finds_before_training_that_it_cannot_write(work)
