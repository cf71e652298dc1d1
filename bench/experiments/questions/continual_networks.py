# SPDX-License-Identifier: Apache-2.0
"""Do convolutional networks keep learning? A small one without normalisation learns random labels, pairs of classes of
CIFAR-10 one after the other, and growing sets of classes; ResNet-20 with and without batch norm learns pairs; and a warm start.

Every method has four trials, of labels or pairs on another stream of half as many tasks, else on images that are held out. A
method that chooses something else than betas has those that the perceptron chose on the like stream. LAWN is given all
weights of the ResNet with batch norm, of which the walk finds the head alone."""
from experiment import Cell, flags

RATES = (3e-4, 1e-3)
FAST, SLOW = "0.9,0.95", "0.9,0.999"
BETAS = (flags(betas=SLOW), flags(betas=FAST))


def trials(method: str, betas: str) -> tuple[tuple[float, ...], tuple]:
    """Rates, and what is tried with each."""
    if method == "sgd":
        return (0.01, 0.03), (flags(weight_decay=0), flags(weight_decay=1e-3))
    tried = {
        "adamw": ({"weight_decay": 0.1}, {"weight_decay": 1.0}),
        "l2-init": ({"strength": 1e-3}, {"strength": 1e-2}),
        "shrink-and-perturb": ({"shrink": 0.6, "perturb": 0.1}, {"shrink": 0.8, "perturb": 0.2}),
    }
    return RATES, tuple(flags(betas=betas, **more) for more in tried[method]) if method in tried else BETAS


ALL = ("adam", "lawn", "l2-init", "adamw", "shrink-and-perturb", "sgd", "fresh")
FEW = ("adam", "lawn", "shrink-and-perturb", "fresh")
TWO = ("adam", "lawn")


def cells_of(stream: str, network: str, methods: tuple[str, ...], chosen_on: dict, betas: str = SLOW, **more) -> list[Cell]:
    def one(method: str) -> Cell:
        rates, extras = trials(method, betas)
        every = (method, network) == ("lawn", "resnet20")
        given = {"stream": stream, "network": network, "method": method, "data": "cifar10", **more}
        return Cell(
            labels=(("stream", stream), ("network", network), ("method", method)),
            program="continual",
            flags=flags(**given, select="all" if every else False),
            rates=rates,
            validation=flags(**chosen_on),
            extras=extras,
        )

    return [one(method) for method in methods]


def cells(size: str) -> list[Cell]:
    """The cheapest first. A CPU's pairs are of 640 or 320 images."""
    if size == "cpu":
        return [
            *cells_of("class-pairs", "cnn", ALL, {"tasks": 50}, train_size=3200, epochs=5, probe_size=200),
            *cells_of("growing-classes", "cnn", FEW, {"validation": 5000}, train_size=5000, epochs=10, probe_size=1000),
            *cells_of("random-labels", "cnn", ALL[:3], {"tasks": 15}, FAST, tasks=30, train_size=800, probe_size=200),
            *cells_of("warm-start", "resnet20", FEW, {"validation": 1000}, train_size=1000, epochs=20, probe_size=1000),
            *(
                cell
                for network in ("resnet20-without-norm", "resnet20")
                for cell in cells_of(
                    "class-pairs", network, TWO, {"tasks": 15}, tasks=30, train_size=1600, epochs=5, probe_size=200
                )
            ),
        ]
    return [
        *(
            cell
            for network in ("vgg", "resnet20-without-norm", "resnet20")
            for cell in cells_of("class-pairs", network, ALL, {"tasks": 50}, train_size=50000, epochs=2, probe_size=200)
        ),
        *cells_of("warm-start", "resnet20", FEW, {"validation": 5000}, epochs=20, probe_size=1000),
        *cells_of("growing-classes", "vgg", FEW, {"validation": 5000}, epochs=5, probe_size=1000),
    ]
