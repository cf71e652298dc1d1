# SPDX-License-Identifier: Apache-2.0
"""The problems and methods that several questions share.

    mlp       784-256-256-10 on 4,000 Fashion-MNIST images, 100 epochs: fits them within the first third, at any batch
    vgg       without normalisation, on 2,000 CIFAR-10 images
    resnet20  with batch norm, on the same
    resnet18  on all of CIFAR-10, cropped and flipped, bfloat16: for a GPU

Rates and weight decays are customary ones: Adam and LAMB around 1e-3 and 1e-2, SGD with momentum 0.9 around 0.05; large
batches are tried with rates one place further up.
LAWN is free for a tenth of the steps unless the question is what that does; select runs hold out training images that
the final runs do not train on either, where there are enough.
"""
from experiment import Cell, flags

FREE = 0.1

RATES = {
    "sgd": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "adamw": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "lamb": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
}
TRIALS = 5  # of them: the smallest for small batches, the largest for large ones
LARGE_BATCH = 500
WEIGHT_DECAY = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.1, "lamb": 0.01}

MLP = {"network": "mlp", "data": "fashion-mnist", "train_size": 4000, "epochs": 100, "probe_size": 1000}
VGG = {"network": "vgg", "data": "cifar10", "train_size": 2000, "epochs": 40, "batch_size": 32, "probe_size": 500}
RESNET20 = {**VGG, "network": "resnet20"}
RESNET18 = {"network": "resnet18", "data": "cifar10", "epochs": 60, "augment": True, "precision": "bfloat16"}
HELD_OUT = {"mlp": 10000, "cnn": 10000, "vgg": 5000, "resnet20": 5000, "resnet18": 5000}


def cell(
    labels: dict,
    problem: dict,
    optimizer: str,
    lawn: bool,
    rates: tuple[float, ...] | None = None,
    tried: tuple[dict, ...] = ({},),
    seeds: tuple[int, ...] = (0, 1, 2),
    **more,
) -> Cell:
    """A cell of the program cifar10: an optimizer, plain or with LAWN, on a problem; `tried` are flags to choose from."""
    base = optimizer.removeprefix("fused-")
    given = {**problem, "optimizer": optimizer, "weight_decay": WEIGHT_DECAY[base], "lawn": lawn, **more}
    if lawn:
        given.setdefault("free_fraction", FREE)
    given = {name: value for name, value in given.items() if name not in tried[0]}
    usual = RATES[base]
    usual = usual[-TRIALS:] if given["batch_size"] >= LARGE_BATCH else usual[:TRIALS]
    return Cell(
        labels=tuple(labels.items()),
        program="cifar10",
        flags=flags(**given),
        rates=rates or usual,
        validation=flags(validation=HELD_OUT[problem["network"]]),
        seeds=seeds,
        extras=tuple(flags(**more) for more in tried),
    )


DECAYS = tuple({"weight_decay": decay} for decay in (0.1, 1.0))
FREE_SHARES = tuple({"free_fraction": share} for share in (0.0, FREE))


def against_decay(
    labels: dict,
    problem: dict,
    rates: tuple[float, ...],
    lawn: dict[str, dict],
    decays: tuple[dict, ...] = DECAYS,
    tried: tuple[dict, ...] = FREE_SHARES,
    **more,
) -> list[Cell]:
    """Adam; AdamW, whose decay is chosen with its rate; Adam with LAWN, of which `tried` is. As many trials each: what Adam has
    of the last two's six are more rates between theirs.

    lawn    what LAWN's rows are called, and their flags
    rates   three
    decays  two, as are what is tried of LAWN
    """
    low, middle, high = rates
    finer = (low / 3, low, (low * middle) ** 0.5, middle, (middle * high) ** 0.5, high)
    finer = tuple(float(f"{rate:.1g}") for rate in finer)
    adam = cell({**labels, "method": "Adam"}, problem, "adam", False, finer, **more)
    adamw = cell({**labels, "method": "AdamW, tuned decay"}, problem, "adamw", False, rates, decays, **more)
    return [adam, adamw] + [
        cell({**labels, "method": name}, problem, "adam", True, rates, tried, **given, **more)
        for name, given in lawn.items()
    ]


def pair(labels: dict, problem: dict, optimizer: str, rates: tuple[float, ...] | None = None, **more) -> list[Cell]:
    """The plain optimizer and LAWN around it."""
    return [
        cell({**labels, "LAWN": "yes" if lawn else "no"}, problem, optimizer, lawn, rates, **more)
        for lawn in (False, True)
    ]
