# SPDX-License-Identifier: Apache-2.0
"""A share of the training labels replaced at random: Adam, AdamW with its decay tuned at each share, Adam with LAWN. What is
held out to choose by has its labels, as the test images have. Label noise is drawn anew for each seed."""
from experiment import Cell
from questions.problems import MLP, RESNET18, RESNET20, VGG, against_decay, cell

ALL = {"Adam with LAWN": {}}
BY_HAND = {"Adam with LAWN, head": {}, "Adam with LAWN, all by hand": {"select": "all"}}

RATES = (3e-4, 1e-3, 3e-3)
SHARES = (0.0, 0.2, 0.4, 0.6)
ENDS = (0.0, 0.4)  # of networks that take minutes

SMALLER = {"train_size": 1000, "epochs": 25}

# Twelve trials of each method on the perceptron, which is quick. With wrong labels small rates are good, as is stopping early.
MANY = (3e-5, 5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3)
FOUR = (1e-4, *RATES)
DECAYS = tuple({"weight_decay": decay} for decay in (0.1, 1.0, 3.0))
HELD = tuple({"free_fraction": free, "radius_scale": scale} for free, scale in ((0.1, 1.0), (0.0, 1.0), (0.0, 0.7)))


def perceptron(share: float) -> list[Cell]:
    problem = {**MLP, "batch_size": 100}
    noise = {"network": "perceptron", "noise": f"{100 * share:g} %"}
    return [
        cell({**noise, "method": "Adam"}, problem, "adam", False, MANY, label_noise=share),
        cell({**noise, "method": "AdamW, tuned decay"}, problem, "adamw", False, FOUR, DECAYS, label_noise=share),
        cell({**noise, "method": "Adam with LAWN"}, problem, "adam", True, FOUR, HELD, label_noise=share),
    ]


def cells(size: str) -> list[Cell]:
    def network(name: str, problem: dict, lawn: dict[str, dict], shares: tuple[float, ...]) -> list[Cell]:
        return [
            cell
            for share in shares
            for cell in against_decay(
                {"network": name, "noise": f"{100 * share:g} %"}, problem, RATES, lawn, label_noise=share
            )
        ]

    if size == "cpu":
        return (
            [cell for share in SHARES for cell in perceptron(share)]
            + network("VGG", {**VGG, **SMALLER}, ALL, ENDS)
            + network("ResNet-20", {**RESNET20, **SMALLER}, BY_HAND, ENDS)
        )
    problem = {**RESNET18, "batch_size": 128, "augment": False}  # crops keep a network from learning labels by heart
    return network("VGG", {**problem, "network": "vgg"}, ALL, SHARES) + network("ResNet-18", problem, BY_HAND, SHARES)
