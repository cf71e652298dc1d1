# SPDX-License-Identifier: Apache-2.0
"""NeuMF, in which every weight is constrained, on MovieLens: 100K for the CPU's size, 1M for the GPU's (which of the two
--root movielens=DIR must hold)."""
from experiment import Cell, flags
from questions.problems import FREE

RATES = (3e-4, 1e-3, 3e-3, 1e-2)


def cells(size: str) -> list[Cell]:
    factors, batches = (16, (256, 4096)) if size == "cpu" else (32, (1024, 16384))
    problem = {"data": "movielens", "network": "neumf", "factors": factors, "epochs": 20, "optimizer": "adam"}
    return [
        Cell(
            labels=(("network", "NeuMF"), ("batch", str(batch)), ("LAWN", "yes" if lawn else "no")),
            program="recommender",
            flags=flags(**problem, batch_size=batch, lawn=lawn, **({"free_fraction": FREE} if lawn else {})),
            rates=RATES,
            validation=flags(validation=True),
        )
        for batch in reversed(batches)  # the cheapest first
        for lawn in (False, True)
    ]
