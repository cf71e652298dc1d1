#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the curves of one or more runs over the tasks of a stream: accuracy, weight norm, dead units, angle of a step.

    python3 plot.py out/adam.csv out/lawn.csv --out curves.png

Needs matplotlib. Thin lines are tasks, thick ones means over a window of them; the dotted vertical line is the last task that
LAWN began free.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import plotting  # noqa: E402


def smooth(values: list[float]) -> list[float]:
    """Means over a window of a tenth of the values, shorter at the ends."""
    half = len(values) // 20
    windows = (values[max(0, place - half) : place + half + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def draw(runs: dict[str, plotting.Run]):
    import matplotlib.pyplot as plt

    main = "test_accuracy" if all("test_accuracy" in run for run in runs.values()) else "task_accuracy"
    pictures = {
        "online_accuracy": "accuracy on each batch before it is trained on",
        main: f"{main.split('_')[0]} accuracy at the end of a task",
        "all_weights_norm": "norm of all weights, relative to the first task's end",
        "weight_norm": "norm of the sub-network, relative to the first task's end",
        "dead_units": "share of dead units",
        "angle": "angle by which a step turns weights, rad",
    }
    figure, panes = plt.subplots(3, 2, figsize=(11, 10))
    for axes, (column, title) in zip(panes.flat, pictures.items()):
        for index, (name, run) in enumerate(runs.items()):
            values = run[column]
            if column.endswith("norm"):
                values = [value / values[0] for value in values]
            axes.plot(run["task"], values, color=f"C{index}", alpha=0.3, linewidth=1)
            axes.plot(run["task"], smooth(values), color=f"C{index}", label=name)
            if 1.0 in run["constrained"] and 0.0 in run["constrained"]:
                axes.axvline(run["task"][run["constrained"].index(1.0) - 1], color=f"C{index}", linestyle=":", alpha=0.6)
        axes.set_title(title)
        axes.set_xlabel("task")
        axes.grid(alpha=0.3)
    panes.flat[-1].set_yscale("log")
    panes.flat[0].legend()
    return figure


if __name__ == "__main__":
    plotting.main(__doc__, "continual", "task", {"task", "online_accuracy", "dead_units", "angle"}, draw)
