"""Who may work on a job, and for how long.

A claim moves the job's epoch on and starts a lease, on the database's clock. Every write of a worker is fenced: it
happens only while the row still carries the epoch of that worker's claim, in the same transaction, under the row's
lock. A worker that was paused for an hour therefore finds out at its next write, and has written nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from core.db.base import clock
from core.db.models import Job
from core.db.session import UnitOfWork
from core.db.text import storable
from core.domain.lifecycle import JobState
from core.errors import LeaseLost
from core.job_store import change_state, record_change
from core.jobs import JobKind, Nudge

WORKER_LOST = "worker_lost"

_HELD = (JobState.RUNNING, JobState.CANCELLING)
_OPEN = (JobState.QUEUED, *_HELD)


@dataclass(frozen=True, slots=True)
class Claim:
    """Proof of having claimed a job; worthless once another claim has moved the epoch on."""

    job_id: str
    tenant_id: str
    kind: JobKind
    epoch: int


@dataclass(frozen=True, slots=True)
class Orders:
    """What the row has to say to the worker that renews its lease."""

    cancel: bool


def claim(uow: UnitOfWork, *, job_id: str, lease: float, max_attempts: int) -> Claim | None:
    """Take a job for `lease` seconds. None when it is finished, gone, somebody else's, or waits for its time.

    A lease that ran out may be taken over, which counts as a lost attempt; the last one is left to `expire`.
    """
    ran_out = and_(Job.lease_until < clock(), Job.attempts + 1 < max_attempts)
    job = uow.session.scalars(
        select(Job)
        .where(Job.id == job_id, Job.state.in_(_OPEN), or_(_waits(), ran_out))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if job is None:
        return None
    if job.lease_until is not None:
        _charge(uow, job)
    taken = {"epoch": Job.epoch + 1, "lease_until": clock() + lease, "not_before": None}
    uow.session.execute(update(Job).where(Job.id == job.id).values(taken))
    uow.session.refresh(job)
    if JobState(job.state) is JobState.QUEUED:
        change_state(uow, job, JobState.RUNNING)
    return Claim(job.id, job.tenant_id, JobKind(job.kind), job.epoch)


def heartbeat(uow: UnitOfWork, claim: Claim, *, lease: float) -> Orders:
    """Renew the lease.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    state = uow.session.scalars(
        update(Job)
        .where(_owned(claim))
        .values(lease_until=clock() + lease)
        .returning(Job.state)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if state is None:
        raise _lost(claim)
    return Orders(cancel=JobState(state) is JobState.CANCELLING)


def fence(uow: UnitOfWork, claim: Claim) -> Job:
    """The claimed job, locked until the transaction ends. Every write on behalf of a claim begins with this.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = uow.session.scalars(
        select(Job).where(_owned(claim)).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()
    if job is None:
        raise _lost(claim)
    return job


def release(uow: UnitOfWork, claim: Claim, *, wait: float = 0.0) -> None:
    """Give a job back unfinished, at no cost to its attempts. One that was told to stop is cancelled instead.

    With `wait`, in seconds, nobody need look at it before: it holds no worker meanwhile, and the relay wakes it.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = fence(uow, claim)
    if JobState(job.state) is JobState.CANCELLING:
        change_state(uow, job, JobState.CANCELLED)
        return
    job.lease_until = None
    if wait > 0:
        uow.session.execute(update(Job).where(Job.id == job.id).values(not_before=clock() + wait))
    else:
        uow.nudge(job)


def finish(
    uow: UnitOfWork,
    claim: Claim,
    state: JobState,
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> Job:
    """End a job. One that was told to stop in the meantime cannot succeed any more: it is cancelled.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = fence(uow, claim)
    if JobState(job.state) is JobState.CANCELLING and state is JobState.SUCCEEDED:
        state = JobState.CANCELLED
    job.result = storable(result)
    job.error = storable(error)
    change_state(uow, job, state)
    return job


def expire(uow: UnitOfWork, *, max_attempts: int, limit: int = 100) -> int:
    """Take back leases that ran out; the number of them.

    Such a job is offered again, is cancelled if it was being cancelled, or fails with `worker_lost` when it has cost
    `max_attempts` workers.
    """
    ran_out = (
        select(Job)
        .where(Job.state.in_(_HELD), Job.lease_until < clock())
        .order_by(Job.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    jobs = uow.session.scalars(ran_out).all()
    for job in jobs:
        _charge(uow, job)
        job.lease_until = None
        if JobState(job.state) is JobState.CANCELLING:
            change_state(uow, job, JobState.CANCELLED)
        elif job.attempts >= max_attempts:
            message = f"{job.attempts} workers in a row were lost while they worked on this job"
            job.error = {"code": WORKER_LOST, "message": message, "attempts": job.attempts}
            change_state(uow, job, JobState.FAILED)
        else:
            uow.nudge(job)
    return len(jobs)


def runnable(session: Session, *, kind: JobKind, limit: int) -> Sequence[Nudge]:
    """Nudges for at most `limit` jobs that nobody works on, the longest waiting first."""
    waiting = select(Job.id).where(Job.kind == kind, Job.state.in_(_OPEN), _waits()).order_by(Job.id).limit(limit)
    return [Nudge(kind, job_id) for job_id in session.scalars(waiting)]


def others_wait(session: Session, claim: Claim) -> bool:
    """Whether nobody works on some other job of the claim's kind, which could have the claim's place."""
    waiting = select(Job.id).where(Job.kind == claim.kind, Job.state.in_(_OPEN), _waits(), Job.id != claim.job_id)
    return session.scalars(waiting.limit(1)).one_or_none() is not None


def state_of(session: Session, *, job_id: str) -> JobState | None:
    """The state of a job of any tenant, for upkeep; None when it was deleted."""
    state = session.scalars(select(Job.state).where(Job.id == job_id)).one_or_none()
    return None if state is None else JobState(state)


def _waits() -> ColumnElement[bool]:
    """Nobody works on the job, and its time has come."""
    return and_(Job.lease_until.is_(None), or_(Job.not_before.is_(None), Job.not_before <= clock()))


def _owned(claim: Claim) -> ColumnElement[bool]:
    return and_(
        Job.id == claim.job_id,
        Job.tenant_id == claim.tenant_id,
        Job.epoch == claim.epoch,
        Job.state.in_(_HELD),
        Job.lease_until.is_not(None),
    )


def _charge(uow: UnitOfWork, job: Job) -> None:
    job.attempts += 1
    record_change(uow, job, "worker_lost", {"attempts": job.attempts})


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"job {claim.job_id} is no longer ours", id=claim.job_id, epoch=claim.epoch)
