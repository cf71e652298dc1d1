#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of run.py and experiment.py, on a program that pretends to train."""
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
import experiment  # noqa: E402
import run  # noqa: E402
from experiment import Cell, flags  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent

# "Trains" one epoch in each call of `work`; what it reports depends on its flags alone. --weight-decay is what it is
# told to do: 1 fails, 2 diverges, 3 takes long, 4 leaves records of two networks, 5 finds its folder taken.
PROGRAM = """#!{python}
import json, os, pathlib, signal, sys, time
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
out = pathlib.Path(flags["out"])
with open(out.parent / "calls.txt", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
behaviour = flags.get("weight-decay", "0")
if behaviour == "1":
    sys.exit("no such data in " + flags["root"])
if behaviour == "5" and flags["lr"] == "0.01":
    sys.exit("--out " + flags["out"] + ": another run has this folder: process 1 on host; wait for its end")
if behaviour == "3" and "resume" not in flags:
    def stop(*_):
        (out / "adam.pt").write_text("half")
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    (out.parent / "waiting").write_text("")
    time.sleep(60)
lr, seed = float(flags["lr"]), int(flags["seed"])
held_out = "validation" in flags
# On held-out data 0.01 is best; on test data 0.1 is, by far.
accuracy = {{0.001: 0.5, 0.01: 0.8, 0.1: 0.6}}[lr] if held_out else {{0.001: 0.5, 0.01: 0.7, 0.1: 0.99}}[lr]
loss = None if behaviour == "2" and lr == 0.01 else 1 - accuracy
record = {{
    "program": "cifar10", "run": "adam", "settings": {{}}, "lawn": "0.1.0", "torch": "2.11.0", "device": "cpu",
    "threads": 1, "seconds": 1.0,
    "figures": {{"test_accuracy": None if loss is None else accuracy + seed / 1e6, "test_loss": loss}},
    "history": {{"epoch": list(range(1, 101)), "norm:head": [1.0] * 100, "train_loss": [1 / 3] * 99 + [None]}},
}}
(out / "adam.json").write_text(json.dumps(record))
if behaviour == "4":
    record["figures"] = {{"overlap": 0.5}}
    (out / "sgd.json").write_text(json.dumps(record))
"""


def cell(weight_decay: float = 0.0, **more) -> Cell:
    given = {"data": "fashion-mnist", "weight_decay": weight_decay, **more}
    return Cell((("optimizer", "adam"),), "cifar10", flags(**given), (0.001, 0.01, 0.1), flags(validation=100))


class RunTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        program = self.folder / "build" / "examples" / "apps" / "cifar10" / "cifar10"
        program.parent.mkdir(parents=True)
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        self.results = self.folder / "results"
        self.results.mkdir()

    def options(self, *more: str):
        options = run.parse(
            ["--build", str(self.folder / "build"), "--work", str(self.folder), "--results", str(self.results)]
            + ["--root", f"fashion-mnist={self.folder}", "--jobs", "2", *more]
        )
        options.commit, options.machine, options.gpu = "abc", "a machine", ""
        return options

    def do(self, cells: list[Cell], *more: str) -> bool:
        with contextlib.redirect_stdout(io.StringIO()):
            return run.Runner([("optimizers", cell) for cell in cells], self.options(*more)).run()

    def calls(self) -> list[str]:
        path = self.folder / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []

    def records(self) -> dict[str, dict]:
        return experiment.load_records(self.results)

    def test_selects_then_trains_the_winner_with_every_seed(self):
        one = cell()
        self.assertTrue(self.do([one]))
        self.assertEqual(one.choose(self.records()), 0.01)
        self.assertEqual([record["flags"]["seed"] for record in one.finals(self.records())], ["0", "1", "2"])
        calls = self.calls()
        self.assertEqual(len(calls), 6)
        self.assertTrue(all("--validation=100" in call for call in calls[:3]))
        self.assertFalse(any("--validation" in call for call in calls[3:]))
        self.assertTrue(all("--lr=0.01" in call for call in calls[3:]))
        self.assertTrue(all(f"--root={self.folder}" in call and "--threads=1" in call for call in calls))

    def test_holds_what_a_repetition_needs_and_no_path(self):
        one = cell()
        self.do([one])
        text = (self.results / "cpu-optimizers.jsonl").read_text()
        self.assertNotIn(str(self.folder), text)
        final = one.finals(self.records())[1]
        self.assertEqual(final["command"], "cifar10 --data=fashion-mnist --weight-decay=0 --lr=0.01 --seed=1")
        for name in ("commit", "lawn", "torch", "machine", "device", "threads", "seconds", "figures"):
            self.assertIn(name, final)
        self.assertEqual(len(final["history"]["epoch"]), run.HISTORY_ROWS)
        self.assertEqual((final["history"]["epoch"][0], final["history"]["epoch"][-1]), (1, 100))
        self.assertEqual(final["history"]["train_loss"][0], 0.33333)
        self.assertIsNone(final["history"]["train_loss"][-1])
        self.assertNotIn("norm:head", final["history"])
        select = self.records()[one.select_runs()[0].key]
        self.assertNotIn("history", select)

    def test_does_no_run_twice_whichever_cell_asks(self):
        self.do([cell(), cell()])
        self.assertEqual(len(self.calls()), 6)
        self.do([cell()])
        self.assertEqual(len(self.calls()), 6)
        self.do([cell(batch_size=7)])
        self.assertEqual(len(self.calls()), 12)

    def test_records_a_failure_and_goes_on(self):
        bad, good = cell(weight_decay=1.0), cell()
        self.assertTrue(self.do([bad, good]))
        error = self.records()[bad.select_runs()[0].key]["error"]
        self.assertEqual(error, "ended with 1: no such data in DIR")
        self.assertIsNone(bad.choose(self.records()))
        self.assertEqual(bad.finals(self.records()), [])
        self.assertEqual(len(good.finals(self.records())), 3)
        self.do([bad])
        self.assertEqual(len(self.calls()), 3 + 6)
        self.do([bad], "--retry")
        self.assertEqual(len(self.calls()), 3 + 6 + 3)

    def test_leaves_a_run_to_the_process_that_has_its_folder(self):
        one = cell(weight_decay=5.0)
        self.assertFalse(self.do([one, cell()]))
        taken = one.select_runs()[1].key
        self.assertNotIn(taken, self.records())
        self.assertTrue((self.folder / f"{taken}-cpu-1").is_dir())
        self.assertEqual(len(self.calls()), 3 + 6)  # and goes on with the others

    def test_passes_over_a_rate_that_diverged(self):
        one = cell(weight_decay=2.0)
        self.do([one])
        self.assertEqual(one.choose(self.records()), 0.1)

    def test_resumes_an_interrupted_run_from_its_checkpoint(self):
        script = (
            "import sys; sys.path[:0] = [sys.argv[1]]; sys.dont_write_bytecode = True\n"
            "import run, run_test\n"
            "run.cells_of = lambda question, size: [run_test.cell(weight_decay=3.0)]\n"
            "sys.exit(run.main(sys.argv[2:]))"
        )
        command = [sys.executable, "-c", script, str(HERE), "--build", str(self.folder / "build")]
        command += ["--work", str(self.folder), "--results", str(self.results), "--jobs", "1", "optimizers"]
        command += ["--root", f"fashion-mnist={self.folder}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while not (self.folder / "waiting").exists():
            self.assertLess(time.monotonic(), deadline, "the program was not started")
            time.sleep(0.02)
        second = subprocess.run(command, capture_output=True, text=True)
        self.assertIn("another run.py is at work", second.stderr)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, run.STOPPED, output)
        self.assertIn("stopped; the same command goes on from here", output)
        self.assertEqual(self.records(), {})

        (checkpoint,) = self.folder.glob("*/adam.pt")
        one = cell(weight_decay=3.0)
        runner = run.Runner([("optimizers", one)], self.options("--jobs", "1"))
        question, same_cell, first = runner.next()
        job = run.Job(question, same_cell, first, self.options(), None)
        self.assertEqual(job.process.wait(), 0)
        self.assertIn(f"--resume={checkpoint}", self.calls()[-1])
        self.assertNotIn("error", job.line(self.options()))

    def test_trains_a_cell_of_one_rate_without_selecting_and_joins_what_its_parts_leave(self):
        parts = ("sgd", "adam")
        one = dataclasses.replace(cell(weight_decay=4.0), rates=(0.01,), validation=(), parts=parts)
        self.assertTrue(self.do([one]))
        self.assertEqual(len(self.calls()), 3)
        self.assertFalse(any("--validation" in call for call in self.calls()))
        first = one.finals(self.records())[0]
        self.assertEqual(list(first["figures"]), ["sgd/overlap", "adam/test_accuracy", "adam/test_loss"])
        self.assertEqual((first["figures"]["sgd/overlap"], first["figures"]["adam/test_accuracy"]), (0.5, 0.7))
        self.assertEqual(first["seconds"], 2)
        self.assertNotIn("history", first)

        more = dataclasses.replace(cell(weight_decay=4.0, batch_size=7), rates=(0.01,), parts=("sgd", "lamb"))
        self.do([more])
        self.assertIn("error", self.records()[more.final_runs(0.01)[0].key])

    def test_resumes_a_program_with_parts_from_its_folder(self):
        one = dataclasses.replace(cell(weight_decay=4.0), rates=(0.01,), parts=("adam", "sgd"))
        call = one.final_runs(0.01)[0]
        folder = self.folder / f"{call.key}-cpu-1"
        folder.mkdir()
        (folder / "adam.pt").write_text("half")
        self.assertEqual(run.Job("pruning", one, call, self.options(), None).process.wait(), 0)
        self.assertIn(f"--resume={folder}", self.calls()[-1].split())

    def test_starts_nothing_after_its_budget_and_has_runs_stop_within_it(self):
        self.assertFalse(self.do([cell()], "--budget-seconds", "1e-9"))
        self.assertEqual(self.calls(), [])
        self.do([cell()], "--budget-seconds", "3600")
        self.assertIn("--stop-after=3600", self.calls()[0])

    def test_names_the_text_of_language(self):
        program = self.folder / "build" / "examples" / "apps" / "language" / "language"
        program.parent.mkdir(parents=True)
        (self.folder / "build" / "examples" / "apps" / "cifar10" / "cifar10").rename(program)
        one = dataclasses.replace(cell(), program="language", flags=flags(width=96), rates=(0.01,), validation=())
        call = one.final_runs(0.01)[0]
        job = run.Job("language", one, call, self.options("--root", f"text={__file__}"), None)
        self.assertEqual(job.process.wait(), 0)
        self.assertIn(f"--text={__file__}", self.calls()[-1].split())

    def test_refuses_questions_without_the_root_of_their_data_before_any_run_and_leaves_them_out_of_all(self):
        given = ["--build", "b", "--work", str(self.folder), "--results", str(self.results)]
        for question, message in (
            ("language", "language: expected --root text=FILE, or"),
            ("continual_why", "continual_why: expected --root fashion-mnist=DIR, or"),
            ("optimizers", "optimizers: expected --root cifar10=DIR, or"),
        ):
            size = ["--size", "gpu"] if question == "optimizers" else []
            with self.assertRaises(SystemExit) as error:
                run.main([*given, *size, question])
            self.assertIn(message, str(error.exception))
        self.assertEqual(list(self.results.iterdir()), [])
        cells = [("optimizers", cell()), ("optimizers", cell(data="cifar10")), ("eman", cell(data="cifar10"))]
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.assertEqual(run.with_data(cells, self.options()), cells[:1])
        self.assertIn("no --root cifar10=DIR was given: what is trained on it of optimizers, eman", output.getvalue())

    def test_refuses_an_unknown_question_and_a_root_without_a_name(self):
        for arguments, message in ((["sizes"], "no question sizes"), (["--root", "/data"], "expected DATA=DIR"), (["--root", "cifar10=/none"], "there is no /none")):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as errors:
                run.parse(["--build", "b", "--work", "w", *arguments])
            self.assertIn(message, errors.getvalue())


