# SPDX-License-Identifier: Apache-2.0
"""Networks whose sub-network is everything (VGG without normalisation) and whose sub-network is the head (ResNet with
batch norm); for the latter also with every layer constrained by hand."""
from experiment import Cell
from questions.problems import RESNET18, RESNET20, VGG, cell

RATES = (3e-4, 1e-3, 3e-3)


def cells(size: str) -> list[Cell]:
    def three(name: str, problem: dict, choices: tuple) -> list[Cell]:
        return [
            cell({"network": name, "constrained": constrained}, problem, "adam", constrained != "nothing", RATES, **more)
            for constrained, more in choices
        ]

    nothing, all_by_hand = ("nothing", {}), ("all, by hand", {"select": "all"})
    if size == "cpu":
        vgg = three("VGG", VGG, (nothing, ("all", {})))
        return vgg + three("ResNet-20", RESNET20, (nothing, ("head", {}), all_by_hand))
    vgg = {**RESNET18, "network": "vgg"}
    return three("VGG", {**vgg, "batch_size": 128}, (nothing, ("all", {}))) + three(
        "ResNet-18", {**RESNET18, "batch_size": 128}, (nothing, ("head", {}), all_by_hand)
    )
