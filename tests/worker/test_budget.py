"""Guarantee 11: spend never passes the cap, whoever dies when; and the mutants that would let it."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from annotator.parsing import REPLY_SCHEMA
from annotator.prior import prior_from_json
from annotator.prompts import render
from annotator.teachers.chat_format import most_tokens
from core import annotations, budgets, leases
from core.db.base import clock
from core.db.models import Job
from core.domain.annotation import Example
from core.domain.lifecycle import JobState
from core.domain.spending import Cost
from core.settings import TeacherSettings
from tests import scenes
from tests.fake_teacher import FakeTeacher
from tests.worker.conftest import in_background, wait_until
from worker.runtime import Runtime
from worker.tasks.annotation import annotate

MAX_TOKENS = 16
# Every example of the scene is as long as the others, and so is every prompt.
CALL = most_tokens(render(prior_from_json(scenes.PRIOR), Example("sun 00? ", "yes")), REPLY_SCHEMA, MAX_TOKENS)
CALL_TOKENS = CALL.prompt_tokens + CALL.completion_tokens
CAP = 20  # calls


def _job(runtime: Runtime, *, calls: int = CAP, examples: int = 60) -> Job:
    dataset, prior = scenes.dataset(runtime.database, examples=examples), scenes.prior(runtime.database)
    with runtime.database.transaction() as uow:
        return annotations.submit(
            uow,
            tenant_id=scenes.TENANT,
            dataset_id=dataset,
            prior_id=prior,
            teacher="fake",
            splits=["train"],
            budget_tokens=calls * CALL_TOKENS,
        )


def _taught_by(runtime: Runtime, fake: FakeTeacher, **rhythm: Any) -> Runtime:
    teachers = {"fake": TeacherSettings(base_url=fake.base_url, model="m", max_tokens=MAX_TOKENS, concurrency=4)}
    jobs = runtime.settings.jobs.model_copy(update=rhythm)
    settings = runtime.settings.model_copy(update={"teachers": teachers, "jobs": jobs})
    return replace(runtime, settings=settings, draining=threading.Event(), health={})


def _work_until_it_stops(runtime: Runtime, job: Job) -> Job:
    for _ in range(20):
        annotate(runtime, job.id)
        now = scenes.row(runtime.database, job.id)
        if now.state != JobState.RUNNING:
            return now
    raise AssertionError("it never stopped")


def _raise(runtime: Runtime, job: Job, calls: int) -> None:
    with runtime.database.transaction() as uow:
        budgets.change_budget(uow, tenant_id=scenes.TENANT, job_id=job.id, tokens=calls * CALL_TOKENS)


def test_a_job_pauses_at_its_budget_and_goes_on_when_that_is_raised(runtime: Runtime) -> None:
    job = _job(runtime)
    with FakeTeacher(usage=False).serving() as fake:
        taught = _taught_by(runtime, fake)
        paused = _work_until_it_stops(taught, job)
        assert paused.state == JobState.PAUSED_BUDGET
        assert (len(fake.calls), paused.done) == (CAP, CAP)
        assert (paused.spent_tokens, paused.reserved_tokens) == (CAP * CALL_TOKENS, 0)
        annotate(taught, job.id)
        assert len(fake.calls) == CAP
        _raise(runtime, job, 100)
        assert _work_until_it_stops(taught, job).state == JobState.SUCCEEDED
        assert len(fake.calls) == 60  # none was paid twice


def test_what_teachers_report_is_what_counts(runtime: Runtime) -> None:
    job = _job(runtime)
    with FakeTeacher().serving() as fake:
        ended = _work_until_it_stops(_taught_by(runtime, fake), job)
        assert (ended.spent_tokens, ended.reserved_tokens) == (120 * len(fake.calls), 0)
        assert ended.spent_tokens + CALL_TOKENS > ended.budget_tokens or ended.state == JobState.SUCCEEDED


def _lose_the_worker(runtime: Runtime, job: Job) -> None:
    """As if it had been killed: all that it would write meets the fence. At once, or its heart would beat between."""
    with runtime.database.transaction() as uow:
        uow.session.execute(update(Job).where(Job.id == job.id).values(lease_until=clock() - 1.0))
        leases.expire(uow, max_attempts=100)


def _spend_all_with_losses(runtime: Runtime, fake: FakeTeacher) -> tuple[Job, list[int]]:
    """Work on a job whose first three workers are lost with calls in flight; what was taken of its budget each time."""
    job = _job(runtime)
    taken: list[int] = []
    for _ in range(3):
        before = len(fake.calls)
        working = in_background(lambda: annotate(_taught_by(runtime, fake, lease=60, heartbeat=0.05), job.id))
        wait_until(lambda before=before, working=working: len(fake.calls) > before or not working.is_alive())
        _lose_the_worker(runtime, job)
        working.join()
        now = scenes.row(runtime.database, job.id)
        taken.append(now.spent_tokens + now.reserved_tokens)
    ended = _work_until_it_stops(_taught_by(runtime, fake), job)
    return ended, [*taken, ended.spent_tokens + ended.reserved_tokens]


def test_the_call_past_the_cap_is_never_sent_whoever_is_lost(runtime: Runtime) -> None:
    with FakeTeacher(usage=False, latency=0.4).serving() as fake:
        ended, taken = _spend_all_with_losses(runtime, fake)
        assert ended.state == JobState.PAUSED_BUDGET
        assert max(taken) <= CAP * CALL_TOKENS
        assert len(fake.calls) <= CAP


def _forget(uow: Any, claim: Any) -> Job:
    """The mutant of write_off: what a lost worker had set aside is given back."""
    job = leases.fence(uow, claim)
    job.reserved_tokens = job.reserved_nano_usd = 0
    return job


def _allow(uow: Any, claim: Any, costs: list[Cost]) -> list[int]:
    """The mutant of reserve: every call is paid when it is over."""
    return [-number - 1 for number in range(len(costs))]


@pytest.mark.parametrize(("guard", "mutant"), [("write_off", _forget), ("reserve", _allow)])
def test_without_the_guard_it_would_be_sent(
    runtime: Runtime, guard: str, mutant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were one of the two missing, the test above would fail at its last line."""
    monkeypatch.setattr(budgets, guard, mutant)
    with FakeTeacher(usage=False, latency=0.4).serving() as fake:
        _spend_all_with_losses(runtime, fake)
        assert len(fake.calls) > CAP
