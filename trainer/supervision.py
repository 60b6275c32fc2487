"""The supervised rows of a batch, and what they see through a layer's attention mask: worked out once for all layers.

Shapes: B batch, R supervised rows an example, T tokens.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from core.domain.training import Exclude
from trainer.cells import Cells
from trainer.pairs import Pairs, allowed_pairs
from trainer.row_attention import RowPlan, plan_rows


class Layout(NamedTuple):
    """What two layers have to share, apart from the mask, to see alike."""

    heads: int
    key_heads: int
    length: int  # T
    fused: bool  # their kernel tells its logsumexp (trainer.fused)


class WholeRows(NamedTuple):
    """Rows to recompute over all that they see. One that is not kept sees itself alone: no NaN, and no gradient."""

    plan: RowPlan
    kept: Tensor  # (B, R) bool: the rows that see an allowed column


class Dense(NamedTuple):
    """For trainer.row_attention."""

    counted: WholeRows  # for statistics
    shown: WholeRows  # for guided masking; another where a column is excluded from the statistics


class Sparse(NamedTuple):
    """For trainer.fused."""

    pairs: Pairs
    bias: Tensor | None  # (B, 1, T, T) the mask as a summand of the scores


@dataclass(frozen=True, slots=True)
class Sight:
    """What all rows see through one mask."""

    mask: Tensor | None  # (B, 1, T, T) as the layer has it, True where seen
    layout: Layout
    allowed: Tensor  # (B, R) int64 n1, 0 where dropped
    others: Tensor  # (B, R) int64 n0, 0 where dropped
    rows: Dense | Sparse


@dataclass(frozen=True, slots=True)
class Supervision:
    """The rows of a batch, handed to the model as the keyword argument `supervision`."""

    index: Tensor  # (B, R) int64 position of each row; padding rows hold T - 1
    allowed: Cells  # what the labels allow each row; nothing to padding rows
    guided: bool = False  # the rows see only their allowed columns
    layers: range | None = None  # indices of the layers that are supervised; None for all
    exclude: Exclude = Exclude.NONE  # a column that the statistics leave out; guided rows see it if it is allowed
    # Whole rows are recomputed where a larger share of the columns seen is allowed, or more columns for a token of the
    # batch: elsewhere pairs are summed, and what is kept for each of them must not outgrow the activations.
    pairs_up_to: float = 0.25
    pairs_a_token: float = 16.0
    _sights: list[Sight] = field(default_factory=list, repr=False, compare=False)  # one or two: a model has few masks

    def sight(self, mask: Tensor | None, layout: Layout, dtype: torch.dtype) -> Sight:
        """Through a boolean mask (B, 1, T, T), or causally where there is none. `dtype` is that of the scores."""
        for known in self._sights:
            if known.mask is mask and known.layout == layout:
                return known
        self._sights.append(_look(self, mask, layout, dtype))
        return self._sights[-1]


def _look(rows: Supervision, mask: Tensor | None, layout: Layout, dtype: torch.dtype) -> Sight:
    shown = rows.allowed.where(_is_seen(rows.allowed, rows.index, mask))
    if layout.fused and rows.exclude is Exclude.NONE:
        allowed, visible = shown.counts(rows.index), _how_many_seen(rows.index, mask)
        tokens = len(visible) * layout.length
        most = min(rows.pairs_up_to * int(visible[allowed > 0].sum()), rows.pairs_a_token * tokens)
        if 0 < len(shown.slot) <= most:
            pairs = allowed_pairs(shown, rows.index, layout.length, layout.heads, layout.key_heads)
            return Sight(mask, layout, allowed, _others(visible, allowed), Sparse(pairs, _bias(mask, dtype)))
    return _look_at_whole_rows(rows, shown, mask, layout)


def _look_at_whole_rows(rows: Supervision, shown: Cells, mask: Tensor | None, layout: Layout) -> Sight:
    visible = _seen(rows.index, layout.length, mask)
    of_guidance = of_statistics = _whole_rows(shown, visible, rows.index, layout.heads)
    inside, counted = shown, visible
    if rows.exclude is not Exclude.NONE:
        left_out = rows.index if rows.exclude is Exclude.SELF else visible.int().argmax(-1)  # (B, R) the first it sees
        inside = shown.where(shown.column != shown.of_rows(left_out))
        counted = visible & ~_only(left_out, visible)
        of_statistics = _whole_rows(inside, counted, rows.index, layout.heads)
    allowed = inside.counts(rows.index)
    return Sight(mask, layout, allowed, _others(counted.sum(-1), allowed), Dense(of_statistics, of_guidance))


def _others(visible: Tensor, allowed: Tensor) -> Tensor:
    """(B, R) how many columns a row sees besides its allowed ones; 0 where it sees none of those."""
    return (visible - allowed) * (allowed > 0)


def _is_seen(cells: Cells, index: Tensor, mask: Tensor | None) -> Tensor:
    """(n,) bool: whether each cell's row sees its column."""
    row = cells.of_rows(index)
    if mask is None:
        return cells.column <= row
    return mask[cells.slot // index.shape[1], 0, row, cells.column]


def _how_many_seen(index: Tensor, mask: Tensor | None) -> Tensor:
    """(B, R) int64: how many columns each row sees."""
    return index + 1 if mask is None else mask[:, 0].sum(-1).gather(1, index)


def _seen(index: Tensor, length: int, mask: Tensor | None) -> Tensor:
    """(B, R, T) bool: the columns each row sees."""
    if mask is None:
        return torch.arange(length, device=index.device) <= index[..., None]
    batch = torch.arange(len(index), device=index.device)
    return mask[:, 0][batch[:, None], index]


def _only(columns: Tensor, like: Tensor) -> Tensor:
    """(B, R, T) bool as `like`: one column of each row, of `columns` (B, R)."""
    return torch.arange(like.shape[-1], device=like.device) == columns[..., None]


def _whole_rows(allowed: Cells, visible: Tensor, index: Tensor, heads: int) -> WholeRows:
    kept = allowed.counts(index) > 0
    visible = torch.where(kept[..., None], visible, _only(index, visible))
    return WholeRows(plan_rows(allowed.filled_up(index), visible, heads), kept)


def _bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)
