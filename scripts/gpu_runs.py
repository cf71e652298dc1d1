# SPDX-License-Identifier: Apache-2.0
"""What scripts/gpu.py is made of: running a program within a time limit, wording what came of it, keeping that in a file."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

SKIPPED = 77  # what a test program returns of which everything was skipped
STOPPED = 130  # what a training program returns that has saved a checkpoint, to go on from
GRACE = 20  # seconds between asking a program to end and making it
LAST_LINES = 30  # of a program that has failed, which are shown


class Ended:
    """What became of a program: `status` is its exit status, or None where it was stopped at its limit."""

    def __init__(self, status, output, seconds):
        self.status, self.output, self.seconds = status, output, seconds


def end_group(process):
    """Ends a program with all that it has started; bench/experiments/run.py takes a while to save checkpoints."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


class Runner:
    """Runs programs, each within a limit; with `dry` it prints their commands alone. Several threads may share one.

    logs  the folder that all output goes to, as it comes: one file for each row
    """

    def __init__(self, logs, dry=False):
        self.logs, self.dry = pathlib.Path(logs), dry
        self.running, self.stopped = set(), False

    def run(self, name, command, limit, environment=None):
        """Returns an Ended; None with `dry`, and of what stop() has ended."""
        words = [str(word) for word in command]
        print("$ " + shlex.join([*(f"{key}={value}" for key, value in (environment or {}).items()), "timeout", f"{limit:g}", *words]),
              flush=True)
        if self.dry:
            return None
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / (name.replace(" ", "-").replace("/", "-") + ".txt")
        start = time.monotonic()
        with open(path, "wb") as output:
            try:
                # A group of its own, so that nothing which it has started outlives it.
                process = subprocess.Popen(words, env={**os.environ, **(environment or {})},
                                           stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                           start_new_session=True)
                self.running.add(process)
                if self.stopped:  # stop() has not seen this one
                    end_group(process)
            except OSError as error:
                output.write(f"{error}\n".encode())
                process = None
            status = 127 if process is None else self.wait(process, limit)
        if self.stopped:
            return None
        text = path.read_text(encoding="utf-8", errors="replace")
        return Ended(status, text, time.monotonic() - start)

    def stop(self):
        """Ends what other threads are running; nothing is said of it."""
        self.stopped = True
        for process in list(self.running):
            end_group(process)

    def wait(self, process, limit):
        """Its exit status, or None where it had to be stopped."""
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:  # also on Ctrl-C or SIGTERM, and of one that has ended what it has left running
            end_group(process)
            self.running.discard(process)


def judge(ended, limit):
    """The result of a test program, or of any other, in words that begin with passed, skipped or failed."""
    over = set(re.findall(r"\[(?:       OK|  FAILED |  SKIPPED) \] (\S+?),? ", ended.output))
    running = [name for name in re.findall(r"\[ RUN      \] (\S+)", ended.output) if name not in over][-1:]
    failed = re.findall(r"\[  FAILED  \] ([^\s,]+\.[^\s,]+)", ended.output)
    where = "".join(f" in {name}" for name in list(dict.fromkeys(failed))[:3] or running)
    if ended.status is None:
        return f"failed: stopped after {limit:g} s{where}"
    if ended.status == SKIPPED or (ended.status == 0 and "[  PASSED  ] 0 tests" in ended.output):
        reason = re.search(r"Skipped\n(.*)", ended.output)
        return "skipped" + (f": {reason[1]}" if reason else "")
    if ended.status != 0 or failed:
        return f"failed ({ended.status}){where}"
    skipped = re.search(r"\[  SKIPPED \] (\d+) test", ended.output)
    return "passed" + (f", {skipped[1]} skipped" if skipped else "")


def judge_sanitizer(ended, limit):
    if "[==========] Running 0 tests" in ended.output:
        return "passed, it has no test for this tool"
    result = judge(ended, limit)  # the tool's status need not tell how the tests went
    summary = re.findall(r"=+ ((?:ERROR|RACECHECK) SUMMARY: .*)", ended.output)
    if ended.status == 0 and not summary:
        return "failed: the tool has printed no summary"
    return result + (f", {summary[-1].lower()}" if summary else "")


def judge_evidence(ended, limit):
    """The result of bench/experiments/run.py, which records a failed run as such and goes on."""
    if ended.status == STOPPED:
        return "not all done yet: the same command goes on"
    failures = ended.output.count("FAILED: ")
    return f"failed: {failures} runs" if failures else judge(ended, limit)


class Records:
    """The rows, one line of JSON each, in a file that is only ever added to."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.rows = {}
        self.lock = threading.Lock()  # of the file and of what is printed
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # half a line: its writer was killed
                self.rows[row["row"]] = row

    def add(self, name, result, seconds=0.0, output="", **more):
        """Keeps and prints a row. Of a result that is not "passed" the end of the output is shown."""
        row = {"row": name, "result": result, "seconds": round(seconds, 1), **more}
        with self.lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = not self.path.exists() or not self.path.stat().st_size or self.path.read_bytes().endswith(b"\n")
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(("" if whole else "\n") + json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.rows[name] = row
            if not result.startswith("passed") and output:
                print("\n".join(output.splitlines()[-LAST_LINES:]))
            print(f"{name}: {result} ({seconds:.1f} s)", flush=True)

    def print_table(self):
        """The table of all that is in the file."""
        rows = Records(self.path).rows.values()
        width = max([len(row["row"]) for row in rows] + [4])
        print(f"\n{'what':{width}}  {'seconds':>8}  result")
        for row in rows:
            print(f"{row['row']:{width}}  {row['seconds']:8.1f}  {row['result']}")
        sys.stdout.flush()
