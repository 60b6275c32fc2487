"""What tests of the batch mode start from: a job, a worker whose teacher is a FakeBatches, and slices until it ends."""

import threading
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from annotator.parsing import REPLY_SCHEMA
from annotator.prior import prior_from_json
from annotator.prompts import render
from annotator.teachers.chat_format import most_tokens
from core import annotations
from core.db.models import AnnotationRow, Job, TeacherBatch
from core.domain.annotation import Example, Mode
from core.domain.lifecycle import TERMINAL, JobState
from core.settings import TeacherSettings
from tests import scenes
from tests.fake_batches import FakeBatches
from worker.runtime import Runtime
from worker.tasks.annotation import annotate

MAX_TOKENS = 16
# Every example of the scene is as long as the others, and so is every prompt.
CALL = most_tokens(render(prior_from_json(scenes.PRIOR), Example("sun 00? ", "yes")), REPLY_SCHEMA, MAX_TOKENS)
CALL_TOKENS = CALL.prompt_tokens + CALL.completion_tokens


def job_in_batches(runtime: Runtime, examples: int = 10, *, dataset_id: str = "", **asked: Any) -> Job:
    """A queued job in batch mode."""
    dataset_id = dataset_id or scenes.dataset(runtime.database, examples=examples)
    prior_id = scenes.prior(runtime.database)
    with runtime.database.transaction() as uow:
        return annotations.submit(
            uow,
            tenant_id=scenes.TENANT,
            dataset_id=dataset_id,
            prior_id=prior_id,
            teacher="fake",
            splits=["train"],
            mode=Mode.BATCH,
            **asked,
        )


def taught_by(runtime: Runtime, fake: FakeBatches, **teacher: Any) -> Runtime:
    """A worker of its own that has only the database in common with others."""
    settings = TeacherSettings(base_url=fake.base_url, model="m", max_tokens=MAX_TOKENS, api_key="k", **teacher)
    jobs = runtime.settings.jobs.model_copy(update={"lease": 60.0, "batch_poll": 1.0})
    changed = runtime.settings.model_copy(update={"teachers": {"fake": settings}, "jobs": jobs})
    return replace(runtime, settings=changed, draining=threading.Event(), health={})


def slice_of(runtime: Runtime, job: Job) -> Job:
    """One slice, as if the time it waits for had come; the job after it."""
    scenes.wake(runtime.database, job.id)
    annotate(runtime, job.id)
    return scenes.row(runtime.database, job.id)


def until_it_stops(runtime: Runtime, job: Job, slices: int = 60) -> Job:
    """Slices until the job ends or pauses."""
    for _ in range(slices):
        now = slice_of(runtime, job)
        if JobState(now.state) in TERMINAL or now.state == JobState.PAUSED_BUDGET:
            return now
    raise AssertionError(f"it never stopped: {now.state}, {now.done} done, {now.progress}")


def batches(runtime: Runtime, job: Job) -> list[TeacherBatch]:
    """The job's batches, oldest first."""
    with runtime.database.reading() as session:
        query = select(TeacherBatch).where(TeacherBatch.job_id == job.id).order_by(TeacherBatch.id)
        return list(session.scalars(query))


def items(runtime: Runtime, job: Job) -> list[AnnotationRow]:
    """The job's items, in order."""
    with runtime.database.reading() as session:
        query = select(AnnotationRow).where(AnnotationRow.job_id == job.id).order_by(AnnotationRow.id)
        return list(session.scalars(query))


def outcomes(job: Job) -> dict[str, int]:
    """The outcomes of a finished job."""
    assert job.state == JobState.SUCCEEDED, (job.state, job.error, job.progress)
    assert job.result is not None
    found: dict[str, int] = job.result["outcomes"]
    return found
