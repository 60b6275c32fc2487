"""How one step time compares with another when both were taken in turns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
_LEVEL = 95.0  # %


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of the paired ratios, and the bootstrap interval in which it lies with 95 % confidence."""

    median: float
    low: float
    high: float

    def meets(self, target: float) -> bool:
        """Whether the interval's lower end is at or below the target."""
        return self.low <= target


def paired_ratio(ours: Sequence[float], base: Sequence[float], *, seed: int = 0) -> Ratio:
    """Of two series in which the i-th values were measured in the same round.

    A machine that is slow for a while is slow for both, so rounds are resampled, not values.

    Raises
    ------
    ValueError
        The series differ in length or are empty.
    """
    if len(ours) != len(base) or not ours:
        raise ValueError(f"paired series of one length are needed, got {len(ours)} and {len(base)}")
    ratios = np.asarray(ours, float) / np.asarray(base, float)  # (N,)
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    medians = np.median(ratios[drawn], axis=1)
    tail = (100 - _LEVEL) / 2
    low, high = np.percentile(medians, [tail, 100 - tail])
    return Ratio(float(np.median(ratios)), float(low), float(high))
