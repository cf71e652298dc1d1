#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of report.py: its statistics by hand, its tables and notes, and that a page is held against the lines."""
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import report  # noqa: E402
from experiment import Cell, flags  # noqa: E402
from questions import optimizers  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent

GOOD = {
    "test_accuracy": 0.8,
    "test_loss": 0.5,
    "test_calibration": 0.1,
    "train_accuracy": 1.0,
    "train_loss": 0.001,
    "train_logit_norm": 20.0,
    "train_vanished": 0.5,
    "norm_growth": 1.5,
}


def cell(lawn: bool = False) -> Cell:
    given = flags(network="mlp", batch_size=50, optimizer="adam", lawn=lawn)
    labels = (("optimizer", "adam"), ("LAWN", "yes" if lawn else "no"))
    return Cell(labels, "cifar10", given, (0.001, 0.01, 0.1), flags(validation=100))


def records_of(one: Cell, finals: list[dict], best: float = 0.01) -> dict[str, dict]:
    """Records by key: the select runs say that `best` is; the final ones at it are GOOD but for what is given."""
    records = {}
    for rate, run in zip(one.rates, one.select_runs()):
        records[run.key] = {"figures": {"test_accuracy": 0.9 if rate == best else 0.1, "test_loss": 1.0}}
    for run, figures in zip(one.final_runs(best), finals):
        records[run.key] = {"flags": dict(run.flags), "figures": {**GOOD, **figures}}
    for key, record in records.items():
        record["key"] = key
    return records


class StatisticsTest(unittest.TestCase):
    def test_mean_and_sample_standard_deviation_are_those_counted_by_hand(self):
        # 2, 4, 9: mean 5, squares 9 + 1 + 16 = 26, over n - 1 = 2: sqrt(13) = 3.6056
        self.assertEqual(report.written([2.0, 4.0, 9.0]), "5.00 ± 3.61")
        self.assertEqual(report.written([0.02, 0.04, 0.09], 100, 1), "5.0 ± 3.6")

    def test_one_value_has_no_deviation_and_none_is_not_a_number(self):
        self.assertEqual(report.written([0.5]), "0.50")
        self.assertEqual(report.written([]), "–")
        self.assertEqual(report.written([0.5, None]), "not finite")
        self.assertEqual(report.written([0.5, float("nan")]), "not finite")


class TableTest(unittest.TestCase):
    def test_has_a_row_for_each_cell_that_was_run(self):
        plain, other = cell(), cell(lawn=True)
        records = records_of(plain, [{"test_accuracy": a} for a in (0.80, 0.82, 0.84)])
        self.assertEqual(report.table([plain, other], {}), "*Not run yet.*\n")
        text = report.table([plain, other], records)
        self.assertIn("| adam | no | 0.01 | 3 | 82.00 ± 2.00 | 0.500 ± 0.000 |", text)
        self.assertNotIn("| adam | yes |", text)
        self.assertIn("Still to be trained with some or all seeds: adam, LAWN yes.", text)

    def test_has_a_row_for_each_part_of_a_cell_and_a_dash_where_it_has_no_such_figure(self):
        one = Cell((), "pruning", flags(data="cifar10"), (0.1,), (), parts=("dense", "ticket"))
        figures = {"dense/test_accuracy": 0.5, "dense/overlap": 0.75, "ticket/test_accuracy": 0.25}
        records = {run.key: {"flags": dict(run.flags), "figures": figures} for run in one.final_runs(0.1)}
        text = report.table([one], records)
        self.assertIn("| network | lr | seeds | pruned, % |", text)
        self.assertIn("| dense | 0.1 | 3 | – | – | 50.00 ± 0.00 | – | – | 0.750 ± 0.000 |", text)
        self.assertIn("| ticket | 0.1 | 3 | – | – | 25.00 ± 0.00 | – | – | – |", text)
        self.assertNotIn("\n- ", text)

    def test_has_a_row_for_each_method_and_a_column_for_each_rate_once_all_its_seeds_are_run(self):
        def at(method: str, rate: float) -> Cell:
            labels = (("method", method), ("rate", f"{rate:g}"))
            return Cell(labels, "continual", flags(method=method), (rate,), ())

        cells = [at("adam", 0.1), at("lawn", 0.1), at("adam", 0.01), at("lawn", 0.01)]
        self.assertEqual(report.by_rate(cells, {}), "*Not run yet.*\n")
        records = {}
        for one, seeds in zip(cells, (3, 2, 0, 3)):
            for run, accuracy in list(zip(one.final_runs(one.rates[0]), (0.2, 0.4, 0.6)))[:seeds]:
                records[run.key] = {"flags": dict(run.flags), "figures": {"task_accuracy_last_tenth": accuracy}}
        lines = report.by_rate(cells, records).splitlines()
        self.assertEqual(lines[0], "| method | lr 0.1 | lr 0.01 |")
        self.assertEqual(lines[2:], ["| adam | 40.0 ± 20.0 | – |", "| lawn | – | 40.0 ± 20.0 |"])

    def test_leaves_out_runs_at_other_rates(self):
        plain = cell()
        records = records_of(plain, [{}, {}, {}])
        for run in plain.final_runs(0.1):
            records[run.key] = {"flags": dict(run.flags), "figures": {**GOOD, "test_accuracy": 0.99}}
        self.assertIn("80.00 ± 0.00", report.table([plain], records))

    def test_says_what_hides_an_effect(self):
        plain = cell()
        text = report.table([plain], records_of(plain, [{"train_accuracy": 0.99}, {}, {}]))
        self.assertIn("Did not fit the training data (99.9 % in every run)", text)
        text = report.table([plain], records_of(plain, [{"norm_growth": 1.1}] * 3))
        self.assertIn("norms grew by less than a factor of 1.2", text)
        text = report.table([plain], records_of(plain, [{}] * 3, best=0.1))
        self.assertIn("the smallest or the largest that was tried", text)
        self.assertNotIn("\n- ", report.table([plain], records_of(plain, [{}] * 3)))
        other = cell(lawn=True)  # LAWN's own norms are not to grow
        self.assertNotIn("\n- ", report.table([other], records_of(other, [{"norm_growth": 1.0}] * 3)))

    def test_writes_the_flags_that_were_chosen_beside_the_rate_and_says_if_they_are_at_an_end(self):
        decays = tuple(flags(weight_decay=decay) for decay in (0.01, 0.1, 1.0))
        one = dataclasses.replace(cell(), extras=decays)
        for best, at_an_end in ((4, False), (5, True)):
            records = {}
            for number, run in enumerate(one.select_runs()):
                records[run.key] = {"figures": {"test_accuracy": 0.9 if number == best else 0.1, "test_loss": 1.0}}
            for run in one.final_runs(*one.trials[best]):
                records[run.key] = {"flags": dict(run.flags), "figures": GOOD}
            text = report.table([one], records)
            self.assertIn(f"| 0.01, weight-decay {'1' if at_an_end else '0.1'} | 3 |", text)
            note = "The weight-decay that was chosen is the smallest or the largest of three or more that were tried"
            self.assertEqual(note in text, at_an_end)

    def test_says_that_a_rate_failed(self):
        plain = cell()
        records = records_of(plain, [{}] * 3)
        records[plain.select_runs()[2].key] = {"error": "ended with 1"}
        self.assertIn("Some rates failed: adam, LAWN no.", report.table([plain], records))


