"""One slice of an annotation job: label for a bounded time, then hand the job on if another waits: jobs take turns."""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import structlog

from annotator.annotate import annotate_one
from annotator.prior import prior_from_json
from annotator.teachers.base import Teacher
from annotator.votes import annotate_by_votes, for_votes
from annotator.wire import annotation_to_json
from core import annotation_items, budgets, leases
from core.annotation_items import Asked, Item
from core.domain.annotation import Demonstration, Example, Mode, Prior, TeacherConfig
from core.domain.lifecycle import JobState
from core.domain.spending import Cost
from core.errors import BudgetExhausted, InvalidInput
from core.leases import Claim
from worker.batches.left_behind import stop_batches_left_behind
from worker.batches.slice import label_in_batches
from worker.cache import DatabaseReplyCache
from worker.claimed import work_on
from worker.heart import Heart
from worker.measured import against_gold
from worker.purse import JobPurse
from worker.runtime import Runtime
from worker.shown import Shown, shown_from_now_on, shown_to

_Drawn = tuple[Item, Sequence[Demonstration]]  # and what is shown with it

_log = structlog.get_logger(__name__)

_WINDOWS = 4  # items claimed ahead, in multiples of the teacher's concurrency
_CALLERS = 1.5  # in the same: some look up and store replies while others hold the teacher's places
_TICK = 0.25  # seconds between writes of labels, and between looks at the lease
_DRAIN = 10.0  # seconds that calls in flight may still take when the process is to go


def annotate(runtime: Runtime, job_id: str) -> None:
    """Work on an annotation job for one slice, if it is to be had."""
    work_on(runtime, job_id, _work)
    stop_batches_left_behind(runtime, job_id)


def _work(runtime: Runtime, claim: Claim, heart: Heart) -> None:
    with runtime.database.reading() as session:
        asked = annotation_items.asked_of(session, claim)
    config = runtime.settings.teacher(asked.teacher)
    if config is None:
        raise InvalidInput(f"there is no teacher {asked.teacher!r} in the settings of this worker", field="teacher")
    if asked.mode is Mode.BATCH:
        label_in_batches(runtime, claim, heart, asked, config)
        return
    with runtime.database.reading() as session:
        shown = shown_to(session, claim, asked)
    with runtime.database.transaction() as uow:
        budget = budgets.budget_of(budgets.write_off(uow, claim))  # of calls that a lost worker left behind
    purse = JobPurse(runtime.database, claim, config, budget)
    config = config if asked.votes == 1 else for_votes(config)
    slice_ = _Slice(runtime, claim, heart, config, asked=asked, shown=shown, purse=purse)
    asyncio.run(slice_.run(prior_from_json(asked.prior)))
    with runtime.database.transaction() as uow:
        if heart.cancelled.is_set():
            state = leases.finish(uow, claim, JobState.CANCELLED).state
        elif annotation_items.is_done(uow.session, claim):
            state = annotation_items.complete(uow, claim, measured=against_gold(uow.session, claim)).state
        elif purse.refused is not None:
            state = budgets.pause(uow, claim, purse.refused).state
        else:
            leases.release(uow, claim)
            state = "released"
    _log.info("slice_ended", labelled=slice_.stored, state=state)


