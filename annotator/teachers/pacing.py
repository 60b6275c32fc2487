"""A rate that an endpoint allows, kept without being told off first."""

from dataclasses import dataclass

_BURST = 1 / 30  # of a minute's allowance may be spent at once


@dataclass(slots=True)
class Allowance:
    """So many units (requests, tokens) a minute, as a bucket that refills steadily. Times as in EndpointHealth."""

    per_minute: float
    _left: float = 0.0
    _at: float = float("-inf")

    @property
    def _most(self) -> float:
        return max(1.0, self.per_minute * _BURST)

    def ready_at(self, now: float, amount: float) -> float:
        """When `amount` may be spent: `now` or later. More than the bucket ever holds waits until it is full."""
        self._refill(now)
        missing = min(amount, self._most) - self._left
        return now if missing <= 0 else now + missing * 60 / self.per_minute

    def spend(self, now: float, amount: float) -> None:
        """Take `amount`, into debt if need be; a negative amount gives back what was estimated too high."""
        self._refill(now)
        self._left = min(self._most, self._left - amount)

    def _refill(self, now: float) -> None:
        if self._at == float("-inf"):
            self._left = self._most
        else:
            self._left = min(self._most, self._left + (now - self._at) * self.per_minute / 60)
        self._at = now
