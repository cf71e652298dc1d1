# SPDX-License-Identifier: Apache-2.0
"""What the tests of the training programs share: running the program that the command line names, interrupting it, and
reading what it leaves."""
import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Callable

PROGRAM = sys.argv[1]
NAME = pathlib.Path(PROGRAM).name
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TIMES = {"seconds", "images_per_second", "samples_per_second", "windows_per_second", "optimizer_seconds_per_step"}


def check(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"FAILED: {what}")


def nth_line(beginning: str, count: int = 1) -> Callable[[str], bool]:
    """Tells the `count`th line that begins so when it comes."""
    seen = 0

    def is_it(line: str) -> bool:
        nonlocal seen
        seen += line.startswith(beginning)
        return seen == count

    return is_it


def interrupt(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)


class Gate:
    """Holds a program that writes a file until the gate opens: the file's temporary is a pipe, which cannot be opened for
    writing, nor filled, until somebody reads. So a test acts while the program waits, however fast either of them is."""

    def __init__(self, file: pathlib.Path) -> None:
        self.path = file.with_name(file.name + ".tmp")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(self.path)
        self.reader = -1

    def open(self) -> None:
        if self.reader < 0:
            self.reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def remove(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
        if self.path.exists():  # the program has not come so far, or not further
            self.path.unlink()


def run(
    arguments: list[str],
    stop: Callable[[str], bool] | None = None,
    launcher: list[str] | None = None,
    how: Callable[[subprocess.Popen], None] = interrupt,
    gate: pathlib.Path | None = None,
) -> tuple[int, str]:
    """Runs the program, under mpirun if that is the launcher; at the first line of its output that `stop` holds for, does to
    it as `how` says. Until then the program can write no file `gate`: not go beyond an epoch whose figures are to go there.
    Returns its exit status and output."""
    held = Gate(gate) if gate else None
    process = subprocess.Popen(
        [*(launcher or []), PROGRAM, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT,
    )
    output = ""
    for line in process.stdout:
        output += line
        if stop and stop(line):
            how(process)
            stop = None
            if held:
                held.open()
    code = process.wait()
    if held:
        held.remove()
    check(stop is None, f"the line at which to stop did not come:\n{output}")
    return code, output


def history(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a run's CSV file without the times."""
    with path.open(newline="") as file:
        return [{name: text for name, text in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def record(path: pathlib.Path) -> dict:
    """A run's record without the times."""
    content = json.loads(path.read_text())
    for part in (content, content["figures"], content["history"]):
        for name in TIMES & part.keys():
            del part[name]
    return content
