"""The supervised rows of a batch, and what they see through a layer's attention mask: worked out once for all layers.

Shapes: B batch, R supervised rows an example, T tokens.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from core.domain.training import Exclude
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
    valid: Tensor  # (B, R) bool
    allowed: Tensor  # (B, R, T) bool
    guided: bool = False  # the rows see only their allowed columns
    layers: range | None = None  # indices of the layers that are supervised; None for all
    exclude: Exclude = Exclude.NONE  # a column that the statistics leave out; guided rows see it if it is allowed
    pairs_up_to: float = 0.25  # share of the columns seen that may be allowed for pairs to be summed, not whole rows
    _sights: list[Sight] = field(default_factory=list, repr=False, compare=False)  # one or two: a model has few masks

    def sight(self, mask: Tensor | None, layout: Layout, dtype: torch.dtype) -> Sight:
        """Through a boolean mask (B, 1, T, T), or causally where there is none. `dtype` is that of the scores."""
        for known in self._sights:
            if known.mask is mask and known.layout == layout:
                return known
        self._sights.append(_look(self, mask, layout, dtype))
        return self._sights[-1]


def _look(rows: Supervision, mask: Tensor | None, layout: Layout, dtype: torch.dtype) -> Sight:
    visible = _visible(rows.index, layout.length, mask)
    shown = rows.allowed & visible & rows.valid[..., None]
    excluded = None if rows.exclude is Exclude.NONE else _excluded(rows, visible)
    counted = visible if excluded is None else visible & ~excluded
    inside = shown if excluded is None else shown & counted
    allowed = inside.sum(-1)
    others = (counted.sum(-1) - allowed) * (allowed > 0)
    how: Dense | Sparse
    if layout.fused and excluded is None and 0 < int(allowed.sum()) <= rows.pairs_up_to * int(visible.sum()):
        how = Sparse(allowed_pairs(shown, rows.index, layout.heads, layout.key_heads), _bias(mask, dtype))
    else:
        of_statistics = _whole_rows(inside, counted, rows.index, layout.heads)
        of_guidance = of_statistics if excluded is None else _whole_rows(shown, visible, rows.index, layout.heads)
        how = Dense(of_statistics, of_guidance)
    return Sight(mask, layout, allowed, others, how)


def _visible(index: Tensor, length: int, mask: Tensor | None) -> Tensor:
    """(B, R, T) bool: the columns each row sees."""
    if mask is None:
        return torch.arange(length, device=index.device) <= index[..., None]
    batch = torch.arange(len(index), device=index.device)
    return mask[:, 0][batch[:, None], index]


def _excluded(rows: Supervision, visible: Tensor) -> Tensor:
    """(B, R, T) bool: the one column of each row that its statistics leave out."""
    if rows.exclude is Exclude.SINK:
        return visible & (visible.cumsum(-1) == 1)
    return _own(rows.index, visible)


def _own(index: Tensor, like: Tensor) -> Tensor:
    return torch.arange(like.shape[-1], device=like.device) == index[..., None]


def _whole_rows(inside: Tensor, visible: Tensor, index: Tensor, heads: int) -> WholeRows:
    kept = inside.any(-1)
    own = _own(index, visible)
    inside, visible = (torch.where(kept[..., None], seen, own) for seen in (inside, visible))
    return WholeRows(plan_rows(inside, visible, heads), kept)


def _bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)