class _Slice:
    """Calls refilled continuously from a queue of pending items; labels stored in fenced batches."""

    def __init__(
        self,
        runtime: Runtime,
        claim: Claim,
        heart: Heart,
        config: TeacherConfig,
        *,
        asked: Asked,
        shown: Shown,
        purse: JobPurse,
    ) -> None:
        self.stored = 0
        self._asked, self._shown, self._purse = asked, shown, purse
        self._runtime, self._claim, self._heart, self._config = runtime, claim, heart, config
        self._window = _WINDOWS * config.concurrency
        self._callers = math.ceil(_CALLERS * config.concurrency)
        self._cache = DatabaseReplyCache(runtime.database, claim.tenant_id)
        self._began = time.monotonic()
        self._ends = self._began + runtime.settings.jobs.slice
        self._yielding = False  # another job waits for our place
        self._labels: dict[int, dict[str, Any]] = {}  # made, not yet stored
        self._items: asyncio.Queue[_Drawn | None] = asyncio.Queue(self._window)
        self._wake = asyncio.Event()  # there is something to store, or somebody is done
        self._room = asyncio.Event()  # labels may be made: not too many wait to be stored

    async def run(self, prior: Prior) -> None:
        """Label until the items, the time or the right to go on run out. What was labelled is stored.

        Raises
        ------
        LeaseLost
            When a batch met the fence.
        TeacherUnreachable, TeacherRejected
            As annotate_one; the labels made before are stored.
        """
        health = self._runtime.health_of(self._config)
        async with self._runtime.open_teacher(self._config, prior, health=health, purse=self._purse) as teacher:
            callers = [asyncio.create_task(self._call(teacher)) for _ in range(self._callers)]
            tasks = [asyncio.create_task(self._feed()), *callers]
            for task in tasks:
                task.add_done_callback(lambda _: self._wake.set())
            try:
                await self._store_while_working(tasks, callers)
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
        if not self._heart.lost.is_set():
            await self._store()
            await asyncio.to_thread(self._write_off)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _store_while_working(self, tasks: list[asyncio.Task[None]], callers: list[asyncio.Task[None]]) -> None:
        drain_until = None
        while not all(task.done() for task in callers):
            await self._pause()
            await self._store()
            await self._take_turns()
            if self._heart.cancelled.is_set() or self._heart.lost.is_set() or any(map(_failed, tasks)):
                return  # calls in flight are given up: a retry inside one would be another call
            if self._runtime.draining.is_set():
                drain_until = drain_until or time.monotonic() + _DRAIN
                if time.monotonic() > drain_until:
                    return

    async def _feed(self) -> None:
        after = 0
        while not self._over():
            items = await asyncio.to_thread(self._pending, after)
            for drawn in items:
                await self._items.put(drawn)
            if not items:
                break
            after = items[-1][0].id
        for _ in range(self._callers):
            await self._items.put(None)

    async def _call(self, teacher: Teacher) -> None:
        while (drawn := await self._items.get()) is not None:
            await self._room.wait()
            if self._over():
                return
            item, demonstrations = drawn
            try:
                self._labels[item.id] = await self._label(teacher, item.example, demonstrations)
            except BudgetExhausted:
                return
            if len(self._labels) >= self._window:
                self._room.clear()
                self._wake.set()

    async def _label(
        self, teacher: Teacher, example: Example, demonstrations: Sequence[Demonstration]
    ) -> dict[str, Any]:
        votes = self._asked.votes
        if votes == 1:
            one = await annotate_one(teacher, example, cache=self._cache, demonstrations=demonstrations)
            return annotation_to_json(one)
        verdict = await annotate_by_votes(
            teacher, example, votes=votes, cache=self._cache, demonstrations=demonstrations
        )
        return annotation_to_json(verdict.annotation) | {"confidence": verdict.confidence}

    def _over(self) -> bool:
        """Whether no new call may be made."""
        return (
            self._heart.cancelled.is_set()
            or self._heart.lost.is_set()
            or self._runtime.draining.is_set()
            or self._yielding
            or self._purse.refused is not None
        )

    async def _take_turns(self) -> None:
        """At the end of a slice, yield if another job waits; else begin the next at once, with all calls in flight.

        To let them run out first would leave most places empty for as long as the slowest takes.
        """
        if not self._yielding and time.monotonic() > self._ends:
            self._yielding = await asyncio.to_thread(self._look_around)
            self._ends += self._runtime.settings.jobs.slice

    def _look_around(self) -> bool:
        """Whether another job waits; and what this one may show has perhaps become less."""
        with self._runtime.database.reading() as session:
            self._shown = shown_from_now_on(session, self._claim, self._asked, self._shown)
            return leases.others_wait(session, self._claim)

    async def _pause(self) -> None:
        self._room.set()
        try:
            await asyncio.wait_for(self._wake.wait(), _TICK)
        except TimeoutError:
            return
        self._wake.clear()

    def _pending(self, after: int) -> list[_Drawn]:
        with self._runtime.database.reading() as session:
            items = annotation_items.pending_items(session, self._claim, after=after, limit=self._window)
        # Drawn here, in a thread: a search takes longer than a turn of the event loop should.
        return [(item, self._shown.beside(item.example)) for item in items]

    async def _store(self) -> None:
        if not self._labels and not self._purse.has_news:
            return
        labels, self._labels = self._labels, {}
        await asyncio.to_thread(self._write, labels, self._purse.take())

    def _write(self, labels: annotation_items.Labels, settled: dict[int, Cost]) -> None:
        pace = (self.stored + len(labels)) / (time.monotonic() - self._began)
        with self._runtime.database.transaction() as uow:
            self._purse.write(uow, settled)
            annotation_items.store_labels(uow, self._claim, labels, items_per_second=pace)
        self.stored += len(labels)

    def _write_off(self) -> None:
        with self._runtime.database.transaction() as uow:
            budgets.write_off(uow, self._claim)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
