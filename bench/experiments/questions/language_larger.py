# SPDX-License-Identifier: Apache-2.0
"""`language` with a transformer of a million parameters, and six trials for each method: they take minutes. The larger radii are
also tried as larger initial weights without LAWN, since LAWN with radii chosen begins from them."""
from experiment import Cell
from questions.language import RATES, TRANSFORMER, method

MILLION = {**TRANSFORMER, "layers": 4, "width": 144, "heads": 4, "probe_size": 100}
FINER = (5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
DECAYS = ({"weight_decay": 0.1}, {"weight_decay": 1.0})
FREE_SHARES = ({"free_fraction": 0.05}, {"free_fraction": 0.2})
RADII = ({"radius_scale": 1.7}, {"radius_scale": 2.5})
STARTS = ({"init_scale": 1.7}, {"init_scale": 2.5})


def cells(size: str) -> list[Cell]:
    if size != "cpu":
        return []  # `language` has a larger one there
    return [
        method(MILLION, "Adam", "fused-adam", FINER, ({},), weight_decay=0.0),
        method(MILLION, "AdamW, tuned decay", "fused-adamw", RATES, DECAYS),
        method(MILLION, "Adam with LAWN", "fused-adam", RATES, FREE_SHARES, weight_decay=0.0, lawn=True),
        method(MILLION, "Adam with LAWN, radii chosen", "fused-adam", RATES, RADII, weight_decay=0.0, free_fraction=0.0, lawn=True),
        method(MILLION, "Adam, larger start", "fused-adam", RATES, STARTS, weight_decay=0.0),
        method(MILLION, "AdamW, larger start", "fused-adamw", RATES, STARTS, weight_decay=0.1),
    ]
