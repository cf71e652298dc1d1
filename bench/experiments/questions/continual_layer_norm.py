# SPDX-License-Identifier: Apache-2.0
"""The stream of random labels once more, by a perceptron with layer norm between its layers: the methods, trials and seeds of the
question `continual`. The walk finds the head; LAWN is given all weights, too."""
from experiment import Cell
from questions.continual import cell

METHODS = ("adam", "lawn", "l2-init", "adamw", "shrink-and-perturb", "fresh")


def cells(size: str) -> list[Cell]:
    given = {"seeds": 5, "layer_norm": True, **({} if size == "cpu" else {"train_size": 6400})}
    found = [cell("random-labels", method, **given) for method in METHODS]
    return [*found, cell("random-labels", "lawn", held=", all weights", select="all", **given)]
