# SPDX-License-Identifier: Apache-2.0
"""Blocks of one absolute value: in one shot and by ADMM, beside the dense network, all after equally many epochs."""
from experiment import Cell
from questions.companions import sizes, stages


def cells(size: str) -> list[Cell]:
    return stages("unification", ("dense", "one-shot", "admm"), 0.1, sizes(size, 10))
