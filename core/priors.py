"""Priors as stored: a name and version, once posted, never change their content."""

import hashlib
import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.db.models import PriorRow
from core.db.session import UnitOfWork
from core.domain.ids import new_id
from core.errors import Conflict, NotFound


def create(uow: UnitOfWork, *, tenant_id: str, name: str, version: str, body: dict[str, Any]) -> tuple[PriorRow, bool]:
    """The prior of that name and version, and whether it is new. The same content again is the same row.

    Parameters
    ----------
    body
        The checked prior as JSON, see annotator.prior.

    Raises
    ------
    Conflict
        When the name and version exist with another content.
    """
    sha256 = hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    row = PriorRow(id=new_id("prior"), tenant_id=tenant_id, name=name, version=version, sha256=sha256, body=body)
    found = _find(uow.session, tenant_id, name, version)
    if found is None:
        try:
            with uow.session.begin_nested():
                uow.session.add(row)
        except IntegrityError:
            found = _find(uow.session, tenant_id, name, version)  # posted by somebody else since we looked
            if found is None:
                raise
        else:
            return row, True
    if found.sha256 != sha256:
        raise Conflict(
            f"prior {name!r} version {version!r} exists with another content: give it a new version",
            field="version",
            id=found.id,
        )
    return found, False


def get(session: Session, *, tenant_id: str, prior_id: str) -> PriorRow:
    """One prior. Raises NotFound when there is none, or it is another tenant's."""
    query = select(PriorRow).where(PriorRow.id == prior_id, PriorRow.tenant_id == tenant_id)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound(f"no prior {prior_id}", id=prior_id)
    return row


def list_priors(session: Session, *, tenant_id: str, after: str | None = None, limit: int = 50) -> list[PriorRow]:
    """At most `limit` priors, newest first, of those older than the prior `after`."""
    query = select(PriorRow).where(PriorRow.tenant_id == tenant_id).order_by(PriorRow.id.desc()).limit(limit)
    if after is not None:
        query = query.where(PriorRow.id < after)
    return list(session.scalars(query))


def _find(session: Session, tenant_id: str, name: str, version: str) -> PriorRow | None:
    query = select(PriorRow).where(PriorRow.tenant_id == tenant_id, PriorRow.name == name, PriorRow.version == version)
    return session.scalars(query).one_or_none()
