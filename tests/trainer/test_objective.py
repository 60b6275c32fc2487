"""Schedules and guided draws."""

import pytest

from core.domain.training import PRESETS, ObjectiveConfig, Preset
from trainer.objective import gamma, guide_probability, is_guided, supervised_layers

CAUSEWAY, PAPER = PRESETS[Preset.CAUSEWAY], PRESETS[Preset.PAPER]


@pytest.mark.parametrize(("u", "expected"), [(0, 0), (0.15, 0), (0.25, 0.05), (0.35, 0.1), (0.5, 0.1), (1, 0.1)])
def test_gamma_rises_and_stays(u, expected):
    assert gamma(u, CAUSEWAY) == pytest.approx(expected)


@pytest.mark.parametrize(("u", "expected"), [(0, 1), (0.3, 1), (0.5, 0.5), (0.7, 0), (0.9, 0)])
def test_guidance_is_taken_away(u, expected):
    assert guide_probability(u, CAUSEWAY) == pytest.approx(expected)


def test_the_papers_objective_is_constant_and_unguided():
    assert [gamma(u, PAPER) for u in (0, 0.5, 1)] == [1, 1, 1]
    assert not any(is_guided(step, 100, PAPER, seed=0) for step in range(100))


@pytest.mark.parametrize(
    ("low", "high", "depth", "expected"),
    [
        (0, 1, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0, 0.5, 8, [0, 1, 2, 3]),
        (0.5, 1, 8, [4, 5, 6, 7]),
        (0.5, 1, 3, [1, 2]),
        (0.5, 0.5, 8, [4]),
        (1, 1, 8, [7]),
        (0, 0, 8, [0]),
        (0.55, 0.6, 20, [11]),  # 0.55 * 20 is a little more than 11 in doubles
        (0, 0.55, 20, [*range(11)]),
    ],
)
def test_a_range_of_layers_is_every_layer_it_touches(low, high, depth, expected):
    assert [*supervised_layers(ObjectiveConfig(layers_from=low, layers_to=high), depth)] == expected


def test_guidance_can_last_to_the_end():
    assert all(is_guided(step, 50, ObjectiveConfig(guide_until=1, guide_end=1), seed=3) for step in range(50))


def test_draws_are_a_function_of_seed_and_step():
    draws = [[is_guided(step, 1000, CAUSEWAY, seed) for step in range(1000)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert all(draws[0][:301])
    assert not any(draws[0][700:])
    assert 0.4 < sum(draws[0][301:700]) / 399 < 0.6
