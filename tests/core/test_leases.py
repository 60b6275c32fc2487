"""Claims, leases, and the fence that a worker which comes too late runs into."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import adapters, annotation_items, leases, training_runs
from core.db.models import Job
from core.db.session import Database, UnitOfWork
from core.domain.lifecycle import JobState
from core.errors import LeaseLost
from core.job_store import cancel_job
from core.jobs import JobKind
from core.leases import Claim
from core.storage import BlobStore
from tests import scenes


def test_a_claim_starts_the_job_and_shuts_others_out(database: Database) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        assert leases.claim(uow, job_id=job.id, lease=60, max_attempts=3) is None
    assert claim == Claim(job.id, scenes.TENANT, JobKind.ANNOTATION, epoch=1)
    now = scenes.row(database, job.id)
    assert (now.state, now.attempts) == (JobState.RUNNING, 0)
    assert now.started_at is not None


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_a_finished_job_is_not_to_be_had(database: Database, state: JobState) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        leases.finish(uow, claim, state)
    with database.transaction() as uow:
        assert leases.claim(uow, job_id=job.id, lease=60, max_attempts=3) is None
        assert leases.claim(uow, job_id="an_nothing", lease=60, max_attempts=3) is None


def test_a_lease_that_ran_out_is_taken_over_at_the_cost_of_an_attempt(database: Database) -> None:
    job = scenes.annotation_job(database)
    scenes.claimed(database, job.id)
    scenes.run_out(database, job.id)
    assert scenes.claimed(database, job.id).epoch == 2
    assert scenes.row(database, job.id).attempts == 1
    assert ("worker_lost", {"attempts": 1}) in scenes.told(database, job.id)


def test_a_released_job_is_taken_over_for_nothing(database: Database) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        leases.release(uow, claim)
    assert scenes.row(database, job.id).state == JobState.RUNNING
    assert scenes.claimed(database, job.id).epoch == 2
    assert scenes.row(database, job.id).attempts == 0


def test_the_last_attempt_is_not_taken_over_but_failed(database: Database) -> None:
    job = scenes.annotation_job(database)
    for _ in range(3):
        scenes.claimed(database, job.id)
        scenes.run_out(database, job.id)
    with database.transaction() as uow:
        assert leases.claim(uow, job_id=job.id, lease=60, max_attempts=3) is None
        assert leases.expire(uow, max_attempts=3) == 1
    now = scenes.row(database, job.id)
    assert (now.state, now.attempts, now.lease_until) == (JobState.FAILED, 3, None)
    assert now.error is not None
    assert now.error["code"] == "worker_lost"


def test_expiry_offers_the_job_again(database: Database) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        assert leases.expire(uow, max_attempts=3) == 0  # it is not over yet
    scenes.run_out(database, job.id)
    with database.transaction() as uow:
        assert leases.expire(uow, max_attempts=3) == 1
    assert scenes.promised(database) == [job.id, job.id]  # when it was submitted, and now
    with database.transaction() as uow, pytest.raises(LeaseLost):
        leases.heartbeat(uow, claim, lease=60)
    assert scenes.claimed(database, job.id).epoch == 2
    assert scenes.row(database, job.id).attempts == 1


def test_a_heartbeat_renews_the_lease_and_brings_orders(database: Database) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id, lease=1)
    before = scenes.row(database, job.id).lease_until
    with database.transaction() as uow:
        assert not leases.heartbeat(uow, claim, lease=100).cancel
    after = scenes.row(database, job.id).lease_until
    assert before is not None
    assert after is not None
    assert after > before + 90
    with database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job.id)
    with database.transaction() as uow:
        assert leases.heartbeat(uow, claim, lease=100).cancel


def test_what_was_told_to_stop_cannot_succeed(database: Database) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job.id)
    with database.transaction() as uow:
        leases.finish(uow, claim, JobState.SUCCEEDED)
    assert scenes.row(database, job.id).state == JobState.CANCELLED


def test_waiting_jobs_are_those_without_a_lease(database: Database) -> None:
    waiting, busy = scenes.annotation_job(database), scenes.annotation_job(database)
    scenes.claimed(database, busy.id)
    scenes.training_job(database)
    with database.reading() as session:
        assert [n.job_id for n in leases.runnable(session, kind=JobKind.ANNOTATION, limit=10)] == [waiting.id]


def test_a_job_that_waits_for_its_time_holds_no_worker(database: Database) -> None:
    job, working = scenes.annotation_job(database), scenes.annotation_job(database)
    other = scenes.claimed(database, working.id)
    with database.transaction() as uow:
        leases.release(uow, _claim_of(uow, job.id), wait=3600)
    promised = scenes.promised(database)
    with database.transaction() as uow:
        assert leases.claim(uow, job_id=job.id, lease=60, max_attempts=3) is None
        assert leases.runnable(uow.session, kind=JobKind.ANNOTATION, limit=10) == []
        assert not leases.others_wait(uow.session, other)
        assert leases.expire(uow, max_attempts=3) == 0
    assert promised.count(job.id) == 1  # when it was submitted; the relay wakes it
    scenes.wake(database, job.id)
    with database.reading() as session:
        assert [nudge.job_id for nudge in leases.runnable(session, kind=JobKind.ANNOTATION, limit=10)] == [job.id]
        assert leases.others_wait(session, other)
    assert scenes.claimed(database, job.id).epoch == 2
    assert scenes.row(database, job.id).not_before is None


def test_a_job_that_waits_is_cancelled_at_once(database: Database) -> None:
    job = scenes.annotation_job(database)
    with database.transaction() as uow:
        leases.release(uow, _claim_of(uow, job.id), wait=3600)
    with database.transaction() as uow:
        cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job.id)
    assert scenes.row(database, job.id).state == JobState.CANCELLED


def _claim_of(uow: UnitOfWork, job_id: str) -> Claim:
    claim = leases.claim(uow, job_id=job_id, lease=60, max_attempts=3)
    assert claim is not None
    return claim


def _store_label(uow: UnitOfWork, claim: Claim, _: Path) -> None:
    [item] = annotation_items.pending_items(uow.session, claim, after=0, limit=1)
    annotation_items.store_labels(uow, claim, {item.id: scenes.label()}, items_per_second=1)


def _complete(uow: UnitOfWork, claim: Claim, _: Path) -> None:
    annotation_items.complete(uow, claim)


def _record(uow: UnitOfWork, claim: Claim, _: Path) -> None:
    training_runs.record_events(uow, claim, [{"type": "checkpoint", "step": 3}], cursor=20)


def _publish(uow: UnitOfWork, claim: Claim, folder: Path) -> None:
    blobs, source = BlobStore(folder / "blobs"), folder / "archive"
    source.write_bytes(b"adapter")
    adapters.publish(uow, claim, blobs=blobs, staged=blobs.stage(source), manifest={}, metrics={})


def _finish(uow: UnitOfWork, claim: Claim, _: Path) -> None:
    leases.finish(uow, claim, JobState.FAILED, error={"code": "x", "message": "y"})


def _release(uow: UnitOfWork, claim: Claim, _: Path) -> None:
    leases.release(uow, claim)


Write = Callable[[UnitOfWork, Claim, Path], None]
WRITES: list[tuple[Write, JobKind]] = [
    (_store_label, JobKind.ANNOTATION),
    (_complete, JobKind.ANNOTATION),
    (_record, JobKind.TRAINING),
    (_publish, JobKind.TRAINING),
    (_finish, JobKind.ANNOTATION),
    (_release, JobKind.ANNOTATION),
]


def _stale_write(database: Database, write: Write, kind: JobKind, folder: Path) -> tuple[Any, Any]:
    """The job before and after a worker that lost its lease tries to write."""
    make = scenes.annotation_job if kind is JobKind.ANNOTATION else scenes.training_job
    job = make(database)
    stale = scenes.claimed(database, job.id)
    scenes.run_out(database, job.id)
    scenes.claimed(database, job.id)
    before = _all_of(database, job.id)
    try:
        with database.transaction() as uow:
            write(uow, stale, folder)
    except LeaseLost:
        pass
    return before, _all_of(database, job.id)


def _all_of(database: Database, job_id: str) -> Any:
    job = scenes.row(database, job_id)
    return [getattr(job, column.key) for column in Job.__table__.columns], scenes.told(database, job_id)


@pytest.mark.parametrize(("write", "kind"), WRITES)
def test_a_stale_claim_cannot_write(database: Database, write: Write, kind: JobKind, tmp_path: Path) -> None:
    before, after = _stale_write(database, write, kind, tmp_path)
    assert before == after


@pytest.mark.parametrize(("write", "kind"), WRITES)
def test_without_the_epoch_in_the_fence_it_could(
    sqlite: Database, write: Write, kind: JobKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: were the fence blind to the epoch, the test above would fail for every kind of write."""
    monkeypatch.setattr(leases, "_owned", lambda claim: Job.id == claim.job_id)
    before, after = _stale_write(sqlite, write, kind, tmp_path)
    assert before != after
