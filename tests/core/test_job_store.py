"""Jobs read, listed, cancelled and deleted by their owners."""

import pytest

from core import leases
from core.db.models import AnnotationRow, JobEvent
from core.db.session import Database
from core.domain.lifecycle import JobState
from core.errors import Conflict, IllegalTransition, NotFound
from core.job_store import cancel_job, delete_job, events_after, get_job, list_jobs
from core.jobs import JobKind
from tests import scenes

_OWN = {"tenant_id": scenes.TENANT, "kind": JobKind.ANNOTATION}


def _cancel(database: Database, job_id: str) -> JobState:
    with database.transaction() as uow:
        return JobState(cancel_job(uow, **_OWN, job_id=job_id).state)


def test_jobs_are_found_by_owner_and_kind_only(database: Database) -> None:
    job = scenes.annotation_job(database)
    with database.reading() as session:
        assert get_job(session, **_OWN, job_id=job.id).id == job.id
        for wrong in ({"tenant_id": "other"}, {"kind": JobKind.TRAINING}, {"job_id": "an_nothing"}):
            with pytest.raises(NotFound):
                get_job(session, **{**_OWN, "job_id": job.id, **wrong})


def test_pages_go_from_new_to_old(database: Database) -> None:
    ids = [scenes.annotation_job(database).id for _ in range(5)]
    newest = sorted(ids, reverse=True)
    with database.reading() as session:
        first = [job.id for job in list_jobs(session, **_OWN, limit=3)]
        assert first == newest[:3]
        assert [job.id for job in list_jobs(session, **_OWN, after=first[-1], limit=3)] == newest[3:]
        assert list_jobs(session, **_OWN, limit=3, state=JobState.FAILED) == []
        assert list_jobs(session, tenant_id="other", kind=JobKind.ANNOTATION, limit=3) == []


def test_a_queued_job_is_cancelled_at_once(database: Database) -> None:
    job = scenes.annotation_job(database)
    assert _cancel(database, job.id) is JobState.CANCELLED
    assert _cancel(database, job.id) is JobState.CANCELLED  # asking again is harmless
    assert [data["state"] for _, data in scenes.told(database, job.id)] == ["queued", "cancelled"]


def test_a_running_job_is_told_to_stop(database: Database) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id)
    version = scenes.row(database, job.id).version
    assert _cancel(database, job.id) is JobState.CANCELLING
    assert _cancel(database, job.id) is JobState.CANCELLING
    assert scenes.row(database, job.id).version == version + 1
    with database.transaction() as uow:
        leases.release(uow, claim)
    assert scenes.row(database, job.id).state == JobState.CANCELLED


def test_a_running_job_between_two_workers_is_cancelled_at_once(database: Database) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        leases.release(uow, claim)
    assert _cancel(database, job.id) is JobState.CANCELLED


def test_a_job_whose_worker_died_while_it_was_cancelled_is_cancelled(database: Database) -> None:
    job = scenes.annotation_job(database)
    scenes.claimed(database, job.id)
    _cancel(database, job.id)
    scenes.run_out(database, job.id)
    with database.transaction() as uow:
        leases.expire(uow, max_attempts=3)
    assert scenes.row(database, job.id).state == JobState.CANCELLED


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_what_is_over_cannot_be_cancelled(database: Database, state: JobState) -> None:
    job = scenes.annotation_job(database)
    claim = scenes.claimed(database, job.id)
    with database.transaction() as uow:
        leases.finish(uow, claim, state)
    with pytest.raises(IllegalTransition):
        _cancel(database, job.id)


def test_only_what_is_over_can_be_deleted(database: Database) -> None:
    job = scenes.annotation_job(database)
    with database.transaction() as uow, pytest.raises(Conflict, match="cancel it first"):
        delete_job(uow, **_OWN, job_id=job.id)
    _cancel(database, job.id)
    with database.transaction() as uow:
        delete_job(uow, **_OWN, job_id=job.id)
    with database.reading() as session:
        assert session.query(AnnotationRow).count() == 0
        assert session.query(JobEvent).count() == 0
        with pytest.raises(NotFound):
            get_job(session, **_OWN, job_id=job.id)


def test_events_are_read_from_where_one_stopped(database: Database) -> None:
    job = scenes.annotation_job(database)
    scenes.claimed(database, job.id)
    _cancel(database, job.id)
    with database.reading() as session:
        first, second, third = events_after(session, tenant_id=scenes.TENANT, job_id=job.id, after=0, limit=10)
        assert [first.data, second.data, third.data] == [
            {"state": "queued"},
            {"state": "running"},
            {"state": "cancelling"},
        ]
        rest = events_after(session, tenant_id=scenes.TENANT, job_id=job.id, after=first.id, limit=1)
        assert [event.id for event in rest] == [second.id]
        assert events_after(session, tenant_id="other", job_id=job.id, after=0, limit=10) == []
