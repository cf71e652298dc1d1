# SPDX-License-Identifier: Apache-2.0
"""Few labels: the student alone, and teachers of it whose batch-norm buffers are averaged, copied, stale or of the batch.
One rate for all: what differs is the teacher."""
from experiment import Cell
from questions.companions import methods, sizes

METHODS = ("student", "eman", "copied", "stale", "batch-statistics")


def cells(size: str) -> list[Cell]:
    return methods("eman", METHODS, (0.003,), sizes(size, 20))
