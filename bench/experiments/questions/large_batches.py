# SPDX-License-Identifier: Apache-2.0
"""Batches of 128 and of 8,192 over all of a data set, in the same epochs: Adam, AdamW with its decay tuned, Adam with LAWN."""
from experiment import Cell
from questions.problems import RESNET18, against_decay

SMALL, LARGE = (3e-4, 1e-3, 3e-3), (1e-3, 3e-3, 1e-2)  # rates of small and of large batches
LAWN = {"Adam with LAWN": {}}


def cells(size: str) -> list[Cell]:
    if size == "cpu":
        whole = {"data": "fashion-mnist", "probe_size": 1000}
        problems = {
            "perceptron": {**whole, "network": "mlp", "epochs": 20},
            "small convolutional": {**whole, "network": "cnn", "epochs": 6},
        }
    else:
        problems = {"ResNet-18": RESNET18}
    return [
        cell
        for name, problem in problems.items()
        for batch, rates in ((8192, LARGE), (128, SMALL))  # the cheapest first
        for cell in against_decay({"network": name, "batch": str(batch)}, problem, rates, LAWN, batch_size=batch)
    ]
