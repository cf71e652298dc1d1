# SPDX-License-Identifier: Apache-2.0
"""A small transformer on a text, one that --root text=FILE names: every weight matrix of its layers held, against AdamW with
its decay tuned; `language_larger` asks the same of a larger one. For docs/results.md the text is the King James Bible:
`bible -f gen1:1-rev22:21 | cut -d' ' -f2-` with Debian's bible-kjv."""
from experiment import Cell, flags

RATES = (1e-3, 3e-3, 1e-2)
FINER = (3e-4, 5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2)  # as many as each other cell has trials
DECAYS = tuple({"weight_decay": decay} for decay in (0.01, 0.1, 1.0))
# By how far the norms have grown when they are held: the earlier, the smaller the radii.
FREE_SHARES = tuple({"free_fraction": share} for share in (0.0, 0.05, 0.2))
# Or held from the first step, at a multiple of the norms that they have there.
RADII = tuple({"radius_scale": scale} for scale in (1.0, 1.7, 2.5))

TRANSFORMER = {"layers": 3, "width": 96, "heads": 3, "context": 64, "batch_size": 24, "windows": 1920, "epochs": 10}
GPU = {"layers": 8, "width": 512, "heads": 8, "context": 256, "batch_size": 64, "windows": 32000, "epochs": 20}


def method(problem: dict, name: str, optimizer: str, rates: tuple[float, ...], tried: tuple[dict, ...], **more) -> Cell:
    return Cell(
        labels=(("method", name),),
        program="language",
        flags=flags(**problem, optimizer=optimizer, **more),
        rates=rates,
        validation=flags(validation=True),
        extras=tuple(flags(**each) for each in tried),
    )


def cells(size: str) -> list[Cell]:
    problem = TRANSFORMER if size == "cpu" else GPU
    return [
        method(problem, "Adam", "fused-adam", FINER, ({},), weight_decay=0.0),
        method(problem, "AdamW, tuned decay", "fused-adamw", RATES, DECAYS),
        method(problem, "Adam with LAWN", "fused-adam", RATES, FREE_SHARES, weight_decay=0.0, lawn=True),
        method(problem, "Adam with LAWN, radii chosen", "fused-adam", RATES, RADII, weight_decay=0.0, free_fraction=0.0, lawn=True),
        method(problem, "AdamW with LAWN", "fused-adamw", RATES, FREE_SHARES, weight_decay=0.1, lawn=True),
    ]
