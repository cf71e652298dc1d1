# SPDX-License-Identifier: Apache-2.0
"""Do convolutional networks keep learning? Pairs of classes of CIFAR-10, one after the other, by a VGG without
normalisation and by ResNet-20 with and without batch norm; growing sets of classes; and a warm start.

Every method has four trials, of pairs on another stream of half as many tasks, else on images that are held out. LAWN is given
all weights of the ResNet with batch norm, of which the walk finds the head alone."""
from experiment import Cell, flags

SLOW, FAST = flags(betas="0.9,0.999"), flags(betas="0.9,0.95")
RATES = (3e-4, 1e-3)
METHODS = {  # what is tried with each rate
    "adam": (SLOW, FAST),
    "l2-init": (flags(strength=1e-3), flags(strength=1e-2)),
    "shrink-and-perturb": (flags(shrink=0.6, perturb=0.1), flags(shrink=0.9, perturb=0.1)),
    "fresh": (SLOW, FAST),
    "lawn": (SLOW, FAST),
}


def streams(size: str) -> list[tuple[dict, tuple, tuple[str, ...]]]:
    """Flags of a stream, those of its select runs, and what is trained on it; the most important first."""
    few = ("adam", "shrink-and-perturb", "fresh", "lawn")
    pairs, rest, held_out = (1600, {"train_size": 1000}, 1000) if size == "cpu" else (50000, {}, 5000)
    pairs = {"stream": "class-pairs", "train_size": pairs, "epochs": 2, "probe_size": 200}
    rest = {**rest, "probe_size": 1000}
    return [
        *(({**pairs, "network": name}, flags(tasks=50), tuple(METHODS)) for name in ("vgg", "resnet20-without-norm", "resnet20")),
        ({"stream": "warm-start", "network": "resnet20", "epochs": 20, **rest}, flags(validation=held_out), few),
        ({"stream": "growing-classes", "network": "vgg", "epochs": 5, **rest}, flags(validation=held_out), few),
    ]


def cells(size: str) -> list[Cell]:
    return [
        Cell(
            labels=(("stream", given["stream"]), ("network", given["network"]), ("method", method)),
            program="continual",
            flags=flags(
                method=method,
                data="cifar10",
                select="all" if (method, given["network"]) == ("lawn", "resnet20") else False,
                **given,
            ),
            rates=RATES,
            validation=chosen_on,
            extras=METHODS[method],
        )
        for given, chosen_on, methods in streams(size)
        for method in methods
    ]
