"""Attention and the rows' statistics from one kernel call: what its softmax leaves behind is not worked out again.

The mass of a row is exp(lse_C - lse), with lse the logsumexp of the scores it sees, which the kernel returns, and lse_C
that of the scores on allowed columns, a few pairs (trainer.pairs). In backward, with P the attention, dO the gradient
of the output O, dP = dO V' and g that of log-mass, the scores' gradient is, dense and sparse part apart,

    ds = P (dP - <dO, O> - g)   +   on pairs: g Q (+ Q (dO V' - <dO, O>) where Q made the output, and then dP = 0)

Backward of the kernel knows no g. But it reads g out of the product <dO, O>, which it makes from what it is handed: one
coordinate i of O is handed to it as O_i + g / dO_i. Where the output was replaced dO is 0, and a coordinate 2^-60 of
the largest g stands in for it: what this adds to gradients is far below their rounding.

Shapes: as in trainer.pairs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer.pairs import Pairs

# Behind torch's scaled_dot_product_attention on a CPU. Only here does it tell the logsumexp.
_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
_TYPES = (torch.float32, torch.float64)  # narrower ones would round g
_STAND_IN = 2.0**-60


def is_fused(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether there is such a kernel for these (B, H, T, D) and (B, K, T, D)."""
    return (
        query.device.type == "cpu"
        and query.dtype in _TYPES
        and query.shape[2:] == key.shape[2:] == value.shape[2:]
        and hasattr(torch.ops.aten, _KERNEL)
    )


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, pairs: Pairs, *, scaling: float, guided: bool
) -> tuple[Tensor, Tensor]:
    """Output (B, T, H, D), of the pairs alone in their rows if `guided`, and log-mass (N, H) of those rows.

    Parameters
    ----------
    query
        (B, H, T, D).
    key, value
        (B, K, T, D).
    bias
        Added to the scores, -inf where nothing is seen, (B, 1, T, T); None for causal attention.
    pairs
        Of at least one row, and among what is seen.
    """
    output, log_mass = _FusedAttention.apply(query, key, value, bias, pairs, scaling, guided)  # type: ignore[no-untyped-call]
    return output, log_mass


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        pairs: Pairs,
        scaling: float,
        guided: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor]:
        heads, width = query.shape[1], query.shape[3]
        output, lse = getattr(torch.ops.aten, _KERNEL)(
            query, _for_heads(key, heads), _for_heads(value, heads), 0.0, bias is None, attn_mask=bias, scale=scaling
        )
        scores = pairs.dots(_rows(query, pairs), _vectors(key)).mul_(scaling)
        most = pairs.most(scores)
        weights = scores.sub_(pairs.spread(most)).exp_()
        total = pairs.total(weights)
        weights.div_(pairs.spread(total))  # Q
        seen = lse.transpose(1, 2).flatten(0, 1).index_select(0, pairs.rows)  # (N, H)
        log_mass = (most + total.log()).view_as(seen) - seen
        output = output.transpose(1, 2).contiguous()  # (B, T, H, D), as it lies in memory
        if guided:
            rows = pairs.over_columns(weights, _vectors(value)).view(-1, heads, width)
            output.flatten(0, 1).index_copy_(0, pairs.rows, rows)
        ctx.save_for_backward(query, key, value, bias, output, lse, weights)
        ctx.set_materialize_grads(False)
        ctx.pairs, ctx.scaling, ctx.guided = pairs, scaling, guided
        return output, log_mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor | None, grad_log_mass: Tensor | None) -> tuple[Tensor | None, ...]:
        query, key, value, bias, output, lse, weights = ctx.saved_tensors
        pairs, scaling, heads = ctx.pairs, ctx.scaling, query.shape[1]
        if grad_output is None:
            grad_output = torch.zeros_like(output)
        upward = None
        if ctx.guided:  # what comes to the replaced rows concerns the pairs alone
            upward = grad_output.flatten(0, 1).index_select(0, pairs.rows)  # (N, H, D)
            grad_output = grad_output.flatten(0, 1).index_fill(0, pairs.rows, 0).view_as(output)
        if grad_log_mass is not None:
            grad_output, output = _with_mass(grad_output, output, grad_log_mass, pairs)
        grads = getattr(torch.ops.aten, _KERNEL + "_backward")(
            grad_output.transpose(1, 2), query, _for_heads(key, heads), _for_heads(value, heads),
            output.transpose(1, 2), lse, 0.0, bias is None, attn_mask=bias, scale=scaling,
        )  # fmt: skip
        grad_query, grad_key, grad_value = (
            _of_groups(grad, tensor.shape[1]) for grad, tensor in zip(grads, (query, key, value), strict=True)
        )
        factor = torch.zeros_like(weights) if grad_log_mass is None else pairs.spread(grad_log_mass.flatten())
        if upward is not None:
            upward = upward.flatten(0, 1)  # (N H, D)
            _vectors(grad_value).index_add_(0, pairs.keys, pairs.over_rows(weights, upward))
            along = pairs.dots(upward, _vectors(value))  # dO V'
            factor = factor + along - pairs.spread(pairs.total(weights * along))
        grad_scores = (weights * factor).mul_(scaling)
        rows = pairs.over_columns(grad_scores, _vectors(key)).view(-1, heads, query.shape[3])
        grad_query.transpose(1, 2).flatten(0, 1).index_add_(0, pairs.rows, rows)
        _vectors(grad_key).index_add_(0, pairs.keys, pairs.over_rows(grad_scores, _rows(query, pairs)))
        return grad_query, grad_key, grad_value, None, None, None, None


