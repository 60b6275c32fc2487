"""Sums and quantiles of masses, against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.attention import RowStatistics
from trainer.masses import BINS, mass_sums, quantile

HEADS = 2


@st.composite
def layers_of_rows(draw):
    """Two layers of one example: for each row (allowed, others, mass of each head), allowed 0 where it is dropped."""
    count = draw(st.integers(1, 4))
    row = st.tuples(st.integers(0, 3), st.integers(0, 4), st.lists(st.floats(0.01, 1), min_size=HEADS, max_size=HEADS))
    return draw(st.lists(st.lists(row, min_size=count, max_size=count), min_size=2, max_size=2))


def statistics_of(rows):
    log_mass = [[math.log(masses[head]) if allowed else 0.0 for allowed, _, masses in rows] for head in range(HEADS)]
    return RowStatistics(
        torch.tensor([log_mass]),
        torch.tensor([[allowed for allowed, _, _ in rows]]),
        torch.tensor([[others if allowed else 0 for allowed, others, _ in rows]]),
    )


@given(layers_of_rows())
def test_sums_are_those_of_kept_rows(layers):
    kept = [(n1, n0, m) for rows in layers for n1, n0, masses in rows if n1 for m in masses]
    sums = mass_sums([statistics_of(rows) for rows in layers])
    assert sums.masses.item() == len(kept)
    assert sums.mass.item() == pytest.approx(sum(m for _, _, m in kept), rel=1e-5, abs=1e-6)
    assert sums.a1.item() == pytest.approx(sum(m / n1 for n1, _, m in kept), rel=1e-5, abs=1e-6)
    assert sums.a0.item() == pytest.approx(sum((1 - m) / max(n0, 1) for _, n0, m in kept), rel=1e-4, abs=1e-5)
    assert sums.histogram.sum().item() == sum(any(row[0] for row in column) for column in zip(*layers, strict=True))


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50), st.sampled_from([0.1, 0.5, 0.9]))
def test_a_quantile_is_that_of_the_rows_to_a_bin(masses, share):
    histogram = torch.histc(torch.tensor(masses), BINS, min=0.0, max=1.0)
    expected = np.quantile(masses, share, method="inverted_cdf")
    assert quantile(histogram, share) == pytest.approx(expected, abs=1 / BINS + 1e-6)


def test_without_rows_there_is_no_quantile():
    assert quantile(torch.zeros(BINS), 0.5) is None
