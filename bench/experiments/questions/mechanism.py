# SPDX-License-Identifier: Apache-2.0
"""Logits, vanished gradients and updates over training. Needs no runs of its own: it looks at those of others."""
from experiment import Cell
from questions import networks, optimizers


def cells(size: str) -> list[Cell]:
    adam = [cell for cell in optimizers.cells(size) if dict(cell.labels)["optimizer"] == "adam"]
    return adam + networks.cells(size)
