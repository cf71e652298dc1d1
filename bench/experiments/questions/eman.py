# SPDX-License-Identifier: Apache-2.0
"""Few labels: the student alone, and teachers of it whose batch-norm buffers are averaged, copied, stale or of the batch.
One rate for all: what differs is the teacher."""
from experiment import Cell
from questions.companions import methods, sizes

METHODS = ("student", "eman", "copied", "stale", "batch-statistics")


def cells(size: str) -> list[Cell]:
    given = {**sizes(size, 20, train_size=4000), "labels": 1000 if size == "cpu" else 4000}
    return methods("eman", METHODS, (0.01,), given)
