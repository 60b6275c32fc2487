"""Attention as the model has it, plus what the supervised rows do: their mass, and their output under guided masking.

The ordinary SDPA kernel makes the output. A softmax row sums to 1, so an attention objective needs one number per
layer, head and supervised row: the mass on the row's allowed columns. It leaves the layer in the place of attention
weights, and comes from the kernel's own logsumexp where that is told and few columns are allowed (trainer.fused), else
from recomputing the scores of those rows alone (trainer.row_attention).

Shapes: B batch, H query heads, K key heads (G = H / K), T tokens, D head width, R supervised rows an example.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from core.errors import ModelNotSupported
from trainer.fused import fused_attention, is_fused
from trainer.row_attention import attend_rows
from trainer.supervision import Dense, Layout
from trainer.supervision import Supervision as Supervision  # part of this module's interface

NAME = "causeway"  # free of the names of kernels, which transformers looks for inside it

_UNUSUAL = {"softcap", "position_bias", "cache", "is_causal"}  # arguments of SDPA that only it knows


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
    if torch.is_autocast_enabled(query.device.type):  # SDPA casts what it is given, and the rows are to be of the same
        computed = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(computed), key.to(computed), value.to(computed)
    plain = partial(
        sdpa_attention_forward, module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    if supervision is None or (supervision.layers is not None and _layer_of(module) not in supervision.layers):
        return plain()[0], None
    _check(dropout, attention_mask)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    fused = is_fused(query, key, value) and _is_usual(module, kwargs)
    sight = supervision.sight(attention_mask, Layout(query.shape[1], key.shape[1], key.shape[2], fused), query.dtype)
    if isinstance(sight.rows, Dense):
        output, log_mass = _recomputed(plain()[0], query, key, value, supervision, sight.rows, scaling)
    else:
        pairs, bias = sight.rows
        output, of_kept = fused_attention(query, key, value, bias, pairs, scaling=scaling, guided=supervision.guided)
        log_mass = _spread(of_kept, pairs.slots, supervision.index.shape)
    return output, RowStatistics(log_mass, sight.allowed, sight.others)


def _check(dropout: float, attention_mask: Tensor | None) -> None:
    if dropout > 0:
        raise ModelNotSupported(
            "attention dropout must be 0 for cat: the mass of a randomly thinned row is not the row's mass",
            attention_dropout=dropout,
        )
    if attention_mask is not None and attention_mask.dtype is not torch.bool:
        raise ModelNotSupported("this model adds a bias to its attention scores, which cat does not recompute")


def _is_usual(module: torch.nn.Module, kwargs: dict[str, Any]) -> bool:
    """Whether the layer asks SDPA for nothing but the mask it hands over, or causality where it hands none."""
    return getattr(module, "is_causal", True) and all(kwargs.get(name) is None for name in _UNUSUAL)


def _layer_of(module: torch.nn.Module) -> int:
    index = getattr(module, "layer_idx", None)
    if not isinstance(index, int):
        raise ModelNotSupported("this model does not number its attention layers, so a range of them cannot be chosen")
    return index


def _recomputed(
    output: Tensor, query: Tensor, key: Tensor, value: Tensor, supervision: Supervision, sees: Dense, scaling: float
) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, D) and log-mass (B, H, R), from the kernel's output and the rows worked out once more."""
    index, guided, (counted, shown) = supervision.index, supervision.guided, sees
    at = index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3])
    rows = query.gather(2, at) * scaling  # (B, H, R, D)
    log_mass, replaced = attend_rows(rows, key, value, counted.plan, guided=guided and shown is counted)
    if guided and shown is not counted:  # guidance goes by the labels, the excluded column included
        _, replaced = attend_rows(rows, key, value, shown.plan, guided=True)
    return output if replaced is None else _replace_rows(output, replaced, index, shown.kept), log_mass


def _spread(log_mass: Tensor, slots: Tensor, shape: torch.Size) -> Tensor:
    """(B, H, R) of the (N, H) of kept rows, which stand at `slots`; 0 elsewhere. `shape` is (B, R)."""
    spread = log_mass.new_zeros(shape.numel(), log_mass.shape[1]).index_copy(0, slots, log_mass)
    return spread.view(*shape, -1).transpose(1, 2)


def _replace_rows(output: Tensor, guided: Tensor, index: Tensor, kept: Tensor) -> Tensor:
    """`output` (B, T, H, D) with the kept rows' output replaced by `guided` (B, H, R, D)."""
    rows = guided.transpose(1, 2)  # (B, R, H, D)
    at = index[:, :, None, None].expand_as(rows)
    # Padding rows all write to T - 1. What stands there is neither read by a loss nor seen by another position, so
    # neither the value nor its doubled gradient goes anywhere.
    return output.scatter(1, at, torch.where(kept[:, :, None, None], rows, output.gather(1, at)))
