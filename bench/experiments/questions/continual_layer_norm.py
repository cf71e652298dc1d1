# SPDX-License-Identifier: Apache-2.0
"""The stream of random labels once more, by a perceptron with layer norm between its layers: the methods, the number of trials and
the seeds of the question `continual`. The walk finds the head; LAWN is given all weights, too. With layer norm larger rates are
good: methods with further settings try them in place of the slow betas, which are worse for Adam here."""
import dataclasses

from experiment import Cell
from questions.continual import FAST, METHODS, cell

NAMES = ("adam", "lawn", "l2-init", "adamw", "shrink-and-perturb", "fresh")
FOUR = (5e-4, 1e-3, 2e-3, 3e-3)


def trials(method: str) -> tuple:
    rates, extras = METHODS[method]
    fast = tuple(extra for extra in extras if set(FAST) <= set(extra))
    return (FOUR, fast) if len(fast) * len(FOUR) == len(rates) * len(extras) else (rates, extras)


def cells(size: str) -> list[Cell]:
    given = {"seeds": 5, "layer_norm": True, **({} if size == "cpu" else {"train_size": 6400})}

    def one(method: str, name: str, **more) -> Cell:
        made = cell("random-labels", method, trials=trials(method), **given, **more)
        return dataclasses.replace(made, labels=(("stream", "random-labels, layer norm"), ("method", name)))

    return [*(one(name, name) for name in NAMES), one("lawn", "lawn, all weights", select="all")]
