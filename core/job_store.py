"""Jobs as their owners see them: added, read, listed, cancelled, deleted; and the one way a job changes visibly.

A job's events come in the order they happened, because each is written in a transaction that holds the job's row lock.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from core.db.base import utcnow
from core.db.models import Dataset, Job, JobEvent
from core.db.session import UnitOfWork
from core.db.text import storable
from core.domain.ids import new_id
from core.domain.lifecycle import TERMINAL, JobState, after_cancel, move
from core.errors import Conflict, NotFound
from core.jobs import JobKind

_PREFIX = {JobKind.ANNOTATION: "an", JobKind.TRAINING: "tr"}
_RETRYABLE = frozenset({JobState.FAILED, JobState.CANCELLED})


def get_job(session: Session, *, tenant_id: str, kind: JobKind, job_id: str) -> Job:
    """The job of that kind and id.

    Raises
    ------
    NotFound
        When there is none, it is of another kind, or it belongs to another tenant.
    """
    return _one(session, tenant_id, kind, job_id, lock=False)


def list_jobs(
    session: Session,
    *,
    tenant_id: str,
    kind: JobKind,
    after: str | None = None,
    limit: int = 50,
    state: JobState | None = None,
) -> list[Job]:
    """At most `limit` jobs, newest first, of those older than the job `after`."""
    query = select(Job).where(Job.tenant_id == tenant_id, Job.kind == kind).order_by(Job.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Job.id < after)
    if state is not None:
        query = query.where(Job.state == state)
    return list(session.scalars(query))


def events_after(session: Session, *, tenant_id: str, job_id: str, after: int = 0, limit: int = 200) -> list[JobEvent]:
    """At most `limit` events of a job with an id above `after`, in order."""
    query = (
        select(JobEvent)
        .where(JobEvent.tenant_id == tenant_id, JobEvent.job_id == job_id, JobEvent.id > after)
        .order_by(JobEvent.id)
        .limit(limit)
    )
    return list(session.scalars(query))


def newest_events(session: Session, *, job_ids: Collection[str]) -> dict[str, int]:
    """The id of the newest event of each of these jobs, of whatever tenant; deleted jobs are missing."""
    query = select(JobEvent.job_id, func.max(JobEvent.id)).where(JobEvent.job_id.in_(job_ids))
    return dict(session.execute(query.group_by(JobEvent.job_id)).all())


def cancel_job(uow: UnitOfWork, *, tenant_id: str, kind: JobKind, job_id: str) -> Job:
    """Ask a job to stop. What nobody works on is cancelled at once, the rest when its worker has heard of it.

    Asking again is harmless.

    Raises
    ------
    NotFound
        As get_job.
    IllegalTransition
        When the job has succeeded or failed already.
    """
    job = _one(uow.session, tenant_id, kind, job_id, lock=True)
    state = JobState(job.state)
    if state in (JobState.CANCELLED, JobState.CANCELLING):
        return job
    wanted = after_cancel(state)
    change_state(uow, job, wanted)
    if wanted is JobState.CANCELLING and job.lease_until is None:
        change_state(uow, job, JobState.CANCELLED)
    uow.nudge(job)
    return job


def delete_job(uow: UnitOfWork, *, tenant_id: str, kind: JobKind, job_id: str) -> None:
    """Remove a finished job with its events and labels. An adapter it made stays.

    Raises
    ------
    NotFound
        As get_job.
    Conflict
        When the job is not finished.
    """
    job = _one(uow.session, tenant_id, kind, job_id, lock=True)
    if JobState(job.state) not in TERMINAL:
        raise Conflict(f"job {job_id} is {job.state}: cancel it first", state=job.state)
    uow.session.execute(delete(Job).where(Job.id == job.id, Job.tenant_id == tenant_id))


def job_to_retry(session: Session, *, tenant_id: str, kind: JobKind, job_id: str) -> Job:
    """The job that a new one is to repeat.

    Raises
    ------
    NotFound
        As get_job.
    Conflict
        When the job has neither failed nor been cancelled.
    """
    job = get_job(session, tenant_id=tenant_id, kind=kind, job_id=job_id)
    if JobState(job.state) not in _RETRYABLE:
        raise Conflict(f"job {job_id} is {job.state}: only failed and cancelled jobs are retried", state=job.state)
    return job


def dataset_for_job(session: Session, *, tenant_id: str, dataset_id: str) -> Dataset:
    """The dataset a job is to use; it cannot be deleted before the transaction ends.

    Raises
    ------
    NotFound
        When there is none, it was deleted, or it belongs to another tenant.
    """
    query = select(Dataset).where(
        Dataset.id == dataset_id, Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None)
    )
    dataset = session.scalars(query.with_for_update(read=True, key_share=True)).one_or_none()
    if dataset is None:
        raise NotFound(f"no dataset {dataset_id}", id=dataset_id, field="dataset_id")
    return dataset


def add_job(
    uow: UnitOfWork,
    *,
    tenant_id: str,
    kind: JobKind,
    dataset_id: str,
    request: dict[str, Any],
    prior_id: str | None = None,
    retry_of: str | None = None,
    labels_sha256: str | None = None,
) -> Job:
    """A new queued job, its first event and its nudge."""
    job = Job(
        id=new_id(_PREFIX[kind]),
        tenant_id=tenant_id,
        kind=kind,
        state=JobState.QUEUED,
        dataset_id=dataset_id,
        prior_id=prior_id,
        retry_of=retry_of,
        request=request,
        labels_sha256=labels_sha256,
        progress={},
    )
    uow.session.add(job)
    uow.session.flush()  # events refer to the row
    uow.record(job, "state", state=job.state)
    uow.nudge(job)
    return job


def change_state(uow: UnitOfWork, job: Job, state: JobState, *, at: datetime | None = None) -> None:
    """Move `job`, whose row the transaction has locked, to `state`; a terminal state also ends its lease.

    Raises
    ------
    IllegalTransition
        When the lifecycle does not allow it.
    """
    job.state = move(JobState(job.state), state)
    now = at or utcnow()
    if state is JobState.RUNNING:
        job.started_at = job.started_at or now
    data: dict[str, Any] = {"state": str(state)}
    if state in TERMINAL:
        job.finished_at = now
        job.lease_until = None
        data |= {name: value for name, value in (("result", job.result), ("error", job.error)) if value is not None}
    record_change(uow, job, "state", data)


def record_change(uow: UnitOfWork, job: Job, kind: str, data: dict[str, Any]) -> None:
    """Count a visible change of `job`, whose row the transaction has locked, and append it to the history."""
    job.version += 1
    uow.record(job, kind, **storable(data))


def _one(session: Session, tenant_id: str, kind: JobKind, job_id: str, *, lock: bool) -> Job:
    query = select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id, Job.kind == kind)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    job = session.scalars(query).one_or_none()
    if job is None:
        raise NotFound(f"no {kind} job {job_id}", id=job_id)
    return job
