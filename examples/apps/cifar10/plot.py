#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the curves of one or more runs: accuracy, loss, logit norm and weight norms by epoch.

    python3 plot.py out/adam.csv out/lawn-adam.csv --out curves.png

Needs matplotlib. Dashed lines are training, solid ones test; the dotted vertical line is the last
end of an epoch before LAWN holds the norms.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import plotting  # noqa: E402


def draw(runs: dict[str, plotting.Run]):
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
    return figure


if __name__ == "__main__":
    plotting.main(__doc__, "cifar10", "epoch", {"epoch", "test_accuracy", "weight_norm"}, draw)
