"""Lists of cells against the maps they stand for."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.families import as_cells, as_map


@st.composite
def maps(draw):
    """(B, R, T) bool with some rows empty; positions (B, R)."""
    batch, rows, length = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 8)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    allowed = torch.rand(batch, rows, length, generator=generator) < 0.3
    return allowed, torch.randint(length, (batch, rows), generator=generator)


@given(maps())
def test_counts_and_rows_are_those_of_the_map(drawn):
    allowed, index = drawn
    cells = as_cells(allowed)
    assert torch.equal(cells.counts(index), allowed.sum(-1))
    assert torch.equal(cells.of_rows(index), index[..., None].expand_as(allowed)[allowed])
    assert torch.equal(as_map(cells, index, allowed.shape[2]), allowed)


@given(maps())
def test_what_is_kept_is_what_was_asked_for(drawn):
    allowed, index = drawn
    cells = as_cells(allowed)
    causal = torch.arange(allowed.shape[2]) <= index[..., None]
    kept = cells.where(cells.column <= cells.of_rows(index))
    assert all(map(torch.equal, kept, as_cells(allowed & causal)))


@given(maps())
def test_only_rows_without_a_cell_are_filled_up(drawn):
    allowed, index = drawn
    own = torch.arange(allowed.shape[2]) == index[..., None]
    wanted = torch.where(allowed.any(-1, keepdim=True), allowed, own)
    assert all(map(torch.equal, as_cells(allowed).filled_up(index), as_cells(wanted)))
