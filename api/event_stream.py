"""A job's events as they happen, as server-sent events (WHATWG HTML, section 9.2).

Streams do not poll. One watcher asks the database for the newest event of all watched jobs at once, and wakes the
streams that have not seen it; those at the same place of the same job share one look. So what a hundred open streams
cost depends on what happens, not on how many they are, and they never take the threads of other requests.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from anyio import CapacityLimiter, to_thread

from api.schemas.jobs import event_view
from core.db.models import JobEvent
from core.db.session import Database
from core.domain.lifecycle import TERMINAL, JobState
from core.errors import NotFound, Unavailable
from core.job_store import events_after, get_job, newest_events
from core.jobs import JobKind

_INTERVAL = 0.5  # seconds between two looks of the watcher
_KEEP_ALIVE = 15.0  # seconds of silence after which a comment tells proxies that the stream is alive
_BATCH = 500  # events a look
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream stands: behind event `after` of a job."""

    tenant_id: str
    kind: JobKind
    job_id: str
    after: int


@dataclass(frozen=True, slots=True)
class News:
    """What a look found."""

    encoded: bytes
    count: int
    newest: int  # id of the last event found; where the stream stands now
    ended: bool  # the job is over, and these are its last events


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    after: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class EventStreams:
    """What the event streams of one process share. Made inside of a running event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._limiter = CapacityLimiter(_THREADS)
        self._looks: dict[Place, asyncio.Task[News]] = {}
        self._waiting: defaultdict[str, set[_Waiter]] = defaultdict(set)

    async def watch(self) -> None:
        """Wake streams for whose jobs something happened, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            watched = list(self._waiting)
            if not watched:
                continue
            try:
                newest = await to_thread.run_sync(self._newest, watched, limiter=self._limiter)
            except Unavailable:
                continue  # the next look may find it back
            for job_id in watched:
                for waiter in self._waiting.get(job_id, ()):
                    # A job without events is one that was deleted: its streams find that out.
                    if newest.get(job_id, waiter.after + 1) > waiter.after:
                        waiter.woken.set()

    async def news(self, place: Place) -> News:
        """The next events behind `place`.

        Raises
        ------
        NotFound
            As core.job_store.get_job.
        """
        look = self._looks.get(place)
        if look is None:
            look = asyncio.create_task(to_thread.run_sync(self._look, place, limiter=self._limiter))
            self._looks[place] = look
            look.add_done_callback(lambda _: self._looks.pop(place))
        return await asyncio.shield(look)  # one client that leaves must not take the others' look with it

    async def follow(self, place: Place) -> AsyncIterator[bytes]:
        """The stream from `place` on, until the job has ended or is deleted."""
        yield b"retry: 2000\n\n"
        while True:
            try:
                news = await self.news(place)
            except NotFound:
                return
            except Unavailable:
                await asyncio.sleep(_INTERVAL)  # the client has nothing to do about it: we look again
                continue
            if news.count:
                yield news.encoded
            if news.ended:
                return
            place = Place(place.tenant_id, place.kind, place.job_id, news.newest)
            if news.count < _BATCH and not await self._woken(place):
                yield b": still here\n\n"

    async def _woken(self, place: Place) -> bool:
        """Wait for something to happen; False when nothing has for long."""
        with self._waiter(place) as waiter:
            try:
                await asyncio.wait_for(waiter.woken.wait(), _KEEP_ALIVE)
            except TimeoutError:
                return False
        return True

    @contextmanager
    def _waiter(self, place: Place) -> Iterator[_Waiter]:
        waiter = _Waiter(place.after)
        self._waiting[place.job_id].add(waiter)
        try:
            yield waiter
        finally:
            waiters = self._waiting[place.job_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[place.job_id]

    def _newest(self, job_ids: list[str]) -> dict[str, int]:
        with self._database.reading() as session:
            return newest_events(session, job_ids=job_ids)

    def _look(self, place: Place) -> News:
        with self._database.reading() as session:
            # The state first: what ends a job is written with its last event, so nothing can come after it.
            job = get_job(session, tenant_id=place.tenant_id, kind=place.kind, job_id=place.job_id)
            over = JobState(job.state) in TERMINAL
            events = events_after(
                session, tenant_id=place.tenant_id, job_id=place.job_id, after=place.after, limit=_BATCH
            )
        newest = events[-1].id if events else place.after
        encoded = b"".join(map(_encoded, events))
        return News(encoded, len(events), newest, over and len(events) < _BATCH)


def _encoded(event: JobEvent) -> bytes:
    return f"id: {event.id}\nevent: {event.type}\ndata: {event_view(event).model_dump_json()}\n\n".encode()
