# SPDX-License-Identifier: Apache-2.0
"""What an experiment is made of: cells of a table, the runs that each needs, and the trial that a cell chose.

A cell is a method on a problem ("adam with LAWN, batches of 50"). It is trained in two stages:

    select   one run for each of its trials, measured on a held-out part of the training data
    final    with what was best there, one run for each seed, measured on the test data

A trial is a learning rate, and with it what else a cell is given to choose from: a weight decay, say. Every cell of a
question has the same number of trials; one that is given a single one has nothing to select. A run is known by the hash of
its program and flags: a run that two questions ask for is done once.
"""
import dataclasses
import hashlib
import json
import math
import pathlib

SELECTION_SEED = 1000  # of the select runs; none of the final ones


@dataclasses.dataclass(frozen=True)
class Metric:
    """The figure by which a program's select runs are compared: more is better; ties go to the smaller loss."""

    score: str
    loss: str


ACCURACY = Metric("test_accuracy", "test_loss")
METRICS = {
    "cifar10": ACCURACY,
    "recommender": Metric("hit_rate", "test_loss"),
    "mimicnorm": ACCURACY,
    "language": Metric("test_chance", "test_loss"),
    "continual": Metric("score", "online_loss"),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of a program."""

    program: str
    stage: str  # "select" or "final"
    flags: tuple[tuple[str, str], ...]  # without dashes; a switch has the value "on"

    @property
    def key(self) -> str:
        text = json.dumps([self.program, sorted(self.flags)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def flag(self, name: str) -> str:
        return dict(self.flags)[name]

    def arguments(self) -> list[str]:
        return [f"--{name}={value}" for name, value in self.flags]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A method on a problem: one row of a table."""

    labels: tuple[tuple[str, str], ...]  # what the row is called, by column: (("optimizer", "adam"), ("LAWN", "no"))
    program: str
    flags: tuple[tuple[str, str], ...]  # of all its runs, without lr, seed, validation and what the trials differ in
    rates: tuple[float, ...]
    validation: tuple[tuple[str, str], ...]  # flags of select runs, in place of the cell's: what is held out
    seeds: tuple[int, ...] = (0, 1, 2)
    parts: tuple[str, ...] = ()  # of a program that trains several networks in turn: a row and a record for each
    extras: tuple[tuple[tuple[str, str], ...], ...] = ((),)  # flags, each of which is tried with each rate

    @property
    def name(self) -> str:
        unnamed = ("optimizer", "network", "method")
        return ", ".join(v if name in unnamed else f"{name} {v}" for name, v in self.labels) or self.program

    @property
    def trials(self) -> list[tuple[float, tuple[tuple[str, str], ...]]]:
        """Each a rate, and the flags that are tried with it."""
        return [(rate, extra) for rate in self.rates for extra in self.extras]

    def select_runs(self) -> list[Run]:
        if len(self.trials) == 1:
            return []
        return [self._run("select", rate, SELECTION_SEED, (*extra, *self.validation)) for rate, extra in self.trials]

    def final_runs(self, rate: float, extra: tuple[tuple[str, str], ...] = ()) -> list[Run]:
        return [self._run("final", rate, seed, extra) for seed in self.seeds]

    def _run(self, stage: str, rate: float, seed: int, more: tuple[tuple[str, str], ...]) -> Run:
        flags = dict((*self.flags, ("lr", f"{rate:g}"), ("seed", str(seed)), *more))
        return Run(self.program, stage, tuple(flags.items()))

    def choose(self, records: dict[str, dict]) -> float | None:
        """The rate of chosen()."""
        trial = self.chosen(records)
        return None if trial is None else trial[0]

    def chosen(self, records: dict[str, dict]) -> tuple[float, tuple[tuple[str, str], ...]] | None:
        """The trial whose select run did best, None while one of them is missing or if all failed.

        Only select runs are looked at, and these never see the test data: with --validation a program calls "test"
        what it measures on the part that it held out of the training data.
        """
        if len(self.trials) == 1:
            return self.trials[0]
        metric = METRICS[self.program]
        best = None
        for trial, run in zip(self.trials, self.select_runs()):
            record = records.get(run.key)
            if record is None:
                return None
            if "error" in record:
                continue
            score, loss = (record["figures"].get(name) for name in (metric.score, metric.loss))
            rank = (-math.inf if score is None else score, -math.inf if loss is None else -loss, -trial[0])
            if best is None or rank > best[0]:
                best = (rank, trial)
        return None if best is None else best[1]

    def selected(self, records: dict[str, dict]) -> bool:
        """Whether all select runs are done, well or not."""
        return all(run.key in records for run in self.select_runs())

    def finals(self, records: dict[str, dict]) -> list[dict]:
        """The records of the final runs at the chosen rate that are there and did not fail."""
        trial = self.chosen(records)
        if trial is None:
            return []
        found = (records.get(run.key) for run in self.final_runs(*trial))
        return [record for record in found if record is not None and "error" not in record]


def flags(**values: object) -> tuple[tuple[str, str], ...]:
    """`flags(batch_size=50, lawn=True)` as a Run holds them; switches that are off are left out."""
    pairs = []
    for name, value in values.items():
        if value is False:
            continue
        text = "on" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
        pairs.append((name.replace("_", "-"), text))
    return tuple(pairs)


def load_records(folder: pathlib.Path) -> dict[str, dict]:
    """All records of a folder's .jsonl files by key. A later line replaces an earlier one of the same key, except that an error
    replaces none."""
    records = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
                if "error" not in record or record["key"] not in records:
                    records[record["key"]] = record
            except (ValueError, KeyError) as error:
                raise SystemExit(f"{path}:{number}: not a record of a run: {error}") from error
    return records
