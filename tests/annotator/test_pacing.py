from hypothesis import given
from hypothesis import strategies as st

from annotator.teachers.health import EndpointHealth
from annotator.teachers.pacing import Allowance


@given(st.floats(1, 10_000), st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_no_minute_has_more_than_its_allowance_and_one_burst(per_minute: float, delays: list[float]) -> None:
    allowance, now, spent = Allowance(per_minute), 0.0, []
    for delay in delays:
        now = max(now + delay, allowance.ready_at(now + delay, 1))
        allowance.spend(now, 1)
        spent.append(now)
    for first in spent:
        in_the_minute = sum(first <= at < first + 60 for at in spent)
        assert in_the_minute <= per_minute + max(1.0, per_minute / 30) + 1


def test_a_steady_stream_gets_all_of_its_allowance() -> None:
    allowance, now, count = Allowance(600), 0.0, 0
    while now < 60:
        now = allowance.ready_at(now, 1)
        allowance.spend(now, 1)
        count += 1
    assert 600 <= count <= 622


def test_more_than_a_bucket_holds_waits_for_a_full_one_and_is_paid_off() -> None:
    allowance = Allowance(600)  # 20 at once, 10 a second
    assert allowance.ready_at(0.0, 1000) == 0.0
    allowance.spend(0.0, 1000)
    assert 97 < allowance.ready_at(0.0, 1) < 99


def test_what_was_estimated_too_high_is_given_back() -> None:
    health = EndpointHealth(most=9, tokens=Allowance(600))
    assert health.begin(0.0, tokens=20) is None
    assert (health.begin(0.0, tokens=10) or 0) > 0.9
    health.settle(0.0, -20)
    assert health.begin(0.0, tokens=10) is None


def test_requests_are_paced_even_where_places_are_free() -> None:
    health = EndpointHealth(most=9, requests=Allowance(60))
    assert [health.begin(0.0), health.begin(0.0), health.begin(0.0)] == [None, None, 1.0]
    assert [health.begin(1.0), health.begin(1.5)] == [None, 2.0]
