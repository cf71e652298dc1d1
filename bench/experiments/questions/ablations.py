# SPDX-License-Identifier: Apache-2.0
"""LAWN with each of its parts taken away, and Adam with LAWN's schedule alone."""
from experiment import Cell
from questions.problems import FREE, MLP, RESNET18, cell


def cells(size: str) -> list[Cell]:
    problem, batch = (MLP, 50) if size == "cpu" else (RESNET18, 128)

    def variant(name: str, lawn: bool, **more) -> Cell:
        return cell({"method": name}, problem, "adam", lawn, batch_size=batch, **more)

    return [
        variant("Adam", False),
        variant("Adam with LAWN", True),
        variant("without the projection", True, ablate="projection"),
        variant("without the rescaling", True, ablate="rescaling"),
        variant("without the free phase", True, free_fraction=0.0),
        variant("the schedule alone", False, two_part_schedule=True, free_fraction=FREE),
    ]