class ChoiceTest(unittest.TestCase):
    def records(self, one: Cell, figures: list[tuple[float | None, float | None]]) -> dict[str, dict]:
        return {
            call.key: {"figures": {"test_accuracy": accuracy, "test_loss": loss}}
            for call, (accuracy, loss) in zip(one.select_runs(), figures)
        }

    def test_never_looks_at_test_figures(self):
        one = cell()
        records = self.records(one, [(0.5, 1.0), (0.8, 1.0), (0.6, 1.0)])
        for rate in one.rates:  # what the test data says, for every rate
            for call in one.final_runs(rate):
                records[call.key] = {"figures": {"test_accuracy": 0.99 if rate == 0.1 else 0.01, "test_loss": 0.0}}
        self.assertEqual(one.choose(records), 0.01)
        self.assertTrue(all("validation" in dict(call.flags) for call in one.select_runs()))
        seeds = {call.flag("seed") for call in one.select_runs()}
        self.assertFalse(seeds & {call.flag("seed") for call in one.final_runs(0.01)})

    def test_breaks_ties_by_loss_then_by_the_smaller_rate(self):
        one = cell()
        self.assertEqual(one.choose(self.records(one, [(0.8, 1.0), (0.8, 0.5), (0.6, 0.1)])), 0.01)
        self.assertEqual(one.choose(self.records(one, [(0.8, 1.0), (0.8, 1.0), (0.8, 1.0)])), 0.001)

    def test_tries_each_rate_with_each_of_the_other_flags_and_trains_the_best_of_both(self):
        decays = tuple(flags(decay=decay) for decay in (0.1, 1.0))
        one = dataclasses.replace(cell(), extras=decays)
        self.assertEqual(len(one.select_runs()), 6)
        tried = {(call.flag("lr"), call.flag("decay")) for call in one.select_runs()}
        self.assertEqual(tried, {(lr, decay) for lr in ("0.001", "0.01", "0.1") for decay in ("0.1", "1")})
        records = self.records(one, [(0.5, 1.0), (0.6, 1.0), (0.7, 1.0), (0.9, 1.0), (0.9, 2.0), (0.8, 1.0)])
        self.assertEqual(one.chosen(records), (0.01, (("decay", "1"),)))
        self.assertEqual(one.choose(records), 0.01)
        self.assertEqual({call.flag("decay") for call in one.final_runs(*one.chosen(records))}, {"1"})
        for call in one.final_runs(0.01, (("decay", "1"),)):
            records[call.key] = {"figures": {"test_accuracy": 0.9, "test_loss": 1.0}}
        self.assertEqual(len(one.finals(records)), 3)
        self.assertEqual(run.written(one.chosen(records)), "lr 0.01, decay 1")
        self.assertEqual(run.written(None), "lr ?")

    def test_waits_for_all_select_runs(self):
        one = cell()
        records = self.records(one, [(0.5, 1.0), (0.8, 1.0)])
        self.assertIsNone(one.choose(records))
        self.assertFalse(one.selected(records))

    def test_gives_every_cell_of_a_question_as_many_trials_and_at_least_three_seeds(self):
        for question in run.ALL:
            for size in ("cpu", "gpu"):
                cells = run.cells_of(question, size)
                once = question.endswith("_once")  # by its name no evidence of seeds
                if not cells:
                    continue  # of one size alone
                self.assertEqual(len({len(one.trials) for one in cells}), 1, (question, size))
                self.assertEqual(len({one.labels for one in cells}), len(cells), (question, size))
                for one in cells:
                    self.assertGreaterEqual(len(one.seeds), 1 if once else 3)
                    self.assertEqual(len(set(one.trials)), len(one.trials))
                    self.assertTrue(one.validation or len(one.trials) == 1)
                    tried = {name for extra in one.extras for name, _ in extra}
                    self.assertFalse(tried & dict(one.flags).keys(), "a flag that is both tried and given")
                    self.assertEqual({frozenset(dict(extra)) for extra in one.extras}, {frozenset(tried)})


