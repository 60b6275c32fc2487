"""Attention as the model has it, plus what the supervised rows do: their mass, and their output under guided masking.

The ordinary SDPA kernel makes the output. A softmax row sums to 1, so an attention objective needs one number per
layer, head and supervised row: the mass on the row's allowed columns. It comes from recomputing the scores of those
rows alone (trainer.row_attention), and leaves the layer in the place of attention weights.

Shapes: B batch, H query heads, K key heads (G = H / K), T tokens, D head width, R supervised rows an example.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from core.domain.training import Exclude
from core.errors import ModelNotSupported
from trainer.row_attention import attend_rows

NAME = "causeway"  # free of the names of kernels, which transformers looks for inside it


class RowStatistics(NamedTuple):
    """What one layer's supervised rows look at. A row that sees no allowed column is dropped: its counts are 0.

    With C the visible allowed columns, V the visible ones, x the excluded one (if any) and s the scores of a row:

        m = sum of exp(s) on C without x / sum of exp(s) on V without x

    which is the attention on C of what is left once x is taken out and the row sums to 1 again.
    """

    log_mass: Tensor  # (B, H, R) float32, ln m; 0 where dropped
    allowed: Tensor  # (B, R) int64, n1 = |C without x|
    others: Tensor  # (B, R) int64, n0 = |V without C and x|

    @property
    def kept(self) -> Tensor:
        """(B, R) bool: rows that see an allowed column."""
        return self.allowed > 0


@dataclass(frozen=True, slots=True)
class Supervision:
    """The rows of a batch, handed to the model as the keyword argument `supervision`."""

    index: Tensor  # (B, R) int64 position of each row; padding rows hold T - 1
    valid: Tensor  # (B, R) bool
    allowed: Tensor  # (B, R, T) bool
    guided: bool = False  # the rows see only their allowed columns
    layers: range | None = None  # indices of the layers that are supervised; None for all
    exclude: Exclude = Exclude.NONE  # a column that the statistics leave out; guided rows see it if it is allowed


def register() -> None:
    """Make `attn_implementation="causeway"` known to transformers. Doing it twice is harmless."""
    AttentionInterface.register(NAME, causeway_attention)
    # Without a mask of the same name the padding would be attended to, silently.
    AttentionMaskInterface.register(NAME, sdpa_mask)


def enable(model: PreTrainedModel) -> None:
    """Switch a loaded model to our attention.

    Raises
    ------
    ModelNotSupported
        The model cannot change its attention, or drops attention weights at random.
    """
    register()
    try:
        model.set_attn_implementation(NAME)
    except (ValueError, KeyError) as exc:
        raise ModelNotSupported(f"{type(model).__name__} does not let its attention be replaced") from exc


def causeway_attention(
    module: torch.nn.Module,
    query: Tensor,  # (B, H, T, D)
    key: Tensor,  # (B, K, T, D)
    value: Tensor,  # (B, K, T, D)
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    supervision: Supervision | None = None,
    **kwargs: Any,
) -> tuple[Tensor, RowStatistics | None]:
    """The attention function of every layer: (output (B, T, H, D), statistics of the supervised rows or None).

    Raises
    ------
    ModelNotSupported
        With supervision: attention dropout (the mass of a thinned row is not the row's), a softcap, or a mask that is
        not boolean.
    """
    kwargs.pop("output_attentions", None)  # SDPA would warn that it has none
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    if supervision is None or (supervision.layers is not None and _layer_of(module) not in supervision.layers):
        return output, None
    _check(dropout, attention_mask)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    at = supervision.index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3])
    rows = query.gather(2, at) * scaling  # (B, H, R, D)
    visible = _visible(supervision.index, key.shape[2], attention_mask)
    shown = supervision.allowed & visible
    counted = visible if supervision.exclude is Exclude.NONE else visible & ~_excluded(supervision, visible)
    inside = shown & counted
    at_once = supervision.guided and supervision.exclude is Exclude.NONE
    log_mass, guided, kept = _attend(rows, key, value, inside, counted, supervision, guided=at_once)
    shown_kept = kept
    if supervision.guided and not at_once:  # guidance goes by the labels, the excluded column included
        _, guided, shown_kept = _attend(rows, key, value, shown, visible, supervision, guided=True)
    if guided is not None:
        output = _replace_rows(output, guided, supervision.index, shown_kept)
    allowed = inside.sum(-1) * kept
    return output, RowStatistics(log_mass, allowed, counted.sum(-1) * kept - allowed)


def _check(dropout: float, attention_mask: Tensor | None) -> None:
    if dropout > 0:
        raise ModelNotSupported(
            "attention dropout must be 0 for cat: the mass of a randomly thinned row is not the row's mass",
            attention_dropout=dropout,
        )
    if attention_mask is not None and attention_mask.dtype is not torch.bool:
        raise ModelNotSupported("this model adds a bias to its attention scores, which cat does not recompute")


def _visible(index: Tensor, length: int, attention_mask: Tensor | None) -> Tensor:
    """(B, R, T) bool: the columns each row sees, by the model's own mask (causal where it has none)."""
    if attention_mask is None:
        return torch.arange(length, device=index.device) <= index[..., None]
    batch = torch.arange(len(index), device=index.device)
    return attention_mask[:, 0][batch[:, None], index]


def _layer_of(module: torch.nn.Module) -> int:
    index = getattr(module, "layer_idx", None)
    if not isinstance(index, int):
        raise ModelNotSupported("this model does not number its attention layers, so a range of them cannot be chosen")
    return index


def _excluded(supervision: Supervision, visible: Tensor) -> Tensor:
    """(B, R, T) bool: the one column of each row that its statistics leave out."""
    if supervision.exclude is Exclude.SINK:
        return visible & (visible.cumsum(-1) == 1)
    return torch.arange(visible.shape[-1], device=visible.device) == supervision.index[..., None]


def _attend(
    rows: Tensor, key: Tensor, value: Tensor, inside: Tensor, visible: Tensor, supervision: Supervision, *, guided: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """`attend_rows` where rows may see nothing: log-mass, output and (B, R) bool the rows that do see something.

    A row that is not kept sees and is allowed itself alone: log-mass 0, no NaN, no gradient, no column after it.
    """
    kept = inside.any(-1) & supervision.valid
    own = torch.arange(key.shape[2], device=key.device) == supervision.index[..., None]
    inside, visible = (torch.where(kept[..., None], mask, own) for mask in (inside, visible))
    log_mass, output = attend_rows(rows, key, value, inside, visible, guided=guided)
    return log_mass, output, kept


def _replace_rows(output: Tensor, guided: Tensor, index: Tensor, kept: Tensor) -> Tensor:
    """`output` (B, T, H, D) with the kept rows' output replaced by `guided` (B, H, R, D)."""
    rows = guided.transpose(1, 2)  # (B, R, H, D)
    at = index[:, :, None, None].expand_as(rows)
    # Padding rows all write to T - 1. What stands there is neither read by a loss nor seen by another position, so
    # neither the value nor its doubled gradient goes anywhere.
    return output.scatter(1, at, torch.where(kept[:, :, None, None], rows, output.gather(1, at)))
