# SPDX-License-Identifier: Apache-2.0
"""Logits, vanished gradients and updates over training. Needs no runs of its own: it looks at those of others."""
from experiment import Cell
from questions import batch_size, networks, optimizers


def cells(size: str) -> list[Cell]:
    once = {}
    for question in (optimizers, batch_size, networks):
        for cell in question.cells(size):
            once.setdefault(cell.flags, cell)
    return list(once.values())
