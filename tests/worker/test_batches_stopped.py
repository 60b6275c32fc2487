"""Batches whose job is over before them: they are stopped at the endpoint, and what they have answered is kept."""

import pytest
from sqlalchemy import delete

from annotator.teachers.batch_endpoint import BatchEndpoint, RemoteBatch
from core import annotations
from core.db.models import Job, OutboxRow
from core.domain.lifecycle import JobState
from core.job_store import cancel_job
from core.jobs import JobKind
from tests import scenes
from tests.fake_batches import FakeBatches
from tests.worker.batch_scenes import (
    batches,
    job_in_batches,
    outcomes,
    slice_of,
    taught_by,
    until_it_stops,
)
from tests.worker.conftest import purge
from worker.app import backlog
from worker.relay import tick
from worker.runtime import Runtime
from worker.tasks.annotation import annotate


def test_a_cancelled_job_is_over_at_once_and_so_are_its_batches(runtime: Runtime) -> None:
    job = job_in_batches(runtime, 6, budget_tokens=100_000)
    with FakeBatches(looks=1000, before_cancel=2).serving() as fake:
        taught = taught_by(runtime, fake, batch_lines=3)
        slice_of(taught, job)
        _cancel(runtime, job)
        now = scenes.row(runtime.database, job.id)
        assert (now.state, fake.cancelled) == (JobState.CANCELLED, [])
        fake.trouble["cancel"] = ["500"]  # the relay comes back to what could not be stopped
        for _ in range(3):
            slice_of(taught, job)
        assert sorted(fake.cancelled) == ["batch_0", "batch_1"]
        calls = fake.calls.copy()
        slice_of(taught, job)
        assert fake.calls == calls
        now = scenes.row(runtime.database, job.id)
        assert (now.state, now.done, now.spent_tokens, now.reserved_tokens) == (JobState.CANCELLED, 0, 4 * 120, 0)
        # What was answered before it stopped is paid, and a retry need not ask for it.
        fake.looks = 0
        with runtime.database.transaction() as uow:
            again = annotations.retry(uow, tenant_id=scenes.TENANT, job_id=job.id)
        assert outcomes(until_it_stops(taught, again)) == {"labelled": 6}
        assert sorted(fake.answered.values()) == [1] * 6


def _cancel(runtime: Runtime, job: Job) -> None:
    with runtime.database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job.id)


@pytest.mark.parametrize("trouble", [{"content": ["gone"]}, {"look": ["gone"]}, {"look": ["ok", "401"]}])
def test_where_nobody_knows_what_a_stopped_batch_cost_it_is_all_that_was_set_aside(
    sqlite_runtime: Runtime, trouble: dict[str, list[str]]
) -> None:
    job = job_in_batches(sqlite_runtime, 2, budget_tokens=100_000)
    with FakeBatches(looks=1000, before_cancel=1, trouble=trouble).serving() as fake:
        taught = taught_by(sqlite_runtime, fake)
        aside = slice_of(taught, job).reserved_tokens
        _cancel(sqlite_runtime, job)
        for _ in range(4):
            now = slice_of(taught, job)
    assert (now.spent_tokens, now.reserved_tokens) == (aside, 0)
    assert aside > 0
    assert batches(sqlite_runtime, job)[0].state == "ended"


def test_a_teacher_that_is_no_longer_in_the_settings_is_not_told(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 2)
    with FakeBatches(looks=1000).serving() as fake:
        slice_of(taught_by(sqlite_runtime, fake), job)
    _cancel(sqlite_runtime, job)
    slice_of(sqlite_runtime, job)
    assert batches(sqlite_runtime, job)[0].state == "ended"


def test_a_job_that_is_cancelled_at_work_stops_its_batches(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_in_batches(runtime, 4)
    real = BatchEndpoint.look

    def cancelled_meanwhile(self: BatchEndpoint, batch_id: str) -> RemoteBatch:
        _cancel(runtime, job)
        return real(self, batch_id)

    with FakeBatches(looks=1000).serving() as fake:
        taught = taught_by(runtime, fake, batch_lines=2)
        slice_of(taught, job)
        monkeypatch.setattr(BatchEndpoint, "look", cancelled_meanwhile)
        assert slice_of(taught, job).state == JobState.CANCELLED
        assert sorted(fake.cancelled) == ["batch_0", "batch_1"]


def test_what_other_batches_of_a_job_that_fails_have_answered_is_kept(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 4)
    with FakeBatches(ends=lambda batch: "failed=bad_line" if batch == 0 else "completed").serving() as fake:
        taught = taught_by(sqlite_runtime, fake, batch_lines=2)
        assert until_it_stops(taught, job).state == JobState.FAILED
        with sqlite_runtime.database.transaction() as uow:
            again = annotations.retry(uow, tenant_id=scenes.TENANT, job_id=job.id)
        assert outcomes(until_it_stops(taught, again)) == {"labelled": 4}
        assert [len(fake.lines_of(number)) for number in range(len(fake.batches))] == [2, 2, 2]


def test_the_relay_comes_back_to_batches_that_were_left_behind(runtime: Runtime) -> None:
    """A nudge may be lost, and a worker that is to stop batches too."""
    job = job_in_batches(runtime, 2)
    with FakeBatches(looks=1000).serving() as fake:
        taught = taught_by(runtime, fake)
        slice_of(taught, job)
        tick(taught)
        _cancel(runtime, job)
        purge(taught)
        with runtime.database.transaction() as uow:
            uow.session.execute(delete(OutboxRow))
        tick(taught)
        assert backlog(taught.app, JobKind.ANNOTATION) == 1
        purge(taught)
        annotate(taught, job.id)
        assert fake.cancelled == ["batch_0"]
        tick(taught)
        assert backlog(taught.app, JobKind.ANNOTATION) == 1  # until the batch has ended there
        purge(taught)
        annotate(taught, job.id)
        tick(taught)
        assert backlog(taught.app, JobKind.ANNOTATION) == 0
    purge(taught)
