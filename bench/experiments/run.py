#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains what the questions of bench/experiments/questions ask for, and adds one line of JSON for each finished run
to bench/experiments/results.

    bench/experiments/run.py --build build/train --work /tmp/lawn --root fashion-mnist=DIR --root cifar10=DIR
    bench/experiments/run.py --build build/train --work /tmp/lawn ... --size gpu --jobs 1 optimizers batch_size
    bench/experiments/run.py --build build/train --work /tmp/lawn --root text=FILE language
    bench/experiments/run.py --list                                     what is there, done and still to do

A run that has a line is not done again, whichever question asked for it. Ctrl-C (or SIGTERM, or the end of
--budget-seconds) stops the programs at a checkpoint; the same command goes on from there. A run that fails is
recorded as failed, with its last words, and does not stop the others; --retry does it again.
"""
import argparse
import fcntl
import importlib
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time

from experiment import Cell, Run, load_records
from questions.companions import COMPANIONS
from questions.continual import CONTINUAL

HERE = pathlib.Path(__file__).resolve().parent
# The cheapest first.
QUESTIONS = (
    *("optimizers", "free_steps", "ablations", "batch_size", "recommender", "networks"),
    *("language", "language_larger", "large_batches"),
    *("label_noise", "label_noise_vgg", "label_noise_networks", "label_noise_once", "free_end"),
)
ALL = (*QUESTIONS, *COMPANIONS, *CONTINUAL)
HISTORY_ROWS = 40  # of a run that are kept: results stay small enough to be committed
SHOWN = ("test_accuracy", "hit_rate", "test_loss", "train_accuracy", "train_logit_norm", "train_logit", "norm_growth", "score")
TEXT = "text"  # the data of `language`
STOPPED = 130  # what a program returns that was interrupted and has saved a checkpoint
TAKEN = ": another run has this folder: "  # of what a program says that was refused its folder


def cells_of(question: str, size: str) -> list[Cell]:
    return importlib.import_module(f"questions.{question}").cells(size)


def data_of(cell: Cell) -> str:
    """The name by which --root gives it. Without a file, `language` would train on a generated text."""
    return TEXT if cell.program == "language" else dict(cell.flags)["data"]


def thinned(history: dict[str, list]) -> dict[str, list]:
    """At most HISTORY_ROWS rows, the first and the last among them, to five digits; without the norm of each layer."""
    rows = len(next(iter(history.values()), []))
    kept = list(range(rows))
    if rows > HISTORY_ROWS:
        kept = [round(place * (rows - 1) / (HISTORY_ROWS - 1)) for place in range(HISTORY_ROWS)]
    dropped = ("norm:", "seconds", "images_per_second", "samples_per_second", "windows_per_second")
    return {
        name: [None if column[row] is None else float(f"{column[row]:.5g}") for row in kept]
        for name, column in history.items()
        if not name.startswith(dropped)
    }


def machine() -> str:
    """The model of the processor, as far as the system says."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def gpu() -> str:
    """The first GPU's name, or nothing."""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit() -> str:
    """The revision of the sources, marked where what is compiled differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        root = git("rev-parse", "--show-toplevel").strip()
        changed = git("status", "--porcelain", "--untracked-files=no", "--", f"{root}/include", f"{root}/examples")
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+changes" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def first_file(folder: pathlib.Path, ending: str) -> pathlib.Path | None:
    found = sorted(folder.glob(f"*{ending}"))
    return found[0] if found else None


def joined(records: list[dict], parts: tuple[str, ...]) -> dict:
    """One record of those of a program's parts: its figures are named "part/figure", and there is no history."""
    figures = {f"{part}/{name}": v for part, record in zip(parts, records) for name, v in record["figures"].items()}
    return {**records[0], "seconds": sum(record["seconds"] for record in records), "figures": figures, "history": {}}


