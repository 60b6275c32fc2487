"""How the attention objective changes over a run, and which layers it is about.

`u` is the share of the run's optimiser steps already made, 0 to 1.
"""

import math

import numpy as np

from core.domain.training import ObjectiveConfig


def gamma(u: float, objective: ObjectiveConfig) -> float:
    """Weight of the attention loss: 0 before `gamma_from`, rising linearly, at its full value from `gamma_full` on."""
    return objective.gamma * (1 - _falling(u, objective.gamma_from, objective.gamma_full))


def guide_probability(u: float, objective: ObjectiveConfig) -> float:
    """Chance of guided masking: 1 before `guide_until`, falling linearly, 0 from `guide_end` on."""
    return _falling(u, objective.guide_until, objective.guide_end)


def is_guided(step: int, steps: int, objective: ObjectiveConfig, seed: int) -> bool:
    """Whether optimiser step `step` of `steps` (from 0) is guided.

    The draw is a function of seed and step alone, so all micro-batches and ranks of a step agree, and a resumed run
    needs no generator's state.
    """
    draw = np.random.default_rng((seed, step)).random()
    return bool(draw < guide_probability(step / steps, objective))


def supervised_layers(objective: ObjectiveConfig, depth: int) -> range:
    """Indices of the layers that [layers_from, layers_to] touches, layer l of `depth` standing on [l, l + 1) / depth.

    Never empty: where both ends are the same it is the layer they stand in.
    """
    first = min(math.floor(_clean(objective.layers_from * depth)), depth - 1)
    end = math.ceil(_clean(objective.layers_to * depth))
    return range(first, max(end, first + 1))


def _clean(value: float) -> float:
    """Without the last digits, so that 0.55 of 20 layers ends at 11 and not at 11.000000000000002."""
    return round(value, 9)


def _falling(u: float, start: float, end: float) -> float:
    """1 before `start`, 0 from `end` on, a line between."""
    if u >= end:
        return 0.0
    return 1.0 if u <= start else (end - u) / (end - start)
