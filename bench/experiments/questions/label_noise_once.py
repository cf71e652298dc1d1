# SPDX-License-Identifier: Apache-2.0
"""40 % wrong labels on all of CIFAR-10 for ResNet-18, nothing tuned, one seed: what a few minutes of a GPU show."""
from experiment import Cell
from questions.problems import RESNET18, cell

PROBLEM = {**RESNET18, "batch_size": 128, "augment": False, "epochs": 15, "label_noise": 0.4}
RATE = (1e-3,)
METHODS = {  # fused: the same steps in less time
    "Adam": ("fused-adam", False, {}),
    "AdamW, decay 1": ("fused-adamw", False, {"weight_decay": 1.0}),
    "Adam with LAWN, head": ("fused-adam", True, {}),
    "Adam with LAWN, all by hand": ("fused-adam", True, {"select": "all"}),
}


def cells(size: str) -> list[Cell]:
    if size == "cpu":
        return []
    return [
        cell({"network": "ResNet-18", "noise": "40 %", "method": name}, PROBLEM, optimizer, lawn, RATE, seeds=(0,), **more)
        for name, (optimizer, lawn, more) in METHODS.items()
    ]
