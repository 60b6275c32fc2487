"""What an operator asks a database: whether it answers, and how many jobs there are."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.models import Job


def answers(session: Session) -> bool:
    """True; raises what a query raises when the database does not answer."""
    return session.scalar(select(1)) == 1


def jobs_by_state(session: Session) -> dict[tuple[str, str], int]:
    """How many jobs there are of each (kind, state), over all tenants."""
    query = select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
    return {(kind, state): count for kind, state, count in session.execute(query)}
