"""Nudges that were promised in a transaction and not sent after it."""

from sqlalchemy import delete, select

from core.db.models import OutboxRow
from core.db.session import UnitOfWork
from core.jobs import JobKind, Nudge, Publish


def send_promised(uow: UnitOfWork, publish: Publish, *, limit: int = 500) -> int:
    """Send the oldest promised nudges; the number of them. A crash before the commit sends them again: that is fine.

    Raises
    ------
    Unavailable
        When the broker is away; the outbox is as it was.
    """
    oldest = select(OutboxRow).order_by(OutboxRow.id).limit(limit).with_for_update(skip_locked=True)
    rows = uow.session.scalars(oldest).all()
    for row in rows:
        publish(Nudge(JobKind(row.kind), row.job_id))
    uow.session.execute(delete(OutboxRow).where(OutboxRow.id.in_([row.id for row in rows])))
    return len(rows)
