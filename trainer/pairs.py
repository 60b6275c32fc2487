"""The pairs (row, column) that labels allow and the mask shows, laid out for sparse sums over them.

Few columns are allowed to a row, so what concerns only those is worked out pair by pair. It takes two operations, made
of those behind torch.nn.EmbeddingBag: dot products of a pair's two vectors, and sums of vectors by a weight a pair.

Shapes: B batch, H query heads, K key heads, T tokens, D head width, R supervised rows an example; N of those B R rows
are kept, P pairs of a kept row's head and a column, U vectors of keys that occur in a pair.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.cells import Cells


@dataclass(frozen=True, slots=True)
class Pairs:
    """Built once a batch and mask, for all layers. A vector of a row counts n H + head, of a key (b T + t) K + head."""

    rows: Tensor  # (N,) b T + position
    slots: Tensor  # (N,) b R + place among the example's supervised rows
    row: Tensor  # (P,) vector of each pair's row; pairs are in this order
    starts: Tensor  # (N H + 1,) where the pairs of each begin
    column: Tensor  # (P,) vector of each pair's key
    keys: Tensor  # (U,) those that occur, in order
    by_key: Tensor  # (P,) the pairs in the order of their keys
    row_by_key: Tensor  # (P,) `row` in that order
    key_starts: Tensor  # (U + 1,) where the pairs of each begin in it

    def dots(self, rows: Tensor, keys: Tensor) -> Tensor:
        """(P,) dot products of each pair's vectors, of rows (N H, D) and keys (B T K, D)."""
        products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(  # noqa: SLF001 - nothing public
            rows, keys, self.column, self.starts[:-1], self.row, _SUM
        )
        return products

    def over_columns(self, weights: Tensor, keys: Tensor) -> Tensor:
        """(N H, D) sums of keys (B T K, D) by weights (P,)."""
        return _sums(keys, self.column, self.starts, weights)

    def over_rows(self, weights: Tensor, rows: Tensor) -> Tensor:
        """(U, D) sums of rows (N H, D) by weights (P,), for the keys that occur."""
        return _sums(rows, self.row_by_key, self.key_starts, weights.index_select(0, self.by_key))

    def most(self, values: Tensor) -> Tensor:
        """(N H,) the largest of each row's values (P,)."""
        return torch.segment_reduce(values, "max", offsets=self.starts, unsafe=True)

    def spread(self, values: Tensor) -> Tensor:
        """(P,) for each pair that of its row's vector, of (N H,)."""
        return values.index_select(0, self.row)

    def total(self, values: Tensor) -> Tensor:
        """(N H,) the sum of each row's values (P,)."""
        return torch.segment_reduce(values, "sum", offsets=self.starts, unsafe=True)


_SUM = 0  # torch's number for that mode of EmbeddingBag


def allowed_pairs(cells: Cells, index: Tensor, length: int, heads: int, key_heads: int) -> Pairs:
    """The pairs of `cells`, for rows at positions `index` (B, R) of T = `length`; rows without one are not kept."""
    places = index.shape[1]
    slots, counts = torch.unique_consecutive(cells.slot, return_counts=True)
    head = torch.arange(heads, device=index.device)
    counts = counts.repeat_interleave(heads)  # (N H,)
    starts = _starts(counts)
    row = torch.arange(len(counts), device=index.device).repeat_interleave(counts)  # (P,)
    first = _starts(counts[::heads])[:-1].repeat_interleave(heads)  # (N H,) first of a row's columns, for each head
    pair = torch.arange(len(row), device=index.device) + (first - starts[:-1])[row]
    key_of_cell = cells.slot // places * length + cells.column
    key_head = (head // (heads // key_heads)).repeat(len(slots))  # (N H,)
    key = key_of_cell[pair] * key_heads + key_head[row]
    by_key = key.argsort(stable=True)
    keys, key_counts = torch.unique_consecutive(key[by_key], return_counts=True)
    rows = slots // places * length + index.flatten()[slots]
    return Pairs(rows, slots, row, starts, key, keys, by_key, row[by_key], _starts(key_counts))


def _starts(counts: Tensor) -> Tensor:
    """(n + 1,) running total, from 0."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _sums(vectors: Tensor, which: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return torch.nn.functional.embedding_bag(  # detached: it would prepare for a backward of its own
        which, vectors.detach(), starts, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
