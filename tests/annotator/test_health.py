"""The policy towards an endpoint, decided on given times: no clock, no loop, no waiting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.teachers.health import EndpointHealth


def answer(health: EndpointHealth, times: int) -> None:
    for _ in range(times):
        health.answered()


def test_a_burst_of_429_cuts_the_level_once() -> None:
    health = EndpointHealth(most=64)
    answer(health, 100)
    for _ in range(64):
        health.throttled(now=10.0, started=9.0, retry_after=None)
    assert health.level == 48
    health.throttled(now=11.0, started=10.5, retry_after=None)
    assert health.level == 36


def test_after_a_storm_the_level_doubles_to_ninety_percent_and_then_creeps() -> None:
    health = EndpointHealth(most=64)
    answer(health, 100)
    for second in range(30):
        health.throttled(now=float(second), started=float(second), retry_after=None)
    assert health.level == 1
    rounds = 0
    while health.level < 0.9 * 64:
        answer(health, int(health.level))
        rounds += 1
    assert rounds <= 7
    before = health.level
    answer(health, 25)
    assert before < health.level <= before + 2
    answer(health, 1000)
    assert health.level == 64


def test_a_level_that_is_refused_again_and_again_is_not_jumped_back_to() -> None:
    health, now = EndpointHealth(most=64), 0.0
    peaks = []
    for _ in range(12):  # an endpoint that takes 10 at once
        now += 1
        while health.level <= 10:
            health.answered()
        peaks.append(health.level)
        health.throttled(now=now, started=now, retry_after=None)
    assert max(peaks[8:]) <= 12


def test_retry_after_is_never_undercut() -> None:
    health = EndpointHealth(most=4)
    health.throttled(now=10.0, started=9.0, retry_after=7.0)
    health.throttled(now=10.5, started=9.0, retry_after=1.0)
    assert health.begin(11.0) == 17.0
    assert health.begin(17.0) is None


def test_five_failures_in_a_row_open_the_breaker_and_one_probe_goes_out_at_a_time() -> None:
    health = EndpointHealth(most=4)
    for _ in range(4):
        health.failed(now=0.0)
    health.answered()
    for _ in range(4):
        health.failed(now=0.0)
    assert not health.is_open
    health.failed(now=0.0)
    assert health.is_open
    assert health.begin(0.1) == 0.5
    assert health.begin(0.6) is None
    assert health.begin(0.7) == 0.7  # not before the probe ends


def test_probes_of_a_minutes_outage_are_few_and_its_end_is_noticed_soon() -> None:
    health, now, probes = EndpointHealth(most=64), 0.0, 0
    for _ in range(64):
        health.failed(now)
    while now < 60:
        probe_at = health.begin(now)
        assert probe_at is not None
        assert probe_at - now <= 5.0
        now = probe_at
        assert health.begin(now) is None
        health.failed(now)
        health.end()
        probes += 1
    assert probes <= 20
    health.answered()
    assert not health.is_open
    assert [health.begin(now) for _ in range(65)] == [None] * 64 + [now]


def test_the_level_bounds_what_is_in_flight_and_never_falls_below_one() -> None:
    health = EndpointHealth(most=3)
    assert [health.begin(0.0) for _ in range(4)] == [None, None, None, 0.0]
    for second in range(50):
        health.throttled(now=float(second), started=float(second), retry_after=None)
    for _ in range(3):
        health.end()
    assert [health.begin(60.0), health.begin(60.0)] == [None, 60.0]


@given(st.lists(st.sampled_from(["answered", "throttled", "failed"]), max_size=200), st.integers(1, 100))
def test_whatever_happens_something_may_start_in_the_end(events: list[str], most: int) -> None:
    health = EndpointHealth(most=most)
    for second, event in enumerate(events):
        if event == "answered":
            health.answered()
        elif event == "throttled":
            health.throttled(float(second), float(second), retry_after=2.0)
        else:
            health.failed(float(second))
        assert 1 <= health.level <= most
        now = float(second)
        start = health.begin(now)
        if start is not None:
            assert now < start <= now + 5.0
            assert health.begin(start) is None
        health.end()


@pytest.mark.parametrize("rung", [0, 1, 2])
def test_what_was_learned_is_plain_data(rung: int) -> None:
    assert EndpointHealth(most=2, rung=rung).rung == rung


def test_replies_to_calls_from_before_a_storm_do_not_hide_the_level_held_before_it() -> None:
    health = EndpointHealth(most=64)
    for _ in range(64):
        health.answered(0.0)
    for burst in range(1, 20):  # while calls from before it still come home
        health.throttled(float(burst), burst - 0.5, None)
        health.answered(started=0.5)
    assert health.level == 1.0
    for _ in range(57):
        health.answered(started=30.0)
    assert health.level == 58.0
