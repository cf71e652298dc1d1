# SPDX-License-Identifier: Apache-2.0
"""The same as `label_noise` on a VGG, with smaller radii: its initial norms are 2.4 times LibTorch's default ones."""
from experiment import Cell
from questions.label_noise import by_twelve
from questions.label_noise_networks import ENDS, SMALLER
from questions.problems import VGG

RADII = tuple({"radius_scale": scale} for scale in (1.0, 0.5, 0.4))


def cells(size: str) -> list[Cell]:
    if size == "gpu":
        return []  # `label_noise_networks` has it there
    return [cell for share in ENDS for cell in by_twelve("VGG", {**VGG, **SMALLER}, share, RADII)]
