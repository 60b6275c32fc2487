"""How long to wait before the next attempt, and what an endpoint's headers say about it."""

import email.utils
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime

_BASE = 0.5  # seconds
_MOST = 8.0  # seconds: short, because the breaker, not the backoff, is what spares an endpoint that is down
_MOST_ASKED = 600.0  # seconds: a Retry-After beyond it is for the job's deadline to judge, not for us to sleep through
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def backoff(attempt: int, chance: random.Random) -> float:
    """Seconds to wait after the `attempt`-th failure (from 1): full jitter under a doubling bound."""
    return chance.uniform(0, min(_MOST, _BASE * 2 ** (attempt - 1)))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the endpoint asks us to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date (RFC 9110)."""
    try:
        if "retry-after-ms" in headers:
            return _bounded(float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
            return _bounded(float(value))
        return _bounded((email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None  # not in any form we know: as if it were not there


def exhausted_for(headers: Mapping[str, str]) -> float | None:
    """Seconds until an exhausted rate limit has room again (`x-ratelimit-*`), None while there is room."""
    waits = [
        _duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max(waits, default=None)


def _duration(text: str) -> float:
    """Seconds of "6m0s", "20ms" or "1.5"."""
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return _bounded(float(text))
    return _bounded(sum(float(amount) * _SECONDS[unit] for amount, unit in _DURATION.findall(text)))


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), _MOST_ASKED)
