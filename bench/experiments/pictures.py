# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of docs/results.md from the records of runs. Needs matplotlib."""
import importlib
import pathlib
import statistics

from experiment import Cell

PLAIN, LAWN, BY_HAND = "C0", "C1", "C2"


def colour(cell: Cell) -> str:
    given = dict(cell.flags)
    if given.get("lawn") != "on":
        return PLAIN
    return BY_HAND if given.get("select") == "all" else LAWN


def label(cell: Cell) -> str:
    given = dict(cell.flags)
    if given.get("lawn") != "on":
        return given["optimizer"]
    return f"{given['optimizer']} with LAWN" + (", all layers" if given.get("select") == "all" else "")


def error_bars(axes, places: list[float], cells: list[Cell], records: dict, figure: str, **style) -> None:
    """Mean and standard deviation of a figure for each cell that has runs."""
    points = []
    for place, cell in zip(places, cells):
        values = [record["figures"][figure] for record in cell.finals(records)]
        if values and None not in values:
            points.append((place, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0))
    if points:
        axes.errorbar(*zip(*[(x, y) for x, y, _ in points]), yerr=[e for *_, e in points], marker="o", capsize=3, **style)


FIGURES = (
    ("test_accuracy", "test accuracy"),
    ("test_loss", "test loss"),
    ("test_calibration", "calibration error"),
    ("train_logit_norm", "mean logit norm, train"),
)


def compared(plt, cells: list[Cell], records: dict, xlabel: str, draw):
    """A panel for each of FIGURES, into which `draw(axes, figure)` draws cells that have runs."""
    if not any(cell.finals(records) for cell in cells):
        return None
    figure, panels = plt.subplots(1, len(FIGURES), figsize=(4 * len(FIGURES), 3.6))
    for axes, (name, title) in zip(panels, FIGURES):
        draw(axes, name)
        axes.set_xlabel(xlabel)
        axes.set_title(title)
        axes.grid(alpha=0.3)
    panels[0].legend()
    return figure


def by_batch_size(plt, cells: list[Cell], records: dict):
    """Figures against the batch size, plain and with LAWN."""

    def draw(axes, name: str) -> None:
        for lawn in (False, True):
            side = [cell for cell in cells if (dict(cell.flags).get("lawn") == "on") == lawn]
            places = [float(dict(cell.flags)["batch-size"]) for cell in side]
            error_bars(axes, places, side, records, name, color=colour(side[0]), label=label(side[0]))
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({int(dict(cell.flags)["batch-size"]) for cell in cells}))
        axes.xaxis.set_major_formatter(plt.ScalarFormatter())

    return compared(plt, cells, records, "batch size", draw)


def by_free_steps(plt, cells: list[Cell], records: dict):
    """Figures against the share of free steps; the plain optimizer is free for all of them."""

    def draw(axes, name: str) -> None:
        lawn = [cell for cell in cells if dict(cell.flags).get("lawn") == "on"]
        plain = [cell for cell in cells if cell not in lawn]
        places = [float(dict(cell.flags)["free-fraction"]) for cell in lawn]
        error_bars(axes, places, lawn, records, name, color=LAWN, label="LAWN")
        error_bars(axes, [1.0] * len(plain), plain, records, name, color=PLAIN, label="plain")

    return compared(plt, cells, records, "share of free steps", draw)


