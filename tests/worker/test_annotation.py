"""The annotation task against a scripted teacher."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from annotator.teachers.base import Purse, Reply, ReplyCache, Teacher
from annotator.teachers.health import EndpointHealth
from core import annotations, labelled_items
from core.db.models import Job
from core.domain.annotation import (
    Annotation,
    Demonstration,
    Example,
    GroundedRelation,
    Outcome,
    Phrase,
    Prior,
    TeacherConfig,
)
from core.domain.lifecycle import JobState
from core.domain.spans import Grounding, Span
from core.errors import TeacherRejected, TeacherUnreachable
from core.job_store import cancel_job
from core.jobs import JobKind
from core.settings import TeacherSettings
from tests import scenes
from tests.worker.conftest import in_background, wait_until
from worker.runtime import Runtime
from worker.tasks.annotation import annotate


@dataclass
class Script:
    """A teacher that does as it is told, and counts."""

    answer: Callable[[Example], Annotation] = lambda _: Annotation(Outcome.EMPTY)
    latency: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    open_gate: threading.Event = field(default_factory=threading.Event)
    gated: bool = False
    in_flight: int = 0
    most_in_flight: int = 0
    name: str = "scripted"
    places: asyncio.Semaphore = field(default_factory=asyncio.Semaphore)  # as many as its concurrency, see open_teacher

    async def label(
        self, example: Example, cache: ReplyCache | None = None, demonstrations: Sequence[Demonstration] = ()
    ) -> Annotation:
        assert cache is not None
        prompt = f"prompt for {example.id}"
        if await cache.get(prompt) is None:
            async with self.places:
                self.calls[example.id] += 1
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    await self._reply()
                finally:
                    self.in_flight -= 1
            annotation = self.answer(example)
            await cache.put(prompt, Reply("{}"))
            return annotation
        return self.answer(example)

    async def _reply(self) -> None:
        await asyncio.sleep(self.latency)
        while self.gated and not self.open_gate.is_set():  # noqa: ASYNC110 (it is opened from another thread)
            await asyncio.sleep(0.01)


def _taught_by(runtime: Runtime, script: Script, *, concurrency: int = 4, **rhythm: Any) -> Runtime:
    @asynccontextmanager
    async def open_teacher(
        config: TeacherConfig, prior: Prior, *, health: EndpointHealth | None = None, purse: Purse | None = None
    ) -> AsyncIterator[Teacher]:
        assert (config.name, prior.name) == ("scripted", "weather")
        script.places = asyncio.Semaphore(config.concurrency)
        yield script

    teachers = {"scripted": TeacherSettings(kind="rule", concurrency=concurrency)}
    jobs = runtime.settings.jobs.model_copy(update=rhythm)
    settings = runtime.settings.model_copy(update={"teachers": teachers, "jobs": jobs})
    return replace(runtime, settings=settings, open_teacher=open_teacher, draining=threading.Event())


def _job(runtime: Runtime, examples: int = 30) -> Job:
    return scenes.annotation_job(runtime.database, examples=examples, teacher="scripted")


def _now(runtime: Runtime, job: Job) -> Job:
    return scenes.row(runtime.database, job.id)


def _cancel(runtime: Runtime, job: Job) -> None:
    with runtime.database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job.id)


def test_every_item_gets_an_outcome_from_one_call(runtime: Runtime) -> None:
    outcomes = [Outcome.EMPTY, Outcome.REFUSED, Outcome.UNREADABLE]
    script = Script(answer=lambda e: Annotation(outcomes[int(e.id[1:]) % 3]), latency=0.02)
    job = _job(runtime, 100)
    annotate(_taught_by(runtime, script), job.id)
    now = _now(runtime, job)
    assert (now.state, now.done, now.lease_until) == (JobState.SUCCEEDED, 100, None)
    assert now.result == {"outcomes": {"empty": 34, "refused": 33, "unreadable": 33}, "unresolved": 0}
    assert set(script.calls.values()) == {1}
    assert script.most_in_flight == 4


def test_the_real_rule_teacher_labels(runtime: Runtime) -> None:
    job = scenes.annotation_job(runtime.database, examples=5)
    annotate(runtime, job.id)
    with runtime.database.reading() as session:
        lines = list(labelled_items.export(session, tenant_id=scenes.TENANT, job_id=job.id))
    assert [line["relations"] for line in lines] == [[scenes.RELATION]] * 5


def test_a_job_with_gold_examples_says_how_near_it_came(runtime: Runtime) -> None:
    dataset_id = scenes.dataset(runtime.database, examples=1)
    wider = {**scenes.RELATION, "causes": [{"start": 0, "end": 3}, {"start": 4, "end": 6}]}
    scenes.add_examples(runtime.database, dataset_id, examples=2, split="gold", relations=[wider], gold=True)
    job = scenes.annotation_job_on(runtime.database, dataset_id, splits=["train", "gold"])
    annotate(runtime, job.id)
    result = _now(runtime, job).result
    assert result is not None
    assert result["outcomes"] == {"labelled": 3}
    gold = result["gold"]
    assert (gold["examples"], gold["exact"]["precision"], gold["exact"]["recall"]) == (2, 1.0, 0.5)
    assert (gold["characters"]["shared"], gold["characters"]["expected"]) == (2 * 3 * 3, 2 * 3 * 5)


def test_a_teacher_that_votes_is_asked_several_times_and_its_doubts_are_kept(runtime: Runtime) -> None:
    said = {"k0": ["sun", "sun", "sun"], "k1": ["sun", "sun", None], "k2": ["sun", None, "sun 02"]}
    cast: Counter[str] = Counter()

    def answer(example: Example) -> Annotation:
        cause = said[example.id][cast[example.id]]
        cast[example.id] += 1
        if cause is None:
            return Annotation(Outcome.EMPTY)
        yes = Phrase(Span(8, 11), "yes", Grounding.EXACT)
        phrase = Phrase(Span(0, len(cause)), cause, Grounding.EXACT)
        return Annotation(Outcome.LABELLED, (GroundedRelation(yes, (phrase,)),))

    script = Script(answer=answer)
    dataset_id = scenes.dataset(runtime.database, examples=3)
    job = scenes.annotation_job_on(runtime.database, dataset_id, teacher="scripted", votes=3)
    annotate(_taught_by(runtime, script), job.id)
    assert script.calls == {"k0": 3, "k1": 3, "k2": 3}
    with runtime.database.reading() as session:
        worst_first = labelled_items.page(
            session, tenant_id=scenes.TENANT, job_id=job.id, order=labelled_items.Order.CONFIDENCE
        )
    found = {item.example.key: item.annotation.confidence for item in worst_first}
    assert list(found) == ["k2", "k1", "k0"]
    assert found == pytest.approx({"k0": 1.0, "k1": 1 / 3, "k2": (2 / 3) / 3})


def test_slices_hand_over_while_another_job_waits(runtime: Runtime) -> None:
    script = Script(latency=0.05)
    job = _job(runtime, 40)
    _job(runtime)
    short = _taught_by(runtime, script, slice=0.15)
    slices = 0
    while _now(runtime, job).state != JobState.SUCCEEDED:
        annotate(short, job.id)
        slices += 1
        assert slices < 40
    assert slices > 1
    assert _now(runtime, job).epoch == slices
    assert _now(runtime, job).attempts == 0
    assert set(script.calls.values()) == {1}
    # One of its submit, one of each slice but the last.
    assert scenes.promised(runtime.database).count(job.id) == slices


def test_a_job_that_nobody_waits_behind_keeps_its_place(runtime: Runtime) -> None:
    job = _job(runtime, 40)
    working = _job(runtime)
    scenes.claimed(runtime.database, working.id)
    annotate(_taught_by(runtime, Script(latency=0.05), slice=0.15), job.id)
    assert (_now(runtime, job).state, _now(runtime, job).epoch) == (JobState.SUCCEEDED, 1)


@pytest.mark.parametrize("error", [TeacherUnreachable("no answer"), TeacherRejected("wrong key")])
def test_a_teacher_that_is_gone_fails_the_job_and_its_labels_stay(runtime: Runtime, error: Exception) -> None:
    def answer(example: Example) -> Annotation:
        if example.id == "k20":
            raise error
        return Annotation(Outcome.EMPTY)

    script = Script(answer=answer)
    job = _job(runtime)
    annotate(_taught_by(runtime, script), job.id)
    now = _now(runtime, job)
    assert (now.state, (now.error or {})["code"]) == (JobState.FAILED, error.code)  # type: ignore[attr-defined]
    assert 0 < now.done < 30
    # A new job goes on from there: what was answered is not asked again.
    script.answer = lambda _: Annotation(Outcome.EMPTY)
    with runtime.database.transaction() as uow:
        again = annotations.retry(uow, tenant_id=scenes.TENANT, job_id=job.id)
    annotate(_taught_by(runtime, script), again.id)
    assert _now(runtime, again).state == JobState.SUCCEEDED
    assert script.calls.pop("k20") == 2
    assert sum(script.calls.values()) <= 29 + 3  # those in flight when it failed may have been given up


def test_a_new_job_over_the_same_examples_makes_no_call(runtime: Runtime) -> None:
    script = Script()
    first = _job(runtime)
    annotate(_taught_by(runtime, script), first.id)
    second = scenes.annotation_job_on(runtime.database, first.dataset_id, teacher="scripted")
    annotate(_taught_by(runtime, script), second.id)
    assert _now(runtime, second).done == 30
    assert sum(script.calls.values()) == 30


def test_cancel_stops_the_calls(runtime: Runtime) -> None:
    script = Script(gated=True)
    job = _job(runtime)
    working = in_background(lambda: annotate(_taught_by(runtime, script), job.id))
    wait_until(lambda: script.in_flight == 4)
    _cancel(runtime, job)
    working.join()
    assert _now(runtime, job).state == JobState.CANCELLED
    assert sum(script.calls.values()) == 4  # none but those in flight


def test_a_worker_that_lost_its_lease_stops_and_writes_nothing(runtime: Runtime) -> None:
    script = Script(gated=True)
    job = _job(runtime)
    working = in_background(lambda: annotate(_taught_by(runtime, script), job.id))
    wait_until(lambda: script.in_flight == 4)
    scenes.take_back(runtime.database, job.id)
    scenes.claimed(runtime.database, job.id)
    working.join()
    now = _now(runtime, job)
    assert (now.state, now.epoch, now.done) == (JobState.RUNNING, 2, 0)
    assert sum(script.calls.values()) == 4


def test_a_worker_that_is_to_go_finishes_what_is_in_flight(runtime: Runtime) -> None:
    script = Script(gated=True)
    job = _job(runtime)
    taught = _taught_by(runtime, script)
    working = in_background(lambda: annotate(taught, job.id))
    wait_until(lambda: script.in_flight == 4)
    taught.draining.set()
    script.open_gate.set()
    working.join()
    now = _now(runtime, job)
    assert (now.state, now.attempts, now.lease_until, now.done) == (JobState.RUNNING, 0, None, 6)
    annotate(taught, job.id)  # and it takes nothing new
    assert _now(runtime, job).epoch == 1


def test_a_long_call_keeps_its_lease(runtime: Runtime) -> None:
    script = Script(gated=True)
    job = _job(runtime, 2)
    working = in_background(lambda: annotate(_taught_by(runtime, script, lease=2, heartbeat=0.1), job.id))
    wait_until(lambda: script.in_flight == 2)
    first = _now(runtime, job).lease_until
    assert first is not None
    wait_until(lambda: (_now(runtime, job).lease_until or 0) > first + 4)  # twice the lease later
    script.open_gate.set()
    working.join()
    assert (_now(runtime, job).state, _now(runtime, job).epoch) == (JobState.SUCCEEDED, 1)


def test_a_bug_fails_the_job_as_internal(runtime: Runtime) -> None:
    def answer(example: Example) -> Annotation:
        raise ValueError(f"cannot read {example.text}")

    job = _job(runtime)
    annotate(_taught_by(runtime, Script(answer=answer)), job.id)
    now = _now(runtime, job)
    assert now.state == JobState.FAILED
    assert now.error == {"code": "internal", "message": "an internal error; the logs say more"}


def test_a_teacher_that_this_worker_does_not_know(runtime: Runtime) -> None:
    job = scenes.annotation_job(runtime.database, teacher="nobody")
    annotate(runtime, job.id)
    assert (_now(runtime, job).error or {})["code"] == "invalid_input"


def test_what_is_not_to_be_had_is_left_alone(runtime: Runtime) -> None:
    script = Script()
    job = _job(runtime)
    scenes.claimed(runtime.database, job.id)
    for job_id in (job.id, "an_nothing"):
        annotate(_taught_by(runtime, script), job_id)
    assert script.calls == Counter()
