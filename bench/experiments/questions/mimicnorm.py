# SPDX-License-Identifier: Apache-2.0
"""Batch norm, none, and MimicNorm's two parts, alone and together, in a chain of convolutions."""
from experiment import Cell
from questions.companions import methods, sizes

METHODS = ("batch-norm", "none", "last-norm", "centred", "mimicnorm")


def cells(size: str) -> list[Cell]:
    return methods("mimicnorm", METHODS, (0.01, 0.03, 0.1), sizes(size, 12))
