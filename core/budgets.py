"""What an annotation job may spend: set aside before a call, settled after it, so that a cap is never passed.

At every moment, what was spent and what is set aside for calls in flight add up to the budget at most. A call whose end
nobody saw, because its worker was lost, may have been charged: what was set aside for it counts as spent. The one
thing no client can prevent is a teacher that reports more tokens than the call could have had.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from core.db.models import Job, Reservation
from core.db.session import UnitOfWork
from core.domain.lifecycle import TERMINAL, JobState
from core.domain.spending import Budget, Cost, usd
from core.errors import Conflict, NotFound
from core.job_store import change_state, record_change
from core.jobs import JobKind
from core.leases import Claim, fence, release

Settled = Mapping[int, Cost]  # reservation -> what the call cost


def budget_of(job: Job) -> Budget:
    """What the job may cost."""
    return Budget(job.budget_tokens, job.budget_nano_usd)


def spent_by(job: Job) -> Cost:
    """What the job has cost."""
    return Cost(job.spent_tokens, job.spent_nano_usd)


def reserved_by(job: Job) -> Cost:
    """What is set aside for calls whose end is not known yet."""
    return Cost(job.reserved_tokens, job.reserved_nano_usd)


def account_of(session: Session, claim: Claim) -> tuple[Budget, Cost]:
    """What the claimed job may cost, and what of that is spent or set aside, without a lock: a guess at what fits."""
    query = select(Job).where(Job.id == claim.job_id, Job.tenant_id == claim.tenant_id)
    job = session.scalars(query).one()
    return budget_of(job), spent_by(job) + reserved_by(job)


def reserve(uow: UnitOfWork, claim: Claim, costs: Sequence[Cost]) -> list[int | None]:
    """Set aside what calls may cost at most, the first first: a number for each, None where it no longer fits.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = fence(uow, claim)
    budget, taken = budget_of(job), spent_by(job) + reserved_by(job)
    fitting: list[Cost] = []
    for cost in costs:
        if not budget.holds(taken + cost):
            break  # nor do those behind it: a cheap call must not overtake a dear one for ever
        taken += cost
        fitting.append(cost)
    if not fitting:
        return [None] * len(costs)
    _set_reserved(job, taken - spent_by(job))
    rows = [
        {"tenant_id": job.tenant_id, "job_id": job.id, "tokens": cost.tokens, "nano_usd": cost.nano_usd}
        for cost in fitting
    ]
    ids = uow.session.scalars(insert(Reservation).returning(Reservation.id, sort_by_parameter_order=True), rows).all()
    return [*ids, *[None] * (len(costs) - len(fitting))]


def settle(uow: UnitOfWork, claim: Claim, settled: Settled, *, unreserved: Cost | None = None) -> Job:
    """Turn reservations into what the calls have cost; `unreserved` is the cost of calls for which none was made.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = fence(uow, claim)
    spent = unreserved or Cost()
    if settled:
        ended = delete(Reservation).where(Reservation.job_id == job.id, Reservation.id.in_(settled))
        rows = uow.session.execute(ended.returning(Reservation.id, Reservation.tokens, Reservation.nano_usd)).all()
        for number, tokens, nano in rows:
            spent += settled[number]
            _set_reserved(job, reserved_by(job) - Cost(tokens, nano))
    _set_spent(job, spent_by(job) + spent)
    return job


def draw(uow: UnitOfWork, claim: Claim, number: int | None, cost: Cost) -> Job:
    """Count part of a reservation as spent: one of many calls that it was made for is over. None: there was none made.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = fence(uow, claim)
    _set_spent(job, spent_by(job) + cost)
    if number is None:
        return job
    query = select(Reservation).where(Reservation.job_id == job.id, Reservation.id == number).with_for_update()
    row = uow.session.scalars(query).one()
    # Tokens that could not have been, which a teacher reports all the same, come from nobody's reservation.
    drawn = Cost(min(cost.tokens, row.tokens), min(cost.nano_usd, row.nano_usd))
    row.tokens, row.nano_usd = row.tokens - drawn.tokens, row.nano_usd - drawn.nano_usd
    _set_reserved(job, reserved_by(job) - drawn)
    return job


