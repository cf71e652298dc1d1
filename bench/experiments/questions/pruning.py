# SPDX-License-Identifier: Apache-2.0
"""A dense network, and what 95 % pruning leaves of it: trained on, rewound to the start, and from fresh weights."""
from experiment import Cell
from questions.companions import sizes, stages


def cells(size: str) -> list[Cell]:
    return stages("pruning", ("dense", "fine-tune", "ticket", "fresh"), 0.1, sizes(size, 12))