def _with_mass(grad_output: Tensor, output: Tensor, grad_log_mass: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Both (B, T, H, D), copied and changed so that <dO, O> holds the gradient (N, H) of log-mass as well."""
    tiny = torch.finfo(output.dtype).tiny
    least = (grad_log_mass.abs().max() * _STAND_IN).clamp(min=tiny)
    upward, rows = (tensor.flatten(0, 1).index_select(0, pairs.rows) for tensor in (grad_output, output))  # (N, H, D)
    place = upward.abs().argmax(-1, keepdim=True)
    found, wanted = upward.gather(-1, place), grad_log_mass[..., None]
    chosen = torch.where(found.abs() < least, least, found)
    rows.scatter_add_(-1, place, wanted / chosen)
    upward.scatter_(-1, place, torch.where(wanted == 0, found, chosen))
    return _replaced(grad_output, pairs, upward), _replaced(output, pairs, rows)


def _replaced(tensor: Tensor, pairs: Pairs, rows: Tensor) -> Tensor:
    return tensor.flatten(0, 1).index_copy(0, pairs.rows, rows).view_as(tensor)


def _vectors(keys: Tensor) -> Tensor:
    """(B T K, D) of (B, K, T, D): a view, the way models lay them out."""
    return keys.transpose(1, 2).reshape(-1, keys.shape[3])


def _rows(query: Tensor, pairs: Pairs) -> Tensor:
    """(N H, D) of (B, H, T, D)."""
    return query.transpose(1, 2).flatten(0, 1).index_select(0, pairs.rows).flatten(0, 1)


def _for_heads(keys: Tensor, heads: int) -> Tensor:
    """(B, H, T, D) of (B, K, T, D): what a group of heads shares, for each."""
    copies = heads // keys.shape[1]
    return keys if copies == 1 else keys.repeat_interleave(copies, 1)


def _of_groups(grad: Tensor, key_heads: int) -> Tensor:
    """(B, K, T, D) of (B, H, T, D): summed over each group of heads, and laid out as (B, T, K, D) in memory."""
    batch, heads, length, width = grad.shape
    grad = grad.transpose(1, 2)  # (B, T, H, D)
    if heads != key_heads:
        grad = grad.reshape(batch, length, key_heads, -1, width).sum(3)
    return grad.contiguous().transpose(1, 2)
