# SPDX-License-Identifier: Apache-2.0
"""The problem that the five companions' questions share: 2,000 CIFAR-10 images, or all of them on a GPU. A program's own
network and hyperparameters are its defaults."""
from experiment import Cell, flags

COMPANIONS = ("mimicnorm", "afan", "eman", "pruning", "unification")
HELD_OUT = 2000  # to select a rate on


def sizes(size: str, epochs: int, train_size: int = 2000) -> dict:
    """Flags for the data, and `epochs` of the CPU's `train_size` images; on a GPU 60 of all."""
    if size == "cpu":
        return {"data": "cifar10", "train_size": train_size, "epochs": epochs, "probe_size": 500}
    return {"data": "cifar10", "epochs": 60}


def methods(program: str, names: tuple[str, ...], rates: tuple[float, ...], given: dict) -> list[Cell]:
    """A cell for each method of a program that trains by one at a time."""
    return [
        Cell((("method", name),), program, flags(method=name, **given), rates, flags(validation=HELD_OUT))
        for name in names
    ]


def stages(program: str, names: tuple[str, ...], rate: float, given: dict) -> list[Cell]:
    """The one cell of a program that trains several networks, each from what came out of another."""
    return [Cell((), program, flags(**given), (rate,), (), parts=names)]
