"""What the masses of supervised rows amount to, for the run's events. Without gradient, and without waiting for a GPU.

Shapes: L layers, B batch, H heads, R rows. Notation as in trainer.loss.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.attention import RowStatistics

BINS = 1000  # of a histogram over [0, 1]


class MassSums(NamedTuple):
    """Sums over kept rows, which add up over micro-batches and processes."""

    mass: Tensor  # () of m, over rows, layers and heads
    masses: Tensor  # () how many those are
    a1: Tensor  # () mean attention on an allowed column, summed as `mass` is
    a0: Tensor  # () mean attention on another visible column, summed likewise
    histogram: Tensor  # (BINS,) numbers of rows by their mean mass over layers and heads; of all that see anything


def mass_sums(layers: Sequence[RowStatistics]) -> MassSums:
    """The sums of one micro-batch."""
    log_mass = torch.stack([layer.log_mass.detach() for layer in layers])  # (L, B, H, R)
    kept = torch.stack([layer.kept for layer in layers])[:, :, None]  # (L, B, 1, R)
    allowed = torch.stack([layer.allowed for layer in layers])[:, :, None]
    others = torch.stack([layer.others for layer in layers])[:, :, None]
    mass = log_mass.exp() * kept
    cells = kept.expand_as(mass).sum((0, 2))  # (B, R) layers x heads that show the row a cause
    row_mass = (mass.sum((0, 2)) / cells.clamp(min=1)).clamp(max=1)
    return MassSums(
        mass=mass.sum(),
        masses=cells.sum(),
        a1=(mass / allowed.clamp(min=1)).sum(),
        a0=(-torch.expm1(log_mass) * kept / others.clamp(min=1)).sum(),
        # Dropped rows stand at -1, outside of the histogram.
        histogram=torch.histc(row_mass.masked_fill(cells == 0, -1.0), BINS, min=0.0, max=1.0),
    )


def quantile(histogram: Tensor, share: float) -> float | None:
    """The middle of the bin below whose end at least `share` of the rows stand; None without rows."""
    counts = histogram.cumsum(0)
    if counts[-1] <= 0:
        return None
    return (int((counts < share * counts[-1]).sum()) + 0.5) / len(histogram)
