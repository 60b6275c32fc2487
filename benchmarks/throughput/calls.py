"""What a fake teacher saw, and what follows from it: pure arithmetic. Times are seconds on the teacher's clock."""

import bisect
import math
from dataclasses import dataclass

from core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Call:
    """One request: when it came, when it was answered, and whether with a reply or with a 429."""

    came: float
    answered: float
    drawn: float  # the latency it was meant to have; 0 of a 429
    good: bool


def efficiency(calls: list[Call], *, concurrency: int) -> float:
    """Replies a second over the most that is possible, concurrency / mean drawn latency; from first call to last reply.

    The ramp at the start and the tail at the end count against it.
    """
    good = [call for call in calls if call.good]
    if not good:
        raise InvalidInput("there was no reply to measure")
    seconds = max(call.answered for call in good) - min(call.came for call in good)
    mean_latency = math.fsum(call.drawn for call in good) / len(good)
    return len(good) / seconds * mean_latency / concurrency


def recovery(calls: list[Call], *, window: float, share: float = 0.9) -> float | None:
    """Seconds from the last 429 until replies come at `share` of the rate before the first, None when they never do.

    The rate before is taken over the second half of that time, and the one after in windows of `window` seconds,
    each of which counts where it ends.
    """
    storm = [call.answered for call in calls if not call.good]
    if not storm:
        raise InvalidInput("there was no storm to recover from")
    began, ended = min(storm), max(storm)
    replies = sorted(call.answered for call in calls if call.good)
    half = (replies[0] + began) / 2
    before = _between(replies, half, began) / (began - half)
    needed = share * before * window
    for at in replies[bisect.bisect_right(replies, ended) :]:
        if at - window >= ended and _between(replies, at - window, at) >= needed:
            return at - ended
    return None


def _between(sorted_times: list[float], start: float, end: float) -> int:
    """How many of them lie in (start, end]."""
    return bisect.bisect_right(sorted_times, end) - bisect.bisect_right(sorted_times, start)
