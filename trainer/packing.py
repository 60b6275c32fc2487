"""Which examples of a micro-batch stand behind one another in one row, so that little of the batch is padding."""

import heapq
from collections.abc import Sequence

import numpy as np

_ENOUGH = 1.05  # a narrower batch is worth this much more padding: attention costs the square of the width


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of indices into `lengths`, each index once; no row is longer in sum than `capacity`, or than its one item.

    Widths from the longest item on, doubling up to `capacity`, are tried with first-fit decreasing, and what was found
    is spread evenly over as many rows. The narrowest of those near the least area (rows x width) is taken. Items of one
    length are so left as they are, one a row. The same lengths give the same rows.
    """
    tried = [_even(lengths, len(_first_fit_decreasing(lengths, limit)), limit) for limit in _limits(lengths, capacity)]
    areas = [len(rows) * _width(rows, lengths) for rows in tried]
    return next(rows for rows, area in zip(tried, areas, strict=True) if area <= min(areas) * _ENOUGH)


def _limits(lengths: Sequence[int], capacity: int) -> list[int]:
    """Widths to try, narrowest first."""
    limits = [max(lengths)]
    while limits[-1] < capacity:
        limits.append(min(2 * limits[-1], capacity))
    return limits


def _first_fit_decreasing(lengths: Sequence[int], limit: int) -> list[list[int]]:
    rows: list[list[int]] = []
    left: list[int] = []  # what each row has room for
    for index in _longest_first(lengths):
        row = next((row for row, room in enumerate(left) if lengths[index] <= room), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(limit)
        rows[row].append(index)
        left[row] -= lengths[index]
    return rows


def _even(lengths: Sequence[int], count: int, limit: int) -> list[list[int]]:
    """`count` rows about equally full: each item, longest first, goes to the emptiest row (Graham's LPT rule).

    As first-fit made them where that would be wider than `limit`.
    """
    rows: list[list[int]] = [[] for _ in range(count)]
    fullness = [(0, row) for row in range(count)]
    for index in _longest_first(lengths):
        filled, row = heapq.heappop(fullness)
        rows[row].append(index)
        heapq.heappush(fullness, (filled + lengths[index], row))
    return rows if _width(rows, lengths) <= limit else _first_fit_decreasing(lengths, limit)


def _longest_first(lengths: Sequence[int]) -> list[int]:
    order: list[int] = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    return order


def _width(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    return max(sum(lengths[index] for index in row) for row in rows)