class RecordsTest(unittest.TestCase):
    def test_a_key_is_that_of_the_flags_in_any_order(self):
        a = experiment.Run("cifar10", "final", (("lr", "1"), ("seed", "2")))
        b = experiment.Run("cifar10", "select", (("seed", "2"), ("lr", "1")))
        self.assertEqual(a.key, b.key)
        self.assertNotEqual(a.key, experiment.Run("cifar10", "final", (("lr", "1"), ("seed", "3"))).key)
        self.assertNotEqual(a.key, experiment.Run("other", "final", a.flags).key)

    def test_an_error_replaces_no_record_of_another_file(self):
        with tempfile.TemporaryDirectory() as folder:
            good, bad = {"key": "a", "figures": {}}, {"key": "a", "error": "ended with 1"}
            for name, lines in (("cpu-ablations", [good]), ("cpu-optimizers", [bad]), ("gpu-afan", [bad | {"key": "b"}])):
                pathlib.Path(folder, f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            self.assertEqual(experiment.load_records(pathlib.Path(folder)), {"a": good, "b": bad | {"key": "b"}})

    def test_a_broken_line_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "cpu-optimizers.jsonl")
            path.write_text(json.dumps({"key": "a"}) + "\n{\n")
            with self.assertRaises(SystemExit) as error:
                experiment.load_records(pathlib.Path(folder))
            self.assertIn("cpu-optimizers.jsonl:2: not a record", str(error.exception))


if __name__ == "__main__":
    unittest.main()
