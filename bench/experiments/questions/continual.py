# SPDX-License-Identifier: Apache-2.0
"""Do networks keep learning? A perceptron on a stream of tasks, random labels first of all, by plain optimizers, by methods
against the loss of plasticity and by LAWN.

Every method has twelve trials on another stream (of another seed), of forty tasks, and is chosen by the accuracy of batches
before they are trained on, as a mean over all of these tasks. Decays of Adam's moments are tried for all that have them."""
from experiment import Cell, flags

CONTINUAL = ("continual", "continual_layer_norm", "continual_rates", "continual_why", "continual_networks")
DATA = {"data": "fashion-mnist"}
TUNED_ON = flags(tasks=40)  # of the stream of SELECTION_SEED

SLOW, FAST = flags(betas="0.9,0.999"), flags(betas="0.9,0.95")
SIX = (1e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3)
THREE = (3e-4, 1e-3, 3e-3)
TWO = (5e-4, 1e-3)

METHODS = {  # rates, and what else is tried: twelve trials each
    "adam": (SIX, (SLOW, FAST)),
    "lawn": (SIX, (SLOW, FAST)),
    "l2-init": (TWO, tuple((*betas, *flags(strength=s)) for betas in (SLOW, FAST) for s in (1e-4, 1e-3, 1e-2))),
    "adamw": (THREE, tuple((*betas, *flags(weight_decay=decay)) for betas in (SLOW, FAST) for decay in (0.1, 1.0))),
    "lawn+l2-init": (TWO, tuple((*betas, *flags(strength=s)) for betas in (SLOW, FAST) for s in (1e-4, 1e-3, 1e-2))),
    "shrink-and-perturb": (
        TWO,
        tuple(
            (*betas, *flags(shrink=shrink, perturb=perturb))
            for betas in (SLOW, FAST)
            for shrink, perturb in ((0.3, 0.5), (0.6, 0.1), (0.8, 0.2))
        ),
    ),
    "sgd": ((0.003, 0.01, 0.03, 0.1), tuple(flags(weight_decay=decay) for decay in (0, 1e-4, 1e-3))),
    "fresh": (SIX, (SLOW, FAST)),
}


def cell(stream: str, method: str, seeds: int, trials: tuple | None = None, **more) -> Cell:
    """`trials`: in place of those of METHODS."""
    rates, extras = trials or METHODS[method]
    return Cell(
        labels=(("stream", stream), ("method", method)),
        program="continual",
        flags=flags(stream=stream, method=method, **DATA, **more),
        rates=rates,
        validation=TUNED_ON,
        seeds=tuple(range(seeds)),
        extras=extras,
    )


def cells(size: str) -> list[Cell]:
    """The headline first. A GPU's size is longer tasks of more images."""
    labels, pixels = ({}, {}) if size == "cpu" else ({"train_size": 6400}, {"train_size": 60000})
    return [cell("random-labels", method, 5, **labels) for method in METHODS] + [
        cell("permuted-inputs", method, 3, **pixels) for method in METHODS
    ]