def over_training(plt, cells: list[Cell], records: dict):
    """Logit norm, vanished share, update norm and weight norm over training with Adam: a row for each problem, a line
    for each run."""
    problems = {}
    for cell in cells:
        given = dict(cell.flags)
        if given["optimizer"] == "adam" and cell.finals(records):
            problems.setdefault((given["network"], given["batch-size"]), []).append(cell)
    if not problems:
        return None
    columns = (
        ("train_logit_norm", "mean logit norm, train", False),
        ("train_vanished", "share with a vanished gradient", False),
        ("update_norm", "norm of a step's update", True),
        ("weight_norm", "norm of the sub-network, relative to epoch 1", False),
    )
    figure, panels = plt.subplots(len(problems), 4, figsize=(16, 3.4 * len(problems)), squeeze=False)
    for line, ((network, batch), row) in zip(panels, problems.items()):
        for axes, (column, title, logarithmic) in zip(line, columns):
            for cell in row:
                for index, record in enumerate(cell.finals(records)):
                    history, shown = record["history"], label(cell) if index == 0 else None
                    curve = history[column]
                    if column == "weight_norm":  # relative to the first epoch's end
                        curve = [value / curve[0] for value in curve]
                    if column == "update_norm":  # the cosine ends next to a learning rate of zero
                        curve = [*curve[:-1], None]
                    pairs = [(x, y) for x, y in zip(history["epoch"], curve) if y is not None]
                    axes.plot(*zip(*pairs), color=colour(cell), alpha=0.7, linewidth=1.2, label=shown)
            if logarithmic:
                axes.set_yscale("log")
            axes.set_title(f"{network}, batches of {batch}: {title}", fontsize=9)
            axes.set_xlabel("epoch")
            axes.grid(alpha=0.3)
        line[0].legend(fontsize=8)
    return figure


def over_tasks(plt, cells: list[Cell], records: dict):
    """Accuracy at the end of a task, norms, dead units and the angle of a step, from task to task: a row for each stream, and
    for each method the mean over seeds, in a band from the smallest to the largest."""
    streams, colours = {}, {}
    for cell in cells:
        if cell.finals(records):
            streams.setdefault(dict(cell.labels)["stream"], []).append(cell)
            colours.setdefault(dict(cell.labels)["method"], f"C{len(colours)}")
    if not streams:
        return None
    columns = (
        ("task_accuracy", "accuracy at the end of a task"),
        ("weight_norm", "norm of the constrained weights, relative to task 1"),
        ("dead_units", "share of dead units"),
        ("angle", "angle of a step"),
    )
    figure, panels = plt.subplots(len(streams), 4, figsize=(16, 3.4 * len(streams)), squeeze=False)
    for line, (stream, row) in zip(panels, streams.items()):
        for axes, (column, title) in zip(line, columns):
            for cell in row:
                method = dict(cell.labels)["method"]
                histories = [record["history"] for record in cell.finals(records)]
                curves = [history[column] for history in histories]
                if column == "weight_norm":
                    curves = [[value / curve[0] for value in curve] for curve in curves]
                tasks, by_task = histories[0]["task"], list(zip(*curves))
                axes.plot(tasks, [statistics.fmean(values) for values in by_task], color=colours[method], label=method)
                axes.fill_between(tasks, *zip(*[(min(v), max(v)) for v in by_task]), color=colours[method], alpha=0.2, linewidth=0)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("task")
            axes.grid(alpha=0.3)
        line[0].set_ylabel(stream)
    shown = {label: line for row in panels for line, label in zip(*row[0].get_legend_handles_labels())}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=9)
    return figure


def over_random_labels(plt, cells: list[Cell], records: dict):
    """The same for the streams and the methods that the README shows first."""
    shown = ("adam", "lawn", "l2-init", "adamw")
    labels = [dict(cell.labels) for cell in cells]
    chosen = [c for c, l in zip(cells, labels) if l["stream"].startswith("random-labels") and l["method"] in shown]
    return over_tasks(plt, chosen, records)


def draw_all(records: dict, folder: pathlib.Path) -> None:
    """Draws every picture whose runs are there into `folder`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["figure.constrained_layout.use"] = True
    for size in ("cpu", "gpu"):
        for name, questions, draw in (
            ("batch-size", ["batch_size"], by_batch_size),
            ("free-steps", ["free_steps"], by_free_steps),
            ("mechanism", ["mechanism"], over_training),
            ("continual", ["continual", "continual_layer_norm"], over_random_labels),
            ("continual-all", ["continual", "continual_layer_norm"], over_tasks),
        ):
            cells = [cell for question in questions for cell in importlib.import_module(f"questions.{question}").cells(size)]
            figure = draw(plt, cells, records)
            if figure is None:
                continue
            path = folder / f"results-{size}-{name}.png"
            figure.savefig(path, dpi=80)
            plt.close(figure)
            print(f"wrote {path}")
