# SPDX-License-Identifier: Apache-2.0
"""A share of the training labels replaced at random, on a perceptron: Adam, AdamW with its decay tuned at each share, Adam with
LAWN. What is held out to choose by has its labels, as the test images have. Label noise is drawn anew for each seed."""
from experiment import Cell
from questions.problems import MLP, cell

SHARES = (0.0, 0.2, 0.4, 0.6)

# With wrong labels small rates are good, as is stopping early.
MANY = (2e-5, 3e-5, 5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3, 3e-3)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
DECAYS = tuple({"weight_decay": decay} for decay in (1.0, 3.0, 10.0))
RADII = tuple({"radius_scale": scale} for scale in (1.0, 0.7, 0.5))


def by_twelve(network: str, problem: dict, share: float, radii: tuple[dict, ...] = RADII) -> list[Cell]:
    """Three methods at a share of wrong labels, each with twelve trials."""
    labels = {"network": network, "noise": f"{100 * share:g} %"}
    return [
        cell({**labels, "method": "Adam"}, problem, "adam", False, MANY, label_noise=share),
        cell({**labels, "method": "AdamW, tuned decay"}, problem, "adamw", False, RATES, DECAYS, label_noise=share),
        cell({**labels, "method": "Adam with LAWN"}, problem, "adam", True, RATES, radii, free_fraction=0.0, label_noise=share),
    ]


def cells(size: str) -> list[Cell]:
    if size == "gpu":
        return []
    return [one for share in SHARES for one in by_twelve("perceptron", {**MLP, "batch_size": 100}, share)]
