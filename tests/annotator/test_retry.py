import email.utils
import random
from datetime import UTC, datetime, timedelta

import pytest

from annotator.teachers.retry import backoff, exhausted_for, retry_after


def test_backoff_is_full_jitter_under_a_doubling_bound() -> None:
    chance = random.Random(1)
    for attempt, bound in ((1, 0.5), (2, 1.0), (3, 2.0), (9, 8.0), (99, 8.0)):
        waits = [backoff(attempt, chance) for _ in range(500)]
        assert 0 <= min(waits) < 0.1 * bound
        assert 0.9 * bound < max(waits) <= bound


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-4"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "99999999"}, 600.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    later = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = retry_after({"retry-after": later})
    assert seconds is not None
    assert 60 < seconds <= 100


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5"}, 1.5),
        ({"x-ratelimit-remaining-tokens": "0"}, 0.0),
    ],
)
def test_an_exhausted_limit_says_how_long(headers: dict[str, str], seconds: float | None) -> None:
    assert exhausted_for(headers) == pytest.approx(seconds)
