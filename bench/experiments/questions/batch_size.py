# SPDX-License-Identifier: Apache-2.0
"""How accuracy, loss and calibration move as batches grow while the number of epochs stays."""
from experiment import Cell
from questions.problems import MLP, RESNET18, pair


def cells(size: str) -> list[Cell]:
    problem, batches = (MLP, (50, 200, 800, 2000)) if size == "cpu" else (RESNET18, (128, 512, 2048, 8192))
    return [
        cell
        for batch in reversed(batches)  # the cheapest first
        for cell in pair({"optimizer": "adam", "batch": str(batch)}, problem, "adam", batch_size=batch)
    ]
