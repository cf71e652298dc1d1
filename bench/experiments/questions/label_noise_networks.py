# SPDX-License-Identifier: Apache-2.0
"""The same as `label_noise` on networks with batch norm, with half as many trials each, of the least and the most of its decays and
radii: they take minutes. `label_noise_vgg` has the one without on a CPU."""
from experiment import Cell
from questions.label_noise import DECAYS, RADII, SHARES
from questions.problems import RESNET18, RESNET20, against_decay

HELD = {"free_fraction": 0.0}
ALL = {"Adam with LAWN": HELD}
BY_HAND = {"Adam with LAWN, head": HELD, "Adam with LAWN, all by hand": {**HELD, "select": "all"}}

RATES = (3e-4, 1e-3, 3e-3)
ENDS = (0.0, 0.4)

SMALLER = {"train_size": 1000, "epochs": 25, "probe_size": 100}


def cells(size: str) -> list[Cell]:
    def network(name: str, problem: dict, lawn: dict[str, dict], shares: tuple[float, ...]) -> list[Cell]:
        return [
            cell
            for share in shares
            for cell in against_decay(
                {"network": name, "noise": f"{100 * share:g} %"},
                problem,
                RATES,
                lawn,
                decays=(DECAYS[0], DECAYS[-1]),
                tried=(RADII[0], RADII[-1]),
                label_noise=share,
            )
        ]

    if size == "cpu":
        return network("ResNet-20", {**RESNET20, **SMALLER}, BY_HAND, ENDS)
    problem = {**RESNET18, "batch_size": 128, "augment": False}  # crops keep a network from learning labels by heart
    return network("VGG", {**problem, "network": "vgg"}, ALL, SHARES) + network("ResNet-18", problem, BY_HAND, SHARES)
