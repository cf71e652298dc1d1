# SPDX-License-Identifier: Apache-2.0
"""Adam, AdamW, SGD and LAMB, plain and with LAWN, in small and in large batches."""
from experiment import Cell
from questions.problems import MLP, RESNET18, pair


def cells(size: str) -> list[Cell]:
    problem, small, large = (MLP, 50, 800) if size == "cpu" else (RESNET18, 128, 2048)
    return [
        cell
        for optimizer in ("adam", "sgd", "adamw", "lamb")
        for batch in (small, large)
        for cell in pair({"optimizer": optimizer, "batch": str(batch)}, problem, optimizer, batch_size=batch)
    ]
