"""Admits calls to an endpoint, first come first served, as its health allows."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from annotator.teachers.health import EndpointHealth

_LOOK_AGAIN = 0.05  # seconds, while the places are taken by calls of another event loop


class Gate:
    """The calls of one event loop to an endpoint. What they share with those of other loops is in `health`."""

    def __init__(self, health: EndpointHealth) -> None:
        self.health = health
        self._in_flight = 0
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def admitted(self, tokens: float = 0.0) -> AsyncIterator[float]:
        """Wait for a place for a call of about so many tokens, and hold it; gives the loop's time when it began."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append((turn, tokens))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._leave()  # admitted and cancelled in the same moment
            raise
        try:
            yield loop.time()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._in_flight -= 1
        self.health.end()
        self._admit()

    def _admit(self) -> None:
        """Let in as many as may start now, and come back when the next one may."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            turn, tokens = self._waiting[0]
            if not turn.cancelled():
                now = loop.time()
                ask_again = self.health.begin(now, tokens)
                if ask_again is not None:
                    if ask_again > now:
                        self._timer = loop.call_at(ask_again, self._admit)
                    elif not self._in_flight:  # else the next of ours that ends comes back here
                        self._timer = loop.call_at(now + _LOOK_AGAIN, self._admit)
                    return
                self._in_flight += 1
                turn.set_result(None)
            self._waiting.popleft()
