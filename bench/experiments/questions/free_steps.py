# SPDX-License-Identifier: Apache-2.0
"""What T_free does: Adam with LAWN after different shares of the steps, beside Adam alone."""
from experiment import Cell
from questions.problems import MLP, RESNET18, cell

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


def cells(size: str) -> list[Cell]:
    problem, batch = (MLP, 50) if size == "cpu" else (RESNET18, 128)
    plain = cell({"optimizer": "adam", "free": "all"}, problem, "adam", False, batch_size=batch)
    return [plain] + [
        cell({"optimizer": "adam", "free": f"{share:g}"}, problem, "adam", True, batch_size=batch, free_fraction=share)
        for share in SHARES
    ]
