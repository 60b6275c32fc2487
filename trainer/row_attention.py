"""Attention of some rows, by hand: the log of their mass on allowed columns, and their output if they saw only those.

Backward recomputes what forward made, both in chunks of rows: no more than the inputs is kept and memory does not grow
with the number of rows, as in FlashAttention (arXiv 2205.14135).

Shapes: B batch, H query heads, K key heads (G = H / K), T tokens, D head width, R rows an example, C allowed columns of
the row that has most. With s the scores, P = softmax(s) over visible columns and Q = softmax(s) over allowed ones, for
upstream gradients g of log-mass and dO of the output O = Q V:

    log-mass = logsumexp of ln P on allowed columns        ds = g (Q - P) + Q (dO V' - <dO, O>)

Allowed columns are few, so whatever is 0 outside of them is worked out on (B, H, R, C) and spread when a product needs
it. A chunk of rows sees only columns up to its last one, which is near half of all if the rows are sorted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer.cells import Cells

_CHUNK = 1 << 20  # scores in memory at a time: 4 MiB in float32, near a core's cache
_DEVICE_CHUNK = 1 << 22  # on a GPU, where a kernel's launch costs more than what a finer cut saves


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Which rows, which of their columns, in which chunks: the same for every layer that sees alike."""

    columns: Tensor  # (B, R, C) int64 allowed columns of each row, repeating one where a row has fewer
    present: Tensor  # (B, R, C) bool, which of these are its own
    visible: Tensor  # (B, R, T) bool
    chunks: tuple[tuple[slice, slice], ...]  # rows, and the columns from the first to the last that one of them sees


def plan_rows(allowed: Cells, visible: Tensor, heads: int) -> RowPlan:
    """For rows that see what `visible` (B, R, T) says. Each needs an allowed cell, and sees all that it is allowed."""
    return RowPlan(*_columns(allowed, visible[..., 0]), visible, tuple(_chunks(visible, heads)))