class MechanismTest(unittest.TestCase):
    def test_counts_the_pairs_of_one_seed_and_names_the_exceptions(self):
        plain, other = cell(), cell(lawn=True)
        records = records_of(plain, [{"train_logit_norm": n} for n in (30.0, 30.0, 30.0)])
        records.update(records_of(other, [{"train_logit_norm": n} for n in (10.0, 31.0, 20.0)]))
        text = report.mechanism([plain, other], records)
        self.assertIn("Of 3 pairs of fitted runs with one seed, LAWN's mean logit norm is the smaller in 2.", text)
        self.assertIn("Not in: adam, LAWN yes, seed 1: 31.0 against 30.0.", text)

    def test_does_not_count_pairs_that_were_not_fitted(self):
        plain, other = cell(), cell(lawn=True)
        records = records_of(plain, [{"train_accuracy": 0.9}] * 3)
        records.update(records_of(other, [{}] * 3))
        self.assertIn("Of 0 pairs", report.mechanism([plain, other], records))


class PageTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name)
        (self.root / "docs").mkdir()
        (self.root / "results").mkdir()
        self.page = self.root / "docs" / "results.md"
        self.page.write_text("before\n<!-- results: cpu/optimizers -->\nold\n<!-- end of results -->\nafter\n")

    def call(self, *more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-B", str(HERE / "report.py"), "--root", str(self.root)]
        return subprocess.run(
            [*command, "--results", str(self.root / "results"), *more], capture_output=True, text=True
        )

    def test_is_rewritten_between_its_markers_and_held_against_the_lines(self):
        self.assertEqual(self.call("--check").returncode, 1)
        self.assertEqual(self.call().returncode, 0)
        self.assertEqual(
            self.page.read_text(),
            "before\n<!-- results: cpu/optimizers -->\n*Not run yet.*\n<!-- end of results -->\nafter\n",
        )
        self.assertEqual(self.call("--check").returncode, 0)

        one = optimizers.cells("cpu")[0]
        lines = [json.dumps(record) for record in records_of(one, [{}] * 3, best=1e-3).values()]
        (self.root / "results" / "cpu-optimizers.jsonl").write_text("\n".join(lines) + "\n")
        check = self.call("--check")
        self.assertEqual(check.returncode, 1)
        self.assertIn("docs/results.md: not what", check.stdout)
        self.call()
        self.assertIn("| adam | 50 | no | 0.001 | 3 | 80.00 ± 0.00 |", self.page.read_text())
        self.assertEqual(self.call("--check").returncode, 0)

    def test_is_refused_with_an_unknown_table_or_without_an_end(self):
        self.page.write_text("<!-- results: cpu/sizes -->\n<!-- end of results -->\n")
        self.assertIn("docs/results.md: no table named cpu/sizes", self.call().stderr)
        self.page.write_text("<!-- results: cpu/optimizers -->\n")
        self.assertIn("1 tables begin", self.call().stderr)


class CommittedResultsTest(unittest.TestCase):
    def test_hold_no_path_of_a_machine_and_stay_small(self):
        for path in (HERE / "results").glob("*.jsonl"):
            text = path.read_text(encoding="utf-8")
            self.assertLess(len(text), 1_000_000, path.name)
            for part in ('"/', "=/", " /", "/tmp", "/home", "/root"):
                self.assertNotIn(part, text, path.name)


if __name__ == "__main__":
    unittest.main()
