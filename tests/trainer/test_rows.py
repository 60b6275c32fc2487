"""Rows from edges: against every pair of edges, one cell at a time; and what they need in memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.training import Rows
from trainer.rows import Edges, row_tables

Edge = tuple[int, int, int, int]  # effect [lo, hi), cause [lo, hi)

ranges = st.tuples(st.integers(0, 12), st.integers(1, 5)).map(lambda drawn: (drawn[0], sum(drawn)))
edges_of_one = st.lists(st.tuples(ranges, ranges).map(lambda pair: (*pair[0], *pair[1])), max_size=8)


def edges_of(examples: list[list[Edge]]) -> Edges:
    flat = [(owner, *edge) for owner, edges in enumerate(examples) for edge in edges]
    return Edges(*np.array(flat, np.int64).reshape(-1, 5).T)


def expected(edges: list[Edge], kind: Rows | None, prompt: int) -> dict[int, list[int]]:
    """Straight from the rules; for closure every edge meets every edge."""
    cells = set()

    def allow(rows: range, columns: range) -> None:
        cells.update((row, column) for row in rows for column in columns if column <= row)

    cut = [(lo, hi, a, b if b <= lo else max(lo, a)) for lo, hi, a, b in edges]
    for lo, hi, a, b in cut if kind else []:
        first = max(lo - 1, prompt - 1) if kind is Rows.ANSWER else lo - 1
        allow(range(max(first, 0), hi - 1), range(a, b))
    for _, _, a, b in cut if kind is Rows.CLOSURE else []:
        allow(range(a, b), range(a, b))
        for lo, hi, a_there, b_there in cut:
            allow(range(max(a, lo), min(b, hi)), range(a_there, b_there))
    return {row: sorted(c for r, c in cells if r == row) for row in sorted({row for row, _ in cells})}


@settings(max_examples=400, deadline=None)
@given(
    examples=st.lists(edges_of_one, min_size=1, max_size=5),
    kind=st.sampled_from([None, *Rows]),
    at_once=st.sampled_from([1, 30, 1 << 20]),
    prompt=st.integers(0, 14),
)
def test_rows_are_those_of_every_pair_of_edges(examples, kind, at_once, prompt):
    prompts = np.full(len(examples), prompt)
    tables = row_tables(edges_of(examples), kind, prompts, at_once=at_once)
    assert len(tables) == len(examples)
    for table, edges in zip(tables, examples, strict=True):
        bounds = zip(table.positions.tolist(), table.starts[:-1], table.starts[1:], strict=True)
        assert {row: table.columns[a:b].tolist() for row, a, b in bounds} == expected(edges, kind, prompt)
        assert {array.dtype for array in (table.positions, table.starts, table.columns)} == {np.dtype(np.int32)}
        assert (table.starts[0], table.starts[-1]) == (0, len(table.columns))


def peak(edges: Edges, examples: int, at_once: int) -> int:
    """Bytes."""
    tracemalloc.start()
    try:
        row_tables(edges, Rows.CLOSURE, np.zeros(examples, np.int64), at_once=at_once)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def chain(effects: int, causes: int) -> list[Edge]:
    """Every effect is a cause of those after it, up to `causes` of them."""
    return [
        (at, at + 1, at - back, at - back + 1) for at in range(1, effects) for back in range(1, min(at, causes) + 1)
    ]


@pytest.mark.parametrize("causes", [1, 15])
def test_memory_grows_with_the_edges_not_with_their_square(causes):
    some, many = (peak(edges_of([chain(effects, causes)]), 1, 1 << 30) for effects in (100, 800))
    assert many < 12 * some  # eight times the edges


def test_memory_is_bounded_whatever_the_number_of_examples():
    edges = edges_of([[(60, 120, 0, 60)]] * 64)
    kept = 64 * 60 * 60 * 4 * 1.6  # the columns that are handed back, those of the causes among them
    assert peak(edges, 64, 4000) < 2 * kept < peak(edges, 64, 1 << 30)