def attend_rows(
    query: Tensor, key: Tensor, value: Tensor, plan: RowPlan, *, guided: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-mass (B, H, R) in float32 or wider and, if `guided`, the output (B, H, R, E) over allowed columns alone.

    Parameters
    ----------
    query
        (B, H, R, D), scaled already. Fastest with the rows in the order of their positions.
    key
        (B, K, T, D).
    value
        (B, K, T, E); E is D but for models like DeepSeek's.
    """
    log_mass, output = _RowAttention.apply(query, key, value, plan, guided)  # type: ignore[no-untyped-call]
    return log_mass, output if guided else None


class _RowAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plan: RowPlan,
        guided: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(query.dtype, torch.float32)
        log_mass = query.new_empty(query.shape[:3], dtype=wide)
        output = query.new_empty(*query.shape[:3], value.shape[3]) if guided else query.new_empty(0)
        columns, present, visible = plan.columns, plan.present, plan.visible
        ctx.save_for_backward(query, key, value)
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.guided, ctx.wide = plan, guided, wide
        key, value = key.contiguous(), value.contiguous()  # a product of slices would copy them in every chunk
        for rows, seen in plan.chunks:
            scores = _visible_scores(query[:, :, rows], key[:, :, seen], visible[:, rows, seen], wide)
            at = (columns[:, None, rows] - seen.start).expand(-1, query.shape[1], -1, -1)
            picked = scores.log_softmax(-1).gather(-1, at).masked_fill_(~present[:, None, rows], -torch.inf)
            log_mass[:, :, rows] = picked.logsumexp(-1)
            if guided:
                weights = torch.zeros_like(scores).scatter_add_(-1, at, picked.softmax(-1))
                output[:, :, rows] = _apply(weights, value[:, :, seen])
        return log_mass, output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_mass: Tensor | None, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        columns, present, visible = ctx.plan.columns, ctx.plan.present, ctx.plan.visible
        key, value = key.contiguous(), value.contiguous()
        grad_query, grad_key, grad_value = (tensor.new_zeros(tensor.shape) for tensor in (query, key, value))
        for rows, seen in ctx.plan.chunks:
            scores = _visible_scores(query[:, :, rows], key[:, :, seen], visible[:, rows, seen], ctx.wide)
            at = (columns[:, None, rows] - seen.start).expand(-1, query.shape[1], -1, -1)
            inner = scores.gather(-1, at).masked_fill_(~present[:, None, rows], -torch.inf).softmax(-1)  # Q
            factor = torch.zeros((), dtype=ctx.wide, device=scores.device)
            if grad_log_mass is not None:
                factor = grad_log_mass[:, :, rows, None]
                grad_scores = scores.softmax(-1).mul_(-factor)
            else:
                grad_scores = torch.zeros_like(scores)
            if ctx.guided and grad_output is not None:
                upward = grad_output[:, :, rows]
                weights = torch.zeros_like(scores).scatter_add_(-1, at, inner)
                _collect(weights, upward, grad_value[:, :, seen])
                along = _scores(upward, value[:, :, seen], ctx.wide).gather(-1, at)  # dO V'
                factor = factor + along - (inner * along).sum(-1, keepdim=True)
            grad_scores.scatter_add_(-1, at, inner * factor)
            grad_query[:, :, rows] = _apply(grad_scores, key[:, :, seen])
            _collect(grad_scores, query[:, :, rows], grad_key[:, :, seen])
        return grad_query, grad_key, grad_value, None, None


def _columns(allowed: Cells, rows: Tensor) -> tuple[Tensor, Tensor]:
    """`columns` and `present` of a plan. `rows` is anything (B, R)."""
    counts = allowed.counts(rows)
    firsts = (counts.flatten().cumsum(0) - counts.flatten()).view_as(counts)  # where each row's cells begin
    places = torch.arange(int(counts.max()), device=rows.device)
    present = places < counts[..., None]
    return allowed.column[firsts[..., None] + torch.where(present, places, 0)], present


def _chunks(visible: Tensor, heads: int) -> Iterator[tuple[slice, slice]]:
    """Slices of rows whose scores fit in a chunk, each with the slice of columns that it needs."""
    batch, rows, length = visible.shape
    chunk = _CHUNK if visible.device.type == "cpu" else _DEVICE_CHUNK
    size = max(1, chunk // (batch * heads * length))
    for begin in range(0, rows, size):
        seen = visible[:, begin : begin + size].flatten(0, 1).any(0).nonzero()
        yield slice(begin, begin + size), slice(int(seen[0]), int(seen[-1]) + 1)


def _visible_scores(query: Tensor, key: Tensor, visible: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, H, R, T) scores, -inf where not `visible` (B, R, T)."""
    return _scores(query, key, dtype).masked_fill_(~visible[:, None], -torch.inf)


def _scores(query: Tensor, key: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, H, R, T) products of queries (B, H, R, D) and keys (B, K, T, D); no key is copied for its group."""
    products = _product(_grouped(query, key), key.flatten(0, 1).transpose(1, 2), dtype)
    return products.view(*query.shape[:3], -1)


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Batched product, summed and left in `dtype`: rounded to bf16, a score of 30 would be off by a tenth."""
    with torch.autocast(left.device.type, enabled=False):  # which would round it all the same
        if left.dtype != dtype and left.is_cuda:
            return torch.bmm(left, right, out_dtype=dtype)  # as fast as in bf16; CUDA alone has it
        return torch.bmm(left.to(dtype), right.to(dtype))


def _apply(weights: Tensor, value: Tensor) -> Tensor:
    """(B, H, R, D) sums of values (B, K, T, D) by weights (B, H, R, T)."""
    sums = torch.bmm(_grouped(weights, value).to(value.dtype), value.flatten(0, 1))
    return sums.view(*weights.shape[:3], -1)


def _collect(weights: Tensor, rows: Tensor, into: Tensor) -> None:
    """Add sums of rows (B, H, R, D) by weights (B, H, R, T), over rows and a group's heads, to `into` (B, K, T, D)."""
    weights, rows = _grouped(weights, into).to(into.dtype), _grouped(rows, into)
    into.view(-1, *into.shape[2:]).baddbmm_(weights.transpose(1, 2), rows)


def _grouped(rows: Tensor, key: Tensor) -> Tensor:
    """(B K, G R, n) of (B, H, R, n): the rows of all heads that share one of the keys (B, K, T, D)."""
    return rows.reshape(key.shape[0] * key.shape[1], -1, rows.shape[-1])
