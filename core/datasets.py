"""Datasets and their examples."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.db import staging
from core.db.base import utcnow
from core.db.models import Dataset, ExampleRow, Job
from core.db.session import UnitOfWork
from core.db.staging import NewExample as NewExample
from core.domain.ids import new_id
from core.domain.lifecycle import TERMINAL
from core.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the examples of one upload."""

    stored: int
    unchanged: int  # posted before with equal content


def create(uow: UnitOfWork, *, tenant_id: str, name: str) -> Dataset:
    """A new, empty dataset. Names need not be unique."""
    dataset = Dataset(id=new_id("ds"), tenant_id=tenant_id, name=name, splits={}, created_at=utcnow())
    uow.session.add(dataset)
    return dataset


def get(session: Session, *, tenant_id: str, dataset_id: str) -> Dataset:
    """One dataset. Raises NotFound when there is none, it was deleted, or it is another tenant's."""
    return _one(session, tenant_id, dataset_id)


def list_datasets(session: Session, *, tenant_id: str, after: str | None = None, limit: int = 50) -> list[Dataset]:
    """At most `limit` datasets, newest first, of those older than the dataset `after`."""
    query = (
        select(Dataset)
        .where(Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None))
        .order_by(Dataset.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(Dataset.id < after)
    return list(session.scalars(query))


def remove(uow: UnitOfWork, *, tenant_id: str, dataset_id: str) -> None:
    """Delete a dataset with its examples and their labels. Jobs that used it keep their history and their adapters.

    Raises
    ------
    NotFound
        As get.
    Conflict
        When a job that is not finished uses it.
    """
    # FOR UPDATE also waits for, and shuts out, jobs being submitted: their foreign key holds the row.
    dataset = _one(uow.session, tenant_id, dataset_id, lock="delete")
    busy = select(Job.id).where(Job.dataset_id == dataset_id, Job.tenant_id == tenant_id, Job.state.not_in(TERMINAL))
    job_id = uow.session.scalars(busy.limit(1)).one_or_none()
    if job_id is not None:
        raise Conflict(f"job {job_id} uses dataset {dataset_id}: cancel it first", id=dataset_id, job_id=job_id)
    dataset.deleted_at = utcnow()
    dataset.splits = {}
    uow.session.execute(
        delete(ExampleRow).where(ExampleRow.dataset_id == dataset_id, ExampleRow.tenant_id == tenant_id)
    )


def add_examples(uow: UnitOfWork, *, tenant_id: str, dataset_id: str, split: str, rows: Iterator[NewExample]) -> Added:
    """Add `rows` to a split, all or none, in the order they come; a key that exists with equal content is left alone.

    Raises
    ------
    NotFound
        As get.
    Conflict
        When a key exists, in the dataset or earlier in `rows`, with another content. Facts: `id`, `line`.
    """
    dataset = _one(uow.session, tenant_id, dataset_id, lock="add")
    connection = uow.session.connection()
    staged = staging.stage(connection, rows)
    stored = staging.move_in(connection, tenant_id=tenant_id, dataset_id=dataset_id, split=split)
    changed = staging.first_changed(connection, dataset_id=dataset_id) if stored < staged else None
    if changed is not None:
        key, line = changed
        raise Conflict(
            f"line {line}: the id {key!r} exists with another content or in another split; "
            "examples never change, so give this one an id of its own",
            field="id",
            line=line,
            id=key,
        )
    staging.clear(connection)
    dataset.splits = {**dataset.splits, split: dataset.splits.get(split, 0) + stored}
    return Added(stored=stored, unchanged=staged - stored)


def list_examples(
    session: Session,
    *,
    tenant_id: str,
    dataset_id: str,
    split: str | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[ExampleRow]:
    """At most `limit` examples in order of arrival, of those after the position `after`. Raises NotFound as get."""
    _one(session, tenant_id, dataset_id)
    query = (
        select(ExampleRow)
        .where(ExampleRow.dataset_id == dataset_id, ExampleRow.tenant_id == tenant_id, ExampleRow.position > after)
        .order_by(ExampleRow.position)
        .limit(limit)
    )
    if split is not None:
        query = query.where(ExampleRow.split == split)
    return list(session.scalars(query))


def _one(session: Session, tenant_id: str, dataset_id: str, lock: str = "") -> Dataset:
    query = select(Dataset).where(
        Dataset.id == dataset_id, Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None)
    )
    if lock:
        # Adding must not hold up those who merely refer to the row; deleting must.
        query = query.with_for_update(key_share=lock == "add").execution_options(populate_existing=True)
    dataset = session.scalars(query).one_or_none()
    if dataset is None:
        raise NotFound(f"no dataset {dataset_id}", id=dataset_id)
    return dataset
