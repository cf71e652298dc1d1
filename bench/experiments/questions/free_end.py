# SPDX-License-Identifier: Apache-2.0
"""Where should the free phase end? LAWN around Adam after fixed shares of the steps, and where an automatic end would be: where
the growth of the norms first slows after the warm-up. Up to the switch a run is Adam's bit for bit, so that such an end is a
fixed share, too: that of the plain runs with these settings, in the median of three seeds. Nothing is tuned."""
from experiment import Cell
from questions.problems import MLP, cell

RATE = (1e-3,)
PROBLEMS = {  # flags, and the share of steps after which the growth of the norms slows
    "perceptron": ({**MLP, "batch_size": 50}, 0.07),
    "perceptron, 40 % wrong labels": ({**MLP, "batch_size": 50, "label_noise": 0.4}, 0.11),
}
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)


def cells(size: str) -> list[Cell]:
    if size == "gpu":
        return []
    found = []
    for name, (problem, bend) in PROBLEMS.items():
        found.append(cell({"problem": name, "free": "all"}, problem, "adam", False, RATE))
        for share in (*SHARES, bend):
            free = f"{share:g}" + (", by the norms" if share == bend else "")
            found.append(cell({"problem": name, "free": free}, problem, "adam", True, RATE, free_fraction=share))
    return found
