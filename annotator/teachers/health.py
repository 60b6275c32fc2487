"""What is known about an endpoint's state, and when the next call may start.

Plain data and pure decisions: no event loop, no clock (times are seconds of `time.monotonic`, handed in), so that it
can outlive a slice, be shared by slices in several threads, and be tested without waiting. `gate.py` carries the
decisions out.
"""

import math
import threading
from dataclasses import dataclass, field

from annotator.teachers.pacing import Allowance

_CUT = 0.75  # of the concurrency, at the first 429 of a burst
_RECOVER_TO = 0.9  # of the last level held without a 429: quickly up to there
_GOOD_PER_STEP = 25  # good replies for one more call at once, from there on
_FAILURES_TO_OPEN = 5  # in a row
_FIRST_PROBE = 0.5  # seconds after the breaker opens
_LAST_PROBE = 5.0  # seconds between probes, at most: so that an outage's end is noticed soon
_LONG_AGO = float("-inf")


@dataclass(slots=True)
class EndpointHealth:
    """How many calls the endpoint takes at once, which structured output it understands, whether it is down.

    Parameters
    ----------
    most
        Calls in flight, at most, however well it goes.
    requests, tokens
        What may be spent a minute; None for as much as the endpoint takes.
    """

    most: int
    requests: Allowance | None = None
    tokens: Allowance | None = None
    level: float = 0.0  # calls in flight, at most, now; 0 before the first is set to `most`
    in_flight: int = 0
    rung: int = 0  # of the structured-output ladder: 0 JSON schema, 1 JSON mode, 2 plain text
    rung_proven: bool = False  # a call on this rung has passed
    refused: frozenset[str] = frozenset()  # parameters this model does not take
    ever_answered: bool = False
    failures: int = 0  # in a row, of the network or the server
    failed_probes: int = 0  # since the breaker opened
    _held: float = 0.0  # the last level that was held without a 429
    _good: int = 0  # replies since the last cut
    _last_cut: float = _LONG_AGO
    _paused_until: float = _LONG_AGO
    _probe_at: float = _LONG_AGO
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.level = self.level or float(self.most)
        self._held = self.level

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open: the endpoint is down, and only one probe at a time goes out."""
        return self.failures >= _FAILURES_TO_OPEN

    def begin(self, now: float, tokens: float = 0.0) -> float | None:
        """Start a call of about so many tokens: None when it has started, else when to ask again.

        That is a later time, or `now` itself when every place is taken and a call in flight must end first.
        """
        with self._lock:
            if self.in_flight >= (1 if self.is_open else max(1, int(self.level))):
                return now
            ready = self._ready_at(now, tokens)
            if ready > now:
                return ready
            self.in_flight += 1
            if self.requests:
                self.requests.spend(now, 1)
            if self.tokens:
                self.tokens.spend(now, tokens)
            return None

    def end(self) -> None:
        """A call that began is over, however it went."""
        with self._lock:
            self.in_flight -= 1

    def answered(self, started: float = math.inf) -> None:
        """A call that began at `started` got a reply. One from before the last cut says nothing of the level since."""
        with self._lock:
            self.ever_answered = True
            self.failures = self.failed_probes = 0
            if started < self._last_cut:
                return
            self._good += 1
            # One per reply doubles the level every round trip.
            if self.level < _RECOVER_TO * self._held or self._good % _GOOD_PER_STEP == 0:
                self.level = min(self.level + 1, float(self.most))

    def throttled(self, now: float, started: float, retry_after: float | None) -> None:
        """A call that began at `started` was told to slow down (429). A burst of them counts once."""
        with self._lock:
            self.failures = self.failed_probes = 0
            if retry_after is not None:
                self._paused_until = max(self._paused_until, now + retry_after)
            if started < self._last_cut:
                return
            if self._good >= self.level:
                self._held = self.level
            elif self._good:
                self._held = self.level * _CUT
            # else a storm: nothing passes at any level, so it says nothing about this one
            self.level = max(1.0, self.level * _CUT)
            self._good = 0
            self._last_cut = now

    def failed(self, now: float) -> None:
        """A call got no answer, or a server error."""
        with self._lock:
            was_open = self.is_open
            self.failures += 1
            self.failed_probes += was_open
            if self.is_open:
                self._probe_at = now + min(_LAST_PROBE, _FIRST_PROBE * 2**self.failed_probes)

    def pause(self, until: float) -> None:
        """Start nothing before `until`: what an exhausted rate limit asks for."""
        with self._lock:
            self._paused_until = max(self._paused_until, until)

    def settle(self, now: float, tokens: float) -> None:
        """Count so many tokens more (or, below zero, fewer) than were counted when the call began."""
        with self._lock:
            if self.tokens:
                self.tokens.spend(now, tokens)

    def _ready_at(self, now: float, tokens: float) -> float:
        ready = max(now, self._paused_until, self._probe_at if self.is_open else _LONG_AGO)
        if self.requests:
            ready = max(ready, self.requests.ready_at(now, 1))
        if self.tokens:
            ready = max(ready, self.tokens.ready_at(now, tokens))
        return ready
