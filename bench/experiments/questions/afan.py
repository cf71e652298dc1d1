# SPDX-License-Identifier: Apache-2.0
"""Clean features, random signs and adversarial ones, the last two also with statistics mixed. One rate for all: what
differs is the loss."""
from experiment import Cell
from questions.companions import methods, sizes

METHODS = ("clean", "signs", "signs-mixed", "adversarial", "adversarial-mixed")


def cells(size: str) -> list[Cell]:
    return methods("afan", METHODS, (0.003,), sizes(size, 12))
