# SPDX-License-Identifier: Apache-2.0
"""How much does each method depend on its rate? Forty tasks of random labels, at five rates over a factor of sixteen, with the
other settings that the questions `continual` and, with layer norm, `continual_layer_norm` chose for the method, except that
AdamW without layer norm has a decay of 0.1 and SLOW betas."""
from experiment import Cell, flags
from questions.continual import DATA, FAST, SLOW

RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
CHOSEN = {
    "adam": SLOW,
    "adamw": (*SLOW, *flags(weight_decay=0.1)),
    "lawn": FAST,
    "l2-init": (*FAST, *flags(strength=1e-3)),
    "lawn+l2-init": (*FAST, *flags(strength=1e-3)),
    "shrink-and-perturb": (*FAST, *flags(shrink=0.6, perturb=0.1)),
}
WITH_LAYER_NORM = {
    "adam": FAST,
    "adamw": (*FAST, *flags(weight_decay=0.1)),
    "lawn": FAST,
    "l2-init": (*FAST, *flags(strength=1e-3)),
    "shrink-and-perturb": (*FAST, *flags(shrink=0.8, perturb=0.2)),
}


def cells(size: str) -> list[Cell]:
    given = DATA if size == "cpu" else {**DATA, "train_size": 6400}

    def one(layer_norm: str, method: str, rate: float, settings: tuple) -> Cell:
        return Cell(
            labels=(("layer norm", layer_norm), ("method", method), ("rate", f"{rate:g}")),
            program="continual",
            flags=(*flags(method=method, tasks=40, **given), *settings),
            rates=(rate,),
            validation=(),
        )

    return [one("no", method, rate, settings) for rate in RATES for method, settings in CHOSEN.items()] + [
        one("yes", method, rate, (*settings, *flags(layer_norm=True)))
        for rate in RATES
        for method, settings in WITH_LAYER_NORM.items()
    ]