class Job:
    """A program at work on one run."""

    def __init__(self, question: str, cell: Cell, run: Run, options: argparse.Namespace, seconds_left: float | None):
        self.question, self.cell, self.run = question, cell, run
        self.folder = options.work / f"{run.key}-{options.device}-{options.threads}"
        self.folder.mkdir(parents=True, exist_ok=True)
        program = options.build / "examples" / "apps" / run.program / run.program
        command = [str(program), *run.arguments(), f"--out={self.folder}", f"--device={options.device}"]
        command += [f"--threads={options.threads}"] if options.threads else []
        data = data_of(cell)
        command += [f"--{'text' if data == TEXT else 'root'}={options.roots[data]}"]
        command += [f"--stop-after={max(1.0, seconds_left):.0f}"] if seconds_left is not None else []
        checkpoint = first_file(self.folder, ".pt")
        command += [f"--resume={self.folder if cell.parts else checkpoint}"] if checkpoint else []
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        if options.threads:
            environment["OMP_NUM_THREADS"] = str(options.threads)
        with open(self.folder / "output.txt", "w", encoding="utf-8") as output:
            # A group of its own: Ctrl-C comes to it from here alone, once.
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def last_words(self) -> str:
        lines = (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(lines[-3:]).replace(str(self.folder), "OUT")[-500:]

    def line(self, options: argparse.Namespace) -> dict:
        """What is recorded of the ended run."""
        run = self.run
        line = {
            "key": run.key,
            "question": self.question,
            "cell": self.cell.name,
            "stage": run.stage,
            "program": run.program,
            "flags": dict(run.flags),
            "command": " ".join([run.program, *run.arguments()]),
            "commit": options.commit,
            "machine": options.machine,
        }
        parts = self.cell.parts
        paths = [self.folder / f"{part}.json" for part in parts] or sorted(self.folder.glob("*.json"))[:1]
        if self.process.returncode != 0 or not paths or not all(path.exists() for path in paths):
            line["error"] = f"ended with {self.process.returncode}: {self.last_words()}"
            for root in options.roots.values():
                line["error"] = line["error"].replace(root, "DIR")
            return line
        records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        written = joined(records, parts) if parts else records[0]
        if written["device"].startswith("cuda"):
            line["machine"] = options.gpu
        line.update({name: written[name] for name in ("lawn", "torch", "device", "threads", "seconds", "figures")})
        if run.stage == "final" and written["history"]:
            line["history"] = thinned(written["history"])
        return line


class Runner:
    """Does the runs of a list of cells, cell by cell, several at a time."""

    def __init__(self, cells: list[tuple[str, Cell]], options: argparse.Namespace):
        self.cells, self.options = cells, options
        self.records = load_records(options.results)
        if options.retry:
            self.records = {key: record for key, record in self.records.items() if "error" not in record}
        self.jobs: list[Job] = []
        self.taken: set[str] = set()  # runs whose folders other processes have
        self.signals = self.passed_on = 0  # to this program, and of them to the jobs
        self.deadline = time.monotonic() + options.budget_seconds if options.budget_seconds else None

    def runnable(self, cell: Cell) -> list[Run]:
        """What can be done for a cell now: its select runs; once all are done, its final ones as they chose."""
        if not cell.selected(self.records):
            runs = cell.select_runs()
        else:
            trial = cell.chosen(self.records)
            runs = [] if trial is None else cell.final_runs(*trial)
        busy = {job.run.key for job in self.jobs} | self.taken
        return [run for run in runs if run.key not in self.records and run.key not in busy]

    def next(self) -> tuple[str, Cell, Run] | None:
        for question, cell in self.cells:
            for run in self.runnable(cell):
                return question, cell, run
        return None

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    def start(self) -> None:
        while len(self.jobs) < self.options.jobs and not self.stopping:
            left = self.seconds_left()
            found = self.next()
            if found is None or (left is not None and left <= 0):
                return
            self.jobs.append(Job(*found, self.options, left))

    def collect(self) -> None:
        for job in [job for job in self.jobs if job.process.poll() is not None]:
            self.jobs.remove(job)
            if job.process.returncode != 0 and TAKEN in job.last_words():
                print(f"{job.cell.name}, {job.run.stage}: {job.last_words()}", flush=True)
                self.taken.add(job.run.key)  # by the program of a run.py that was killed: the run is its own
                continue
            if job.process.returncode == STOPPED:
                print(f"{job.cell.name}, {job.run.stage}: stopped at a checkpoint", flush=True)
                continue
            if job.process.returncode < 0 and self.stopping:
                continue  # killed with this program: it is done again next time
            self.keep(job, job.line(self.options))

    def keep(self, job: Job, line: dict) -> None:
        path = self.options.results / f"{self.options.size}-{job.question}.jsonl"
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.records[job.run.key] = line
        shutil.rmtree(job.folder, ignore_errors=True)
        tried = [name for name, _ in job.cell.extras[0]]
        trial = (float(job.run.flag("lr")), tuple((name, job.run.flag(name)) for name in tried))
        what = f"{job.question}: {job.cell.name}, {job.run.stage}, {written(trial)}, seed {job.run.flag('seed')}"
        if "error" in line:
            print(f"{what}: FAILED: {line['error']}", flush=True)
        else:
            shown = {name: round(value, 4) for name, value in line["figures"].items() if value is not None}
            shown = {name: value for name, value in shown.items() if name.split("/")[-1] in SHOWN}
            print(f"{what}: {line['seconds']:.0f} s, {shown}", flush=True)

    @property
    def stopping(self) -> bool:
        return self.signals > 0

    def stop(self, *_: object) -> None:
        self.signals += 1  # and no more: a job may just be starting, and not be in the list yet

    def run(self) -> bool:
        """Whether nothing is left to do."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self.stop)
        self.start()
        while self.jobs:
            while self.passed_on < self.signals:
                self.passed_on += 1
                for job in self.jobs:
                    job.stop()
            time.sleep(0.1)
            self.collect()
            self.start()
        return self.next() is None and not self.taken


def written(trial: tuple[float, tuple[tuple[str, str], ...]] | None) -> str:
    """ "lr 0.001, weight-decay 0.1"."""
    if trial is None:
        return "lr ?"
    return ", ".join(f"{name} {value}" for name, value in (("lr", f"{trial[0]:g}"), *trial[1]))


def print_list(cells: list[tuple[str, Cell]], records: dict[str, dict]) -> None:
    """One line for each cell: how many of its runs are done."""
    for question, cell in cells:
        select = [records.get(run.key) for run in cell.select_runs()]
        failed = sum(record is not None and "error" in record for record in select)
        print(
            f"{question:12} {cell.name:50} select {sum(r is not None for r in select)}/{len(select)}"
            + (f" ({failed} failed)" if failed else "")
            + f", {written(cell.chosen(records))}, final {len(cell.finals(records))}/{len(cell.seeds)}"
        )


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=ALL, help=f"of {', '.join(ALL)} [all]")
    parser.add_argument("--size", choices=("cpu", "gpu"), default="cpu", help="hours of two cores, or days of a GPU")
    parser.add_argument("--build", type=pathlib.Path, help="build folder with examples/apps/cifar10/cifar10 and so on")
    parser.add_argument("--work", type=pathlib.Path, help="folder for checkpoints and output of runs at work")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results", help="folder of the .jsonl files")
    where = "where a data set's files are, and text=FILE for language; repeatable"
    parser.add_argument("--root", action="append", default=[], metavar="DATA=DIR", help=where)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side [one for each core]")
    parser.add_argument("--threads", type=int, default=1, help="of each run; 0 leaves it to torch [1]")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="[cpu for --size cpu, cuda for gpu]")
    parser.add_argument("--budget-seconds", type=float, help="stop after that time, at checkpoints")
    parser.add_argument("--commit", help="revision that the programs were built from [that of this folder]")
    parser.add_argument("--retry", action="store_true", help="do runs again that failed")
    parser.add_argument("--list", action="store_true", help="print what there is to do, and stop")
    options = parser.parse_args(arguments)
    unknown = set(options.questions) - set(ALL)
    if unknown:
        parser.error(f"no question {', '.join(sorted(unknown))}; expected one of {', '.join(ALL)}")
    if not options.list and not (options.build and options.work):
        parser.error("expected --build and --work: the folder of the programs and one for runs at work")
    wrong = [text for text in options.root if "=" not in text]
    if wrong:
        parser.error(f"--root {wrong[0]}: expected DATA=DIR, as in fashion-mnist=/data/fashion-mnist")
    options.roots = dict(text.split("=", 1) for text in options.root)
    absent = [root for root in options.roots.values() if not os.path.exists(root)]
    if absent:
        parser.error(f"--root: there is no {absent[0]}")
    options.device = options.device or ("cpu" if options.size == "cpu" else "cuda")
    return options


def with_data(cells: list[tuple[str, Cell]], options: argparse.Namespace) -> list[tuple[str, Cell]]:
    """The cells whose data has a root; ends the program if questions that were asked for by name have others."""
    lacking = {}  # questions by the data whose root was not given
    for question, cell in cells:
        if data_of(cell) not in options.roots:
            lacking.setdefault(data_of(cell), {})[question] = None
    for data, questions in lacking.items():
        root = f"--root {data}={'FILE' if data == TEXT else 'DIR'}"
        if options.questions != ALL:
            sys.exit(f"run.py: {', '.join(questions)}: expected {root}, or the names of other questions")
        print(f"left out, since no {root} was given: what is trained on it of {', '.join(questions)}", flush=True)
    return [(question, cell) for question, cell in cells if data_of(cell) in options.roots]


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    cells = [(question, cell) for question in options.questions for cell in cells_of(question, options.size)]
    options.results.mkdir(parents=True, exist_ok=True)
    if options.list:
        print_list(cells, load_records(options.results))
        return 0
    cells = with_data(cells, options)
    options.commit = options.commit or commit()
    options.machine, options.gpu = machine(), gpu()
    options.work.mkdir(parents=True, exist_ok=True)
    with open(options.work / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"run.py: another run.py is at work in {options.work}; stop it, or answer other questions in another --work")
        done = Runner(cells, options).run()
    print("all done" if done else "stopped; the same command goes on from here", flush=True)
    return 0 if done else STOPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