def left_of(uow: UnitOfWork, job: Job, number: int | None) -> Cost:
    """What a reservation still holds."""
    query = select(Reservation.tokens, Reservation.nano_usd).where(
        Reservation.job_id == job.id, Reservation.id == number
    )
    found = uow.session.execute(query).one_or_none()
    return Cost() if found is None else Cost(*found)


def write_off(uow: UnitOfWork, claim: Claim) -> Job:
    """Count as spent what is still set aside: for when no call of the job is in flight, and nobody knows how some went.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = fence(uow, claim)
    if reserved_by(job) != Cost():
        uow.session.execute(delete(Reservation).where(Reservation.job_id == job.id))
        _set_spent(job, spent_by(job) + reserved_by(job))
        _set_reserved(job, Cost())
    return job


def settle_for_nobody(uow: UnitOfWork, job: Job, number: int | None, cost: Cost | None) -> None:
    """Turn a reservation of a job that is over, and whose row the transaction has locked, into what its calls cost.

    Where nobody knows that, they cost all that was set aside. `number` None: there was no reservation.
    """
    ended = delete(Reservation).where(Reservation.job_id == job.id, Reservation.id == number)
    set_aside = Cost()
    for tokens, nano in uow.session.execute(ended.returning(Reservation.tokens, Reservation.nano_usd)).all():
        set_aside += Cost(tokens, nano)
    _set_reserved(job, reserved_by(job) - set_aside)
    _set_spent(job, spent_by(job) + (set_aside if cost is None else cost))


def pause(uow: UnitOfWork, claim: Claim, refused: Cost) -> Job:
    """Stop a job until its budget is raised, because `refused` does not fit; go on, if by now it does.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    job = fence(uow, claim)
    fits = budget_of(job).holds(spent_by(job) + reserved_by(job) + refused)
    if fits or JobState(job.state) is JobState.CANCELLING:
        release(uow, claim)
        return job
    job.lease_until = None
    change_state(uow, job, JobState.PAUSED_BUDGET)
    return job


def change_budget(
    uow: UnitOfWork, *, tenant_id: str, job_id: str, tokens: int | None = None, nano_usd: int | None = None
) -> Job:
    """Give an annotation job another budget; what is None stays as it was. A paused job goes on.

    Raises
    ------
    NotFound
        When there is no such job.
    Conflict
        When the job is over, has spent or set aside more than that, or was begun without a budget.
    """
    query = select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id, Job.kind == JobKind.ANNOTATION)
    job = uow.session.scalars(query.with_for_update().execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise NotFound(f"no {JobKind.ANNOTATION} job {job_id}", id=job_id)
    if JobState(job.state) in TERMINAL:
        raise Conflict(f"job {job_id} is {job.state}: it spends nothing any more", state=job.state)
    old = budget_of(job)
    if old == Budget():
        raise Conflict(f"job {job_id} was begun without a budget: its calls in flight are not counted against one")
    new = Budget(old.tokens if tokens is None else tokens, old.nano_usd if nano_usd is None else nano_usd)
    taken = spent_by(job) + reserved_by(job)
    if not new.holds(taken):
        raise Conflict(
            "the job has spent, or set aside for calls in flight, more than that",
            tokens=taken.tokens,
            usd=usd(taken.nano_usd),
        )
    job.budget_tokens, job.budget_nano_usd = new.tokens, new.nano_usd
    shown = {"budget_tokens": new.tokens, "budget_usd": None if new.nano_usd is None else usd(new.nano_usd)}
    record_change(uow, job, "budget", shown)
    if JobState(job.state) is JobState.PAUSED_BUDGET:
        change_state(uow, job, JobState.QUEUED)
        uow.nudge(job)
    return job


def _set_spent(job: Job, cost: Cost) -> None:
    job.spent_tokens, job.spent_nano_usd = cost.tokens, cost.nano_usd


def _set_reserved(job: Job, cost: Cost) -> None:
    job.reserved_tokens, job.reserved_nano_usd = cost.tokens, cost.nano_usd
