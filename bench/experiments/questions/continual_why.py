# SPDX-License-Identifier: Apache-2.0
"""Why LAWN keeps a perceptron learning random labels, or does not: Adam and LAWN at one rate, with one thing changed at a
time, over forty tasks. Nothing is chosen here."""
from experiment import Cell, flags
from questions.continual import DATA

RATE = 1e-3
SLOW, FAST = {"betas": "0.9,0.999"}, {"betas": "0.9,0.95"}


def cells(size: str) -> list[Cell]:
    longer = {} if size == "cpu" else {"train_size": 6400}

    def one(method: str, changed: str, **more) -> Cell:
        labels = (("method", method), ("changed", changed))
        return Cell(labels, "continual", flags(**{"method": method, "tasks": 40, **DATA, **longer, **SLOW, **more}), (RATE,), ())

    return [
        one("adam", "nothing"),
        one("lawn", "nothing"),
        one("adam", "beta2 0.95", **FAST),
        one("lawn", "beta2 0.95", **FAST),
        one("adam", "state reset", reset_state=True),
        one("lawn", "state reset", reset_state=True),
        one("lawn", "beta2 0.95, state reset", reset_state=True, **FAST),
        one("lawn", "beta2 0.95, biases too", biases=True, **FAST),
        one("lawn", "beta2 0.95, by unit", granularity="unit", **FAST),
        one("lawn", "beta2 0.95, by unit, biases too", granularity="unit", biases=True, **FAST),
        one("lawn", "beta2 0.95, never free", free_tasks=0, **FAST),
        one("lawn", "beta2 0.95, free for five tasks", free_tasks=5, **FAST),
        *(one("lawn", f"beta2 0.95, {scale:g} times the radii", radius_scale=scale, **FAST) for scale in (0.5, 0.7, 1.5, 2.0)),
        one("adam", "layer norm", layer_norm=True),
        one("adam", "beta2 0.95, layer norm", layer_norm=True, **FAST),
        one("lawn", "beta2 0.95, layer norm, all weights", layer_norm=True, select="all", **FAST),
        one("lawn", "beta2 0.95, layer norm, the head", layer_norm=True, **FAST),
    ]
