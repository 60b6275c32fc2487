"""The items of annotation jobs as their owners see them: in pages, one by one, and as an export."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, Select, SQLColumnExpression, exists, func, select, tuple_
from sqlalchemy.orm import Session

from core.db.models import AnnotationRow, ExampleRow, Job, ReviewRow
from core.domain.annotation import Outcome
from core.domain.relations import relation_to_json
from core.errors import NotFound
from core.job_store import get_job
from core.jobs import JobKind
from core.labels import LabelledItem, reviews_of

Place = tuple[float, ...]  # the values of what a list is ordered by, at one item; the last is its id
_UNKNOWN = 2.0  # sorts behind every confidence


class Order(StrEnum):
    """What a list of annotations begins with."""

    EXAMPLE = "example"  # that of the first example
    CONFIDENCE = "confidence"  # the one whose votes agree least


_COLUMNS: dict[Order, tuple[SQLColumnExpression[Any], ...]] = {
    Order.EXAMPLE: (AnnotationRow.id,),
    Order.CONFIDENCE: (func.coalesce(AnnotationRow.confidence, _UNKNOWN), AnnotationRow.id),
}


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Which items of a job are meant; all of them, where nothing is asked."""

    outcome: Outcome | None = None
    unresolved_only: bool = False  # with a phrase that was not found
    reviewed: bool | None = None  # whether their example was


_ALL = ItemFilter()


def page(
    session: Session,
    *,
    tenant_id: str,
    job_id: str,
    only: ItemFilter = _ALL,
    order: Order = Order.EXAMPLE,
    after: Place = (),
    limit: int = 100,
) -> list[LabelledItem]:
    """At most `limit` items of a job, of those behind the place `after` in this order; () is before them all.

    Raises
    ------
    NotFound
        As job_store.get_job.
    """
    job = get_job(session, tenant_id=tenant_id, kind=JobKind.ANNOTATION, job_id=job_id)
    columns = _COLUMNS[order]
    query = _filtered(_items(job), only).order_by(*columns).limit(limit)
    if after:
        query = query.where(tuple_(*columns) > after)
    return _with_reviews(session, tenant_id, session.execute(query).all())


def place_of(annotation: AnnotationRow, order: Order) -> Place:
    """Where an item stands in an order. Of the least confident, those of which nothing is known come last."""
    if order is Order.EXAMPLE:
        return (annotation.id,)
    return (_UNKNOWN if annotation.confidence is None else annotation.confidence, annotation.id)


def item(session: Session, *, tenant_id: str, annotation_id: int) -> LabelledItem:
    """One item of whatever job. Raises NotFound when there is none, or it is another tenant's."""
    query = (
        select(AnnotationRow, ExampleRow)
        .join(ExampleRow, ExampleRow.position == AnnotationRow.example_position)
        .where(AnnotationRow.id == annotation_id, AnnotationRow.tenant_id == tenant_id)
    )
    found = _with_reviews(session, tenant_id, session.execute(query).all())
    if not found:
        raise NotFound(f"no annotation {annotation_id}", id=annotation_id)
    return found[0]


def export(session: Session, *, tenant_id: str, job_id: str, split: str | None = None) -> Iterator[dict[str, Any]]:
    """All items of a job, labelled or not, as lines that POST examples takes; of one split when it is named.

    What a human said about an example outranks the job's labels.

    Raises
    ------
    NotFound
        As job_store.get_job, before the first line.
    """
    job = get_job(session, tenant_id=tenant_id, kind=JobKind.ANNOTATION, job_id=job_id)
    query = _items(job).order_by(AnnotationRow.id)
    if split is not None:
        query = query.where(ExampleRow.split == split)
    return _exported(session, tenant_id, query)


def _exported(session: Session, tenant_id: str, query: "Select[AnnotationRow, ExampleRow]") -> Iterator[dict[str, Any]]:
    rows = session.execute(query.execution_options(yield_per=500))
    for part in rows.partitions():
        for one in _with_reviews(session, tenant_id, part):
            example = one.example
            yield {
                "id": example.key,
                "input": example.input,
                "target": example.target,
                "choices": example.choices,
                "relations": [relation_to_json(relation) for relation in one.relations],
            }
        session.expunge_all()


def _with_reviews(
    session: Session, tenant_id: str, rows: "Sequence[Row[AnnotationRow, ExampleRow]]"
) -> list[LabelledItem]:
    reviews = reviews_of(session, tenant_id=tenant_id, positions=[example.position for _, example in rows])
    return [LabelledItem(annotation, example, reviews.get(example.position)) for annotation, example in rows]


def _items(job: Job) -> "Select[AnnotationRow, ExampleRow]":
    return (
        select(AnnotationRow, ExampleRow)
        .join(ExampleRow, ExampleRow.position == AnnotationRow.example_position)
        .where(AnnotationRow.job_id == job.id, AnnotationRow.tenant_id == job.tenant_id)
    )


def _filtered(query: "Select[AnnotationRow, ExampleRow]", only: ItemFilter) -> "Select[AnnotationRow, ExampleRow]":
    if only.outcome is not None:
        query = query.where(AnnotationRow.outcome == only.outcome)
    if only.unresolved_only:
        query = query.where(AnnotationRow.unresolved_count > 0)
    if only.reviewed is not None:
        known = exists().where(ReviewRow.example_position == AnnotationRow.example_position)
        query = query.where(known if only.reviewed else ~known)
    return query
