"""Batches of questions to a teacher, as the worker of an annotation job sees them.

A batch is written down, with its items and what it may cost, before the endpoint hears of it. So whoever comes after a
crash knows what to look for there, and nothing is asked, or paid for, twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from core import batch_items, budgets
from core.db.base import utcnow
from core.db.models import Job, TeacherBatch
from core.db.session import UnitOfWork
from core.db.text import storable_text
from core.domain.batches import BatchEnding, BatchState, EndedBatch
from core.domain.ids import new_id
from core.domain.lifecycle import TERMINAL
from core.domain.spending import Budget, Cost
from core.job_store import record_change
from core.jobs import JobKind, Nudge
from core.leases import Claim, fence

_HISTORY = 500  # ended batches of a job that are looked back on
_OPEN = (BatchState.PREPARING, BatchState.SUBMITTED)


def open_batches(session: Session, claim: Claim) -> list[TeacherBatch]:
    """The batches of the job that have not ended, oldest first."""
    query = select(TeacherBatch).where(*_of(claim), TeacherBatch.state.in_(_OPEN)).order_by(TeacherBatch.id)
    return list(session.scalars(query))


def history(session: Session, claim: Claim) -> list[TeacherBatch]:
    """The batches of the job that have ended, the last first."""
    ended = select(TeacherBatch).where(*_of(claim), TeacherBatch.state == BatchState.ENDED)
    return list(session.scalars(ended.order_by(TeacherBatch.ended_at.desc(), TeacherBatch.id.desc()).limit(_HISTORY)))


def as_ended(batch: TeacherBatch) -> EndedBatch:
    """An ended batch as a line of the job's history."""
    ending = BatchEnding(batch.ending or BatchEnding.BARREN)
    return EndedBatch(batch.lines, ending, batch.created_at, batch.ended_at or batch.created_at)


def state_of(session: Session, *, batch_id: str) -> BatchState | None:
    """Where a batch of any tenant stands; None when it was deleted with its job."""
    state = session.scalars(select(TeacherBatch.state).where(TeacherBatch.id == batch_id)).one_or_none()
    return None if state is None else BatchState(state)


def prepare(
    uow: UnitOfWork, claim: Claim, *, items: Sequence[int], form: dict[str, Any], most: Cost
) -> TeacherBatch | None:
    """Write a batch down, claim its items and set aside the `most` it may cost; None when that does not fit.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    Conflict
        When one of the items is not free.
    """
    job = fence(uow, claim)
    reservation = None
    if budgets.budget_of(job) != Budget():
        [reservation] = budgets.reserve(uow, claim, [most])
        if reservation is None:
            return None
    batch = TeacherBatch(
        id=new_id("batch"),
        tenant_id=job.tenant_id,
        job_id=job.id,
        form=form,
        reservation_id=reservation,
        lines=len(items),
    )
    uow.session.add(batch)
    uow.session.flush()
    batch_items.claim_items(uow, claim, batch.id, items)
    _show(uow, job)
    return batch


def record_submitted(uow: UnitOfWork, claim: Claim, batch_id: str, *, remote_id: str, status: str) -> None:
    """The endpoint has the batch. Raises LeaseLost when the job is no longer this claim's."""
    job = fence(uow, claim)
    seen = {"state": BatchState.SUBMITTED, "remote_id": remote_id, "remote_status": status, "failures": 0}
    _change(uow, claim, batch_id, seen)
    _show(uow, job)


def record_progress(uow: UnitOfWork, claim: Claim, batch_id: str, *, status: str, answered: int) -> None:
    """How the endpoint says the batch is doing. Raises LeaseLost when the job is no longer this claim's."""
    job = fence(uow, claim)
    _change(uow, claim, batch_id, {"remote_status": status, "answered": answered, "failures": 0})
    _show(uow, job)


def record_miss(uow: UnitOfWork, claim: Claim, batch_id: str) -> None:
    """The endpoint does not know the batch, yet. Raises LeaseLost when the job is no longer this claim's."""
    fence(uow, claim)
    _change(uow, claim, batch_id, {"misses": TeacherBatch.misses + 1, "failures": 0})


def record_failure(uow: UnitOfWork, claim: Claim, batch_id: str) -> None:
    """The endpoint could not be reached. Raises LeaseLost when the job is no longer this claim's."""
    fence(uow, claim)
    _change(uow, claim, batch_id, {"failures": TeacherBatch.failures + 1})


