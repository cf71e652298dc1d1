#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the curves of one or more runs: accuracy, loss, logit norm and weight norms by epoch.

    python3 plot.py out/adam.csv out/lawn-adam.csv --out curves.png

Needs matplotlib. Dashed lines are training, solid ones test; the dotted vertical line is the last
end of an epoch before LAWN holds the norms.
"""
import argparse
import csv
import pathlib
import sys


def read(path: pathlib.Path) -> dict[str, list[float]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        sys.exit(f"{path}: holds no epochs yet")
    missing = {"epoch", "test_accuracy", "weight_norm"} - rows[0].keys()
    if missing:
        sys.exit(f"{path}: not a file that cifar10 wrote: no column {', '.join(sorted(missing))}")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def draw(runs: dict[str, dict[str, list[float]]], out: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ((accuracy, loss), (logits, weights)) = plt.subplots(2, 2, figsize=(11, 7.5))
    for index, (name, run) in enumerate(runs.items()):
        colour = f"C{index}"
        epochs = run["epoch"]
        for axes, figure_name in ((accuracy, "accuracy"), (loss, "loss"), (logits, "logit_norm")):
            axes.plot(epochs, run[f"train_{figure_name}"], "--", color=colour, alpha=0.6)
            axes.plot(epochs, run[f"test_{figure_name}"], color=colour, label=name)
        for column in (column for column in run if column.startswith("norm:")):
            relative = [norm / run[column][0] for norm in run[column]]
            weights.plot(epochs, relative, color=colour, alpha=0.3, linewidth=1)
        relative = [norm / run["weight_norm"][0] for norm in run["weight_norm"]]
        weights.plot(epochs, relative, color=colour, label=name)
        if 1.0 in run["constrained"]:
            switch = epochs[run["constrained"].index(1.0)] - 1  # the last epoch that ended free
            for axes in (accuracy, loss, logits, weights):
                axes.axvline(switch, color=colour, linestyle=":", alpha=0.6)
    accuracy.set_title("accuracy (dashed: training)")
    loss.set_title("cross-entropy (dashed: training)")
    loss.set_yscale("log")
    logits.set_title("mean norm of the logits (dashed: training)")
    weights.set_title("weight norms, relative to epoch 1 (thin: each layer)")
    for axes in (accuracy, loss, logits, weights):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="+", type=pathlib.Path, help="files that cifar10 wrote")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("curves.png"), help="the picture [curves.png]")
    arguments = parser.parse_args()
    runs = {}
    for path in arguments.csv:
        name = path.stem if path.stem not in runs else str(path)
        runs[name] = read(path)
    draw(runs, arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
