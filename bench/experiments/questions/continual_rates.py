# SPDX-License-Identifier: Apache-2.0
"""How much does each method depend on its rate? Forty tasks of random labels, at four rates over a factor of eight, with the
other settings that the question `continual` chose for the method, except that AdamW has a decay of 0.1 and SLOW betas."""
from experiment import Cell, flags
from questions.continual import DATA, FAST, SLOW

RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
CHOSEN = {
    "adam": SLOW,
    "adamw": (*SLOW, *flags(weight_decay=0.1)),
    "lawn": FAST,
    "l2-init": (*FAST, *flags(strength=1e-3)),
    "lawn+l2-init": (*FAST, *flags(strength=1e-3)),
    "shrink-and-perturb": (*FAST, *flags(shrink=0.6, perturb=0.1)),
}


def cells(size: str) -> list[Cell]:
    given = DATA if size == "cpu" else {**DATA, "train_size": 6400}
    return [
        Cell(
            labels=(("method", method), ("rate", f"{rate:g}")),
            program="continual",
            flags=(*flags(method=method, tasks=40, **given), *settings),
            rates=(rate,),
            validation=(),
        )
        for rate in RATES
        for method, settings in CHOSEN.items()
    ]