def end(
    uow: UnitOfWork,
    claim: Claim,
    batch: TeacherBatch,
    *,
    ending: BatchEnding,
    answered: int = 0,
    status: str = "",
    form: dict[str, Any] | None = None,
    detail: str = "",
    all_known: bool = True,
) -> None:
    """A batch is over: items without an outcome are free again, and so is what is left of its money.

    Parameters
    ----------
    form
        How to ask next, where that was learned.
    all_known
        Whether every call that was charged has been counted; if not, what was set aside counts as spent.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = fence(uow, claim)
    batch_items.free(uow, claim, batch.id)
    if batch.reservation_id is not None:
        rest = Cost() if all_known else budgets.left_of(uow, job, batch.reservation_id)
        budgets.settle(uow, claim, {batch.reservation_id: rest})
    over = {"state": BatchState.ENDED, "ending": ending, "answered": answered, "detail": storable_text(detail)}
    over |= {"remote_status": status or batch.remote_status, "form": form or batch.form, "ended_at": utcnow()}
    _change(uow, claim, batch.id, over)
    _show(uow, job)


def left_behind(session: Session, *, limit: int) -> Sequence[Nudge]:
    """Nudges for jobs that are over and whose batches may still be worked on at their endpoint."""
    query = (
        select(Job.id)
        .where(Job.state.in_(TERMINAL), Job.id.in_(select(TeacherBatch.job_id).where(TeacherBatch.state.in_(_OPEN))))
        .order_by(Job.id)
        .limit(limit)
    )
    return [Nudge(JobKind.ANNOTATION, job_id) for job_id in session.scalars(query)]


def left_by(session: Session, *, job_id: str) -> list[TeacherBatch]:
    """The batches that have not ended of a job of any tenant that is over; none of any other job."""
    query = select(TeacherBatch).join(Job, Job.id == TeacherBatch.job_id)
    left = Job.id == job_id, Job.state.in_(TERMINAL), TeacherBatch.state.in_(_OPEN)
    return list(session.scalars(query.where(*left).order_by(TeacherBatch.id)))


def end_left(uow: UnitOfWork, batch: TeacherBatch, *, cost: Cost | None = None) -> None:
    """A batch of a job that is over has ended too, or will not be looked at again. Doing so twice changes nothing.

    `cost` is what it has cost; where nobody knows, what was set aside for it counts as spent.
    """
    query = select(Job).where(Job.id == batch.job_id, Job.state.in_(TERMINAL)).with_for_update()
    job = uow.session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        return
    over = {"state": BatchState.ENDED, "ending": BatchEnding.BARREN, "ended_at": utcnow()}
    mine = TeacherBatch.id == batch.id, TeacherBatch.state.in_(_OPEN)
    if uow.session.scalars(update(TeacherBatch).where(*mine).values(over).returning(TeacherBatch.id)).all():
        budgets.settle_for_nobody(uow, job, batch.reservation_id, cost)


def _change(uow: UnitOfWork, claim: Claim, batch_id: str, values: Mapping[str, Any]) -> None:
    uow.session.execute(update(TeacherBatch).where(*_of(claim), TeacherBatch.id == batch_id).values(values))


def _show(uow: UnitOfWork, job: Job) -> None:
    """Say in the job's progress, and in its history, how its batches are doing."""
    query = select(
        TeacherBatch.state, func.count(), func.sum(TeacherBatch.lines), func.sum(TeacherBatch.answered)
    ).where(TeacherBatch.job_id == job.id, TeacherBatch.tenant_id == job.tenant_id)
    rows = uow.session.execute(query.group_by(TeacherBatch.state))
    found = {state: (count, lines, answered) for state, count, lines, answered in rows}
    still = [found[state] for state in _OPEN if state in found]
    shown = {
        "open": sum(count for count, _, _ in still),
        "open_lines": int(sum(lines for _, lines, _ in still)),
        "open_answered": int(sum(answered for _, _, answered in still)),
        "ended": found.get(BatchState.ENDED, (0, 0, 0))[0],
    }
    if job.progress.get("batches") != shown:
        job.progress = {**job.progress, "batches": shown}
        record_change(uow, job, "batches", shown)


def _of(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return TeacherBatch.job_id == claim.job_id, TeacherBatch.tenant_id == claim.tenant_id
