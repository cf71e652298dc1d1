#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns the lines of bench/experiments/results into the tables of docs/results.md and README.md, and into pictures.

    bench/experiments/report.py               rewrites what stands between the markers of both pages
    bench/experiments/report.py --pictures    draws docs/results-*.png as well (needs matplotlib)
    bench/experiments/report.py --check       changes nothing; fails if a page does not say what the lines say

A table stands between `<!-- results: SIZE/QUESTION -->` and `<!-- end of results -->`. Figures are means over seeds,
with the sample standard deviation.
"""
import argparse
import dataclasses
import importlib
import math
import pathlib
import re
import statistics
import sys

from experiment import METRICS, Cell, load_records
from questions.companions import COMPANIONS
from questions.continual import CONTINUAL

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGES = ("docs/results.md", "README.md")
QUESTIONS = (
    *("optimizers", "batch_size", "free_steps", "networks", "recommender", "mechanism", "ablations"),
    *("free_end", "label_noise", "label_noise_vgg", "label_noise_networks", "label_noise_once"),
    *("large_batches", "language", "language_larger"),
)
MARKERS = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)

FITTED = 0.999  # train accuracy from which a run counts as having fitted its data
GROWN = 1.2  # growth of a plain optimizer's norms from which there is something for LAWN to hold


@dataclasses.dataclass(frozen=True)
class Column:
    title: str
    figure: str
    scale: float = 1
    digits: int = 2


COLUMNS = {
    "cifar10": (
        Column("test accuracy, %", "test_accuracy", 100),
        Column("test loss", "test_loss", 1, 3),
        Column("calibration error, %", "test_calibration", 100, 1),
        Column("train accuracy, %", "train_accuracy", 100),
        Column("train loss", "train_loss", 1, 4),
        Column("mean logit norm, train", "train_logit_norm", 1, 1),
        Column("vanished, %", "train_vanished", 100, 1),
        Column("norm, end / start", "norm_growth", 1, 2),
    ),
    "recommender": (
        Column("HR@10", "hit_rate", 1, 4),
        Column("NDCG@10", "ndcg", 1, 4),
        Column("test loss", "test_loss", 1, 3),
        Column("train loss", "train_loss", 1, 3),
        Column("mean \\|logit\\|, train", "train_logit"),
        Column("vanished, %", "train_vanished", 100, 1),
        Column("norm, end / start", "norm_growth", 1, 2),
    ),
    "language": (
        Column("test loss, nats a character", "test_loss", 1, 3),
        Column("in bits", "test_bits", 1, 3),
        Column("test accuracy, %", "test_accuracy", 100),
        Column("calibration error, %", "test_calibration", 100, 1),
        Column("train loss", "train_loss", 1, 3),
        Column("mean logit norm, train", "train_logit_norm", 1, 1),
        Column("norm, end / start", "norm_growth", 1, 2),
    ),
    "continual": (
        Column("accuracy at a task's end, %: first tenth", "task_accuracy_first_tenth", 100, 1),
        Column("last tenth", "task_accuracy_last_tenth", 100, 1),
        Column("mean", "task_accuracy", 100, 1),
        Column("online accuracy, mean, %", "online_accuracy", 100, 1),
        Column("test accuracy, last tenth, %", "test_accuracy_last_tenth", 100, 1),
        Column("dead units, last tenth, %", "dead_units_last_tenth", 100, 1),
        Column("norm, end / start", "norm_growth", 1, 2),
    ),
    "mimicnorm": (
        Column("test accuracy, %", "test_accuracy", 100),
        Column("test loss", "test_loss", 1, 3),
        Column("train accuracy, %", "train_accuracy", 100),
        Column("kept for backward, MiB", "kept_bytes", 1 / 2**20),
    ),
    "afan": (
        Column("test accuracy, %", "test_accuracy", 100),
        Column("random signs, %", "signs_test_accuracy", 100),
        Column("adversarial, %", "adversarial_test_accuracy", 100),
        Column("test loss", "test_loss", 1, 3),
        Column("random signs", "signs_test_loss", 1, 3),
        Column("adversarial", "adversarial_test_loss", 1, 3),
        Column("train accuracy, %", "train_accuracy", 100),
    ),
    "eman": (
        Column("student, %", "test_accuracy", 100),
        Column("teacher, shuffled batches, %", "teacher_accuracy_shuffled", 100),
        Column("teacher, sorted batches, %", "teacher_accuracy_sorted", 100),
        Column("pseudo-labels used, %", "pseudo_labels_used", 100, 1),
        Column("right, % of all", "pseudo_labels_right", 100, 1),
    ),
    "pruning": (
        Column("pruned, %", "pruned", 100, 1),
        Column("test accuracy before, %", "test_accuracy_before", 100),
        Column("test accuracy, %", "test_accuracy", 100),
        Column("test loss", "test_loss", 1, 3),
        Column("train accuracy, %", "train_accuracy", 100),
        Column("overlap R_p", "overlap", 1, 3),
    ),
    "unification": (
        Column("test accuracy at the projection, %", "test_accuracy_at_projection", 100),
        Column("test accuracy, %", "test_accuracy", 100),
        Column("test loss", "test_loss", 1, 3),
        Column("train accuracy, %", "train_accuracy", 100),
        Column("residual", "residual", 1, 3),
        Column("encoded, KiB", "bytes", 1 / 2**10, 1),
    ),
}
ABOUT_LAWN = ("cifar10", "recommender", "language")  # the programs whose rows are to say something of LAWN


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation (n - 1), which one value does not have."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def written(values: list[float | None], scale: float = 1, digits: int = 2) -> str:
    """ "83.51 ± 0.20"; says where a run's figure is not finite."""
    if not values:
        return "–"
    if any(value is None or not math.isfinite(value) for value in values):
        return "not finite"
    mean, deviation = mean_and_deviation([value * scale for value in values])
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def markdown(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def values(records: list[dict], figure: str) -> list[float | None]:
    return [record["figures"].get(figure) for record in records]


def has(records: list[dict], figure: str) -> bool:
    """Whether a figure was measured, if only to be infinite."""
    return any(figure in record["figures"] for record in records)


def fitted(records: list[dict]) -> bool:
    return all((value or 0) >= FITTED for value in values(records, "train_accuracy"))


def is_lawn(cell: Cell) -> bool:
    return dict(cell.flags).get("lawn") == "on"


def at_an_end(cell: Cell, name: str, records: dict[str, dict]) -> bool:
    """Whether the chosen value of a flag is the smallest or the largest of three or more. Pairs have no order."""
    texts = {dict(extra)[name] for extra in cell.extras if name in dict(extra)}
    _, extra = cell.chosen(records)
    if any("," in text for text in texts):
        return False
    tried = {float(text) for text in texts}
    return len(tried) > 2 and float(dict(extra)[name]) in (min(tried), max(tried))


def notes(cells: list[Cell], records: dict[str, dict]) -> list[str]:
    """What a reader must know of the rows before reading anything off them."""

    def names(chosen: list[Cell]) -> str:
        return "; ".join(cell.name for cell in chosen)

    done = [cell for cell in cells if cell.finals(records)]
    found = []

    def note(text: str, chosen: list[Cell]) -> None:
        if chosen:
            found.append(f"- {text}: {names(chosen)}.")

    note("Still to be trained with some or all seeds", [c for c in cells if len(c.finals(records)) < len(c.seeds)])
    about_lawn = [cell for cell in done if cell.program in ABOUT_LAWN]
    with_accuracy = [cell for cell in about_lawn if None not in values(cell.finals(records), "train_accuracy")]
    note(
        f"Did not fit the training data ({100 * FITTED:g} % in every run), so that little can be read off",
        [cell for cell in with_accuracy if not fitted(cell.finals(records))],
    )
    grown = {cell: mean_and_deviation(values(cell.finals(records), "norm_growth"))[0] for cell in about_lawn}
    note(
        f"The plain optimizer's norms grew by less than a factor of {GROWN:g}: there is little for LAWN to hold",
        [cell for cell in grown if not is_lawn(cell) and grown[cell] < GROWN],
    )
    note(
        "The rate that was chosen is the smallest or the largest that was tried",
        [c for c in done if len(c.rates) > 1 and c.choose(records) in (min(c.rates), max(c.rates))],
    )
    for name in dict.fromkeys(name for cell in done for name, _ in cell.extras[0]):
        note(
            f"The {name} that was chosen is the smallest or the largest of three or more that were tried",
            [c for c in done if at_an_end(c, name, records)],
        )
    failed = [cell for cell in cells for run in cell.select_runs() if "error" in records.get(run.key, {})]
    note("Some rates failed", sorted(set(failed), key=cells.index))
    return found


def and_extra(text: str, extra: tuple[tuple[str, str], ...]) -> str:
    """ "0.001, betas 0.9,0.95": a rate, and what else was tried with it."""
    return ", ".join([*([text] if text else []), *(f"{name} {value}" for name, value in extra)])


def table(cells: list[Cell], records: dict[str, dict]) -> str:
    """One row for each cell, or for each part of one, and notes."""
    if not any(cell.finals(records) for cell in cells):
        return "*Not run yet.*\n"
    labels = list(dict.fromkeys(name for cell in cells for name, _ in cell.labels))
    columns = COLUMNS[cells[0].program]
    rows = []
    for cell in cells:
        finals = cell.finals(records)
        if not finals:
            continue
        for part in cell.parts or ("",):
            row = [dict(cell.labels).get(name, "") for name in labels] + ([part] if part else [])
            rate, extra = cell.chosen(records)
            row += [and_extra(f"{rate:g}", extra), str(len(finals))]
            for column in columns:
                figure = f"{part}/{column.figure}" if part else column.figure
                found = values(finals, figure) if has(finals, figure) else []
                row.append(written(found, column.scale, column.digits))
            rows.append(row)
    labels += ["network"] if cells[0].parts else []
    text = markdown([*labels, "lr", "seeds", *(column.title for column in columns)], rows)
    found = notes(cells, records)
    return text + "\n" + ("\n" + "\n".join(found) + "\n" if found else "")


def pairs(cells: list[Cell]) -> list[tuple[Cell, Cell]]:
    """Each plain optimizer with LAWN around it on the same problem."""
    own = ("lawn", "free-fraction", "select")

    def problem(cell: Cell) -> frozenset:
        return frozenset(flag for flag in cell.flags if flag[0] not in own)

    return [
        (plain, other)
        for plain in cells
        for other in cells
        if not is_lawn(plain) and is_lawn(other) and problem(plain) == problem(other)
    ]


def mechanism(cells: list[Cell], records: dict[str, dict]) -> str:
    """Logit norms at the end, and in how many pairs of runs of one seed LAWN's is the smaller."""
    rows, smaller, all_pairs, exceptions = [], 0, 0, []
    figures = (
        ("train_logit_norm", 1, 1),
        ("train_vanished", 100, 1),
        ("norm_growth", 1, 2),
    )
    for plain, other in pairs(cells):
        both = plain.finals(records), other.finals(records)
        if not all(both):
            continue
        by_seed = [{record["flags"]["seed"]: record["figures"] for record in side} for side in both]
        seeds = [seed for seed in by_seed[0] if seed in by_seed[1]]
        overfits = fitted(both[0]) and fitted(both[1])
        for seed in seeds if overfits else ():
            plain_norm, lawn_norm = (side[seed]["train_logit_norm"] for side in by_seed)
            all_pairs += 1
            smaller += lawn_norm < plain_norm
            if lawn_norm >= plain_norm:
                exceptions.append(f"{other.name}, seed {seed}: {lawn_norm:.1f} against {plain_norm:.1f}")
        given = dict(other.flags)
        row = [given["network"], given["optimizer"], given["batch-size"], given.get("select", "walk")]
        row.append("yes" if overfits else "no")
        for name, scale, digits in figures:
            row += [written(values(side, name), scale, digits) for side in both]
        rows.append(row)
    if not rows:
        return "*Not run yet.*\n"
    heading = ["network", "optimizer", "batch", "selection", "both fitted"]
    for title in ("logit norm", "vanished, %", "norm, end / start"):
        heading += [f"{title}: plain", "LAWN"]
    text = markdown(heading, rows) + "\n"
    text += f"\nOf {all_pairs} pairs of fitted runs with one seed, LAWN's mean logit norm is the smaller in {smaller}."
    return text + (" Not in: " + "; ".join(exceptions) + "." if exceptions else "") + "\n"


def short(cells: list[Cell], records: dict[str, dict]) -> str:
    """Question 1 for the README, of LibTorch's optimizers: plain and LAWN side by side."""
    rows = []
    for plain, other in pairs(cells):
        both = plain.finals(records), other.finals(records)
        if not all(both) or dict(plain.labels)["optimizer"] == "lamb":
            continue
        row = [dict(plain.labels)["optimizer"], dict(plain.labels)["batch"]]
        for name, scale, digits in (("test_accuracy", 100, 2), ("test_loss", 1, 3), ("train_logit_norm", 1, 1)):
            row += [written(values(side, name), scale, digits) for side in both]
        row.append(written(values(both[0], "norm_growth"), 1, 2))
        rows.append(row)
    if not rows:
        return "*Not run yet.*\n"
    heading = ["optimizer", "batch", "test accuracy, %: plain", "LAWN", "test loss: plain", "LAWN"]
    heading += ["logit norm: plain", "LAWN", "norm, end / start: plain"]
    return markdown(heading, rows) + "\n"


def trials(cells: list[Cell], records: dict[str, dict]) -> str:
    """The score of every trial: a row for what else is tried, a column for each rate. One seed each."""
    rates = sorted({rate for cell in cells for rate in cell.rates})
    rows = []
    for cell in cells:
        scores = {}
        for (rate, extra), run in zip(cell.trials, cell.select_runs()):
            if "figures" in records.get(run.key, {}):
                scores.setdefault(extra, {})[rate] = records[run.key]["figures"][METRICS[cell.program].score]
        for extra, by_rate in scores.items():
            row = [*dict(cell.labels).values(), and_extra("", extra)]
            rows.append(row + [f"{100 * by_rate[rate]:.1f}" if rate in by_rate else "–" for rate in rates])
    if not rows:
        return "*Not run yet.*\n"
    return markdown([*dict(cells[0].labels), "tried", *(f"lr {rate:g}" for rate in rates)], rows) + "\n"


def by_rate(cells: list[Cell], records: dict[str, dict]) -> str:
    """Accuracy at the end of the last tenth of the tasks: a row for each method, a column for each rate."""
    rates = list(dict.fromkeys(dict(cell.labels)["rate"] for cell in cells))
    found = {}  # by the other labels, then by rate
    for cell in cells:
        finals = cell.finals(records)
        if len(finals) == len(cell.seeds):
            labels = dict(cell.labels)
            text = written(values(finals, "task_accuracy_last_tenth"), 100, 1)
            found.setdefault(labels.pop("rate"), {})[tuple(labels.items())] = text
    if not found:
        return "*Not run yet.*\n"
    methods = dict.fromkeys(labels for of in found.values() for labels in of)
    rows = [[*dict(labels).values(), *(found.get(rate, {}).get(labels, "–") for rate in rates)] for labels in methods]
    names = [name for name, _ in next(iter(methods))]
    return markdown([*names, *(f"lr {rate}" for rate in rates)], rows) + "\n"


def short_continual(cells: list[Cell], records: dict[str, dict]) -> str:
    """For the README, of random labels: accuracy at the end of the first tasks and of the last, each method as it was chosen;
    without and with layer norm."""
    found = {}  # by method, then by stream
    for cell in cells:
        finals = cell.finals(records)
        stream, method = (dict(cell.labels)[name] for name in ("stream", "method"))
        if finals and len(finals) == len(cell.seeds):
            parts = [written(values(finals, f"task_accuracy_{part}_tenth"), 100, 1) for part in ("first", "last")]
            found.setdefault(method, {})[stream] = parts
    streams = ("random-labels", "random-labels, layer norm")
    rows = [[method, *(text for stream in streams for text in of.get(stream, "––"))] for method, of in found.items()]
    if not rows:
        return "*Not run yet.*\n"
    tasks = ["tasks 1 to 10", "91 to 100"]
    return markdown(["method", f"accuracy, %: {tasks[0]}", tasks[1], f"with layer norm: {tasks[0]}", tasks[1]], rows) + "\n"


SHAPES = {"mechanism": mechanism, "continual_rates": by_rate}  # of questions whose table is not a row for each cell


def tables(records: dict[str, dict]) -> dict[str, str]:
    """The text of each table by its name in a marker."""
    found = {}
    for size in ("cpu", "gpu"):
        for question in (*QUESTIONS, *COMPANIONS, *CONTINUAL):
            cells = importlib.import_module(f"questions.{question}").cells(size)
            found[f"{size}/{question}"] = SHAPES.get(question, table)(cells, records)
        streams, normalised = (
            importlib.import_module(f"questions.{name}").cells(size) for name in ("continual", "continual_layer_norm")
        )
        streams = [*streams, *normalised]
        found[f"{size}/continual_trials"] = trials(streams, records)
        found[f"{size}/continual_short"] = short_continual(streams, records)
        found[f"{size}/short"] = short(importlib.import_module("questions.optimizers").cells(size), records)
    return found


def filled(page: str, texts: dict[str, str], where: str) -> str:
    """A page with its tables replaced."""

    def replace(match: re.Match) -> str:
        if match.group(2) not in texts:
            sys.exit(f"{where}: no table named {match.group(2)}; expected one of {', '.join(texts)}")
        return match.group(1) + texts[match.group(2)] + match.group(3)

    opened, closed = page.count("<!-- results: "), page.count("<!-- end of results -->")
    if opened != closed or len(MARKERS.findall(page)) != opened:
        sys.exit(f"{where}: {opened} tables begin with <!-- results: ... --> and {closed} end; expected pairs")
    return MARKERS.sub(replace, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results", help="folder of the .jsonl files")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="folder of README.md and docs")
    parser.add_argument("--check", action="store_true", help="fail if a page is not as it would be written")
    parser.add_argument("--pictures", action="store_true", help="draw docs/results-*.png")
    options = parser.parse_args()
    records = load_records(options.results)
    texts = tables(records)
    stale = []
    for name in PAGES:
        path = options.root / name
        if not path.exists():
            continue
        page = path.read_text(encoding="utf-8")
        new = filled(page, texts, name)
        if new != page:
            stale.append(name)
            if not options.check:
                path.write_text(new, encoding="utf-8")
                print(f"wrote {name}")
    if options.check and stale:
        print(f"{', '.join(stale)}: not what {options.results} says; run bench/experiments/report.py")
        return 1
    if options.pictures:
        from pictures import draw_all

        draw_all(records, options.root / "docs")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
