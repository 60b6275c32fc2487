"""From spans to supervised attention rows, with numpy over many examples at once.

An edge (effect <- cause) over token ranges becomes blocks of the attention map, rows x columns. The rows of an example
are the union of its blocks, cut at the diagonal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.domain.training import Rows
from core.errors import InvalidInput

Ints: TypeAlias = NDArray[np.int64]
Offsets: TypeAlias = Sequence[tuple[int, int]]

_CELLS = 1 << 20  # of blocks that are expanded at once: some 40 MiB


class Ruler:
    """Maps characters to tokens, for several texts at once.

    The texts are laid end to end, so that one binary search serves them all.
    """

    def __init__(self, offsets: Sequence[Offsets], text_lengths: Sequence[int]) -> None:
        counts = np.array([len(pairs) for pairs in offsets])
        flat = chain.from_iterable(chain.from_iterable(offsets))
        pairs = np.fromiter(flat, np.int64, 2 * int(counts.sum())).reshape(-1, 2)
        self._first_token = _starts(counts)
        self._base = _starts(np.array(text_lengths) + 1)
        shift = np.repeat(self._base[:-1], counts)
        # Special tokens, and those a normaliser made from nothing, cover no character.
        self._real = np.flatnonzero(pairs[:, 1] > pairs[:, 0])
        self._starts, self._ends = (pairs + shift[:, None])[self._real].T
        if (np.diff(self._starts) < 0).any() or (np.diff(self._ends) < 0).any():
            raise InvalidInput("this tokenizer's offsets run backwards, so spans cannot be mapped to tokens")
        self._token_ends = pairs[:, 1]

    def ends_of(self, text: int) -> Ints:
        """(T,) where each token of a text ends, in code points; 0 for special tokens."""
        return self._token_ends[self._first_token[text] : self._first_token[text + 1]]

    def tokens(self, texts: Ints, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
        """[lo, hi) from the first to the last token that shares a character with [start, end); lo == hi where none."""
        base, first_token = self._base[texts], self._first_token[texts]
        first = np.searchsorted(self._ends, base + starts, side="right")
        last = np.searchsorted(self._starts, base + ends, side="left")
        found = last > first
        if not found.any():
            return np.zeros_like(texts), np.zeros_like(texts)
        lo = self._real[np.where(found, first, 0)]
        hi = self._real[np.where(found, last, 1) - 1] + 1
        return np.where(found, lo - first_token, 0), np.where(found, hi - first_token, 0)


@dataclass(frozen=True, slots=True)
class Edges:
    """Effect <- cause edges of several examples, as token ranges [lo, hi). All arrays (E,); `owner` is increasing."""

    owner: Ints  # which example
    effect_lo: Ints
    effect_hi: Ints
    cause_lo: Ints
    cause_hi: Ints

    @property
    def straddles(self) -> NDArray[np.bool_]:
        """(E,) the cause's last token is also the effect's first, so it cannot be seen before the effect is."""
        return self.cause_hi > self.effect_lo


@dataclass(frozen=True, slots=True)
class RowTable:
    """The supervised rows of one example: row k at `positions[k]` may see `columns[starts[k]:starts[k + 1]]`."""

    positions: NDArray[np.int32]  # (R,) increasing
    starts: NDArray[np.int32]  # (R + 1,)
    columns: NDArray[np.int32]  # (n,) increasing within a row, never above its row


def row_tables(edges: Edges, kind: Rows | None, prompt_lengths: Ints, *, at_once: int = _CELLS) -> list[RowTable]:
    """The rows of each example, `kind` deciding which; all empty for None.

    Parameters
    ----------
    prompt_lengths
        (N,) in tokens.
    at_once
        Bounds memory: examples are worked on together while their blocks have at most so many cells.
    """
    blocks = _effect_blocks(edges)
    if kind is None:
        blocks = blocks[:, :0]
    elif kind is Rows.ANSWER:
        blocks = _from_target_on(blocks, prompt_lengths)
    elif kind is Rows.CLOSURE:
        blocks = np.concatenate([blocks, _phrase_blocks(edges), _own_cause_blocks(edges)], axis=1)
    tables: list[RowTable] = []
    for first, last in pairwise(_groups(blocks, len(prompt_lengths), at_once)):
        mine = blocks[:, (blocks[0] >= first) & (blocks[0] < last)]
        mine[0] -= first
        tables += _tables(mine, last - first)
    return tables


def ramp(counts: Ints) -> Ints:
    """0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, ..."""
    return np.arange(int(counts.sum())) - np.repeat(_starts(counts)[:-1], counts)


def _effect_blocks(edges: Edges) -> Ints:
    """(5, E) owner, row range, column range: the rows that predict the effect see the cause."""
    rows_lo, rows_hi = np.maximum(edges.effect_lo - 1, 0), edges.effect_hi - 1
    return np.stack([edges.owner, rows_lo, rows_hi, edges.cause_lo, _cause_end(edges)])


def _from_target_on(blocks: Ints, prompt_lengths: Ints) -> Ints:
    """(5, E) the same without the rows that predict a token of the prompt."""
    owner, rows_lo, *others = blocks
    return np.stack([owner, np.maximum(rows_lo, prompt_lengths[owner] - 1), *others])


def _phrase_blocks(edges: Edges) -> Ints:
    """(5, E) a cause's tokens see their own phrase so far: the block's lower triangle."""
    lo, hi = edges.cause_lo, _cause_end(edges)
    return np.stack([edges.owner, lo, hi, lo, hi])


def _own_cause_blocks(edges: Edges) -> Ints:
    """(5, P) a cause's tokens that are also an effect's see that effect's causes.

    Which phrase makes a token a cause's does not matter, so an edge meets the stretches of such tokens within its
    effect, not every other edge.
    """
    cause_end = _cause_end(edges)
    width = 1 + int(max(edges.cause_hi.max(initial=0), edges.effect_hi.max(initial=0)))  # no stretch spans two examples
    base = edges.owner * width
    there = cause_end > edges.cause_lo
    starts, ends = _stretches((base + edges.cause_lo)[there], (base + cause_end)[there])
    first = np.searchsorted(ends, base + edges.effect_lo, side="right")
    counts = np.maximum(np.searchsorted(starts, base + edges.effect_hi, side="left") - first, 0)
    which = np.repeat(np.arange(len(counts)), counts)  # edge of each pair of an edge and a stretch
    met = first[which] + ramp(counts)
    lo = np.maximum(starts[met] - base[which], edges.effect_lo[which])
    hi = np.minimum(ends[met] - base[which], edges.effect_hi[which])
    return np.stack([edges.owner[which], lo, hi, edges.cause_lo[which], cause_end[which]])


def _stretches(lo: Ints, hi: Ints) -> tuple[Ints, Ints]:
    """The union of ranges [lo, hi), none empty, as disjoint ranges in increasing order."""
    order = np.argsort(lo)
    lo, reach = lo[order], np.maximum.accumulate(hi[order])
    apart = lo[1:] > reach[:-1]
    return lo[_flagged(apart, len(lo))], reach[_flagged(apart, len(lo), first=False)]


def _cause_end(edges: Edges) -> Ints:
    return np.where(edges.straddles, np.maximum(edges.effect_lo, edges.cause_lo), edges.cause_hi)


def _groups(blocks: Ints, examples: int, at_once: int) -> list[int]:
    """Bounds of runs of examples whose blocks have at most `at_once` cells together; one with more is alone."""
    areas = np.maximum(blocks[2] - blocks[1], 0) * np.maximum(blocks[4] - blocks[3], 0)
    so_far = _starts(np.bincount(blocks[0], areas, examples).astype(np.int64))  # exact: floats hold integers to 2^53
    bounds = [0]
    while bounds[-1] < examples:
        within = int(np.searchsorted(so_far, so_far[bounds[-1]] + at_once, side="right")) - 1
        bounds.append(max(within, bounds[-1] + 1))
    return bounds


def _tables(blocks: Ints, examples: int) -> list[RowTable]:
    width = 1 + int(blocks[2:].max(initial=0))  # of a key's last two digits: above any row or column
    keys = _cells(blocks, width)
    keys.sort(kind="stable")  # much faster than np.unique, which hashes: the keys are mostly in order already
    keys = keys[_flagged(keys[1:] != keys[:-1], len(keys))]
    rows = keys // width
    columns = (keys - rows * width).astype(np.int32)
    column_starts = np.flatnonzero(_flagged(rows[1:] != rows[:-1], len(rows)))
    row_keys = rows[column_starts]
    column_starts = np.append(column_starts, len(keys))
    positions = (row_keys % width).astype(np.int32)
    bounds = np.searchsorted(row_keys, np.arange(examples + 1) * width).tolist()
    tables = []
    for first, last in pairwise(bounds):
        starts = column_starts[first : last + 1]
        tables.append(
            RowTable(
                positions=positions[first:last],
                starts=(starts - starts[0]).astype(np.int32),
                columns=columns[starts[0] : starts[-1]],
            )
        )
    return tables


def _cells(blocks: Ints, width: int) -> Ints:
    """(owner * width + row) * width + column of every cell on or below the diagonal, some more than once."""
    owner, row_lo, row_hi, column_lo, column_hi = blocks
    height = np.maximum(row_hi - row_lo, 0)
    block = np.repeat(np.arange(len(owner)), height)  # of each row of each block
    row = row_lo[block] + ramp(height)
    counts = np.maximum(np.minimum(column_hi[block], row + 1) - column_lo[block], 0)  # up to the diagonal
    first = (owner[block] * width + row) * width + column_lo[block]
    return np.repeat(first, counts) + ramp(counts)


def _flagged(changes: NDArray[np.bool_], size: int, *, first: bool = True) -> NDArray[np.bool_]:
    """(size,) `changes` (size - 1,) with True before it, or after it unless `first`; empty for 0."""
    parts = ([True], changes) if first else (changes, [True])
    return np.concatenate(parts)[:size]


def _starts(counts: Ints) -> Ints:
    """(n + 1,) running total, from 0."""
    return np.concatenate([[0], np.cumsum(counts)])
