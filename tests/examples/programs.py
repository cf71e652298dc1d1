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
import time
from typing import Callable

PROGRAM = sys.argv[1]
NAME = pathlib.Path(PROGRAM).name
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TIMES = {"seconds", "images_per_second", "samples_per_second", "optimizer_seconds_per_step"}


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


def run(
    arguments: list[str],
    stop: Callable[[str], bool] | None = None,
    delay: float = 0,
    launcher: list[str] | None = None,
    how: Callable[[subprocess.Popen], None] = interrupt,
) -> tuple[int, str]:
    """Runs the program, under mpirun if that is the launcher; stops it `delay` seconds after the first line of its output
    that `stop` holds for, as `how` says: any moment must do. Returns its exit status and output."""
    process = subprocess.Popen(
        [*(launcher or []), PROGRAM, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT,
    )
    output = ""
    for line in process.stdout:
        output += line
        if stop and stop(line):
            time.sleep(delay)
            how(process)
            stop = None
    code = process.wait()
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
