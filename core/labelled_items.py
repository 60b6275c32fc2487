"""The items of annotation jobs as their owners see them: in pages, one by one, and as an export."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, exists, func, select, tuple_
from sqlalchemy.orm import Session

from core.db.models import AnnotationRow, ExampleRow, Job, ReviewRow
from core.domain.annotation import Outcome
from core.domain.relations import relation_to_json
from core.errors import NotFound
from core.job_store import get_job
from core.jobs import JobKind
from core.labels import LabelledItem, reviews_of

FIRST = (-1.0, 0)  # the place before that of every item, in the order of confidence
_UNKNOWN = 2.0  # sorts behind every confidence


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
    after: int = 0,
    limit: int = 100,
) -> list[LabelledItem]:
    """At most `limit` items of a job with an id above `after`, in order.

    Raises
    ------
    NotFound
        As job_store.get_job.
    """
    job = get_job(session, tenant_id=tenant_id, kind=JobKind.ANNOTATION, job_id=job_id)
    query = _filtered(_items(job), only).where(AnnotationRow.id > after).limit(limit)
    return _with_reviews(session, tenant_id, session.execute(query.order_by(AnnotationRow.id)).all())


def page_by_confidence(
    session: Session,
    *,
    tenant_id: str,
    job_id: str,
    only: ItemFilter = _ALL,
    after: tuple[float, int] = FIRST,
    limit: int = 100,
) -> list[LabelledItem]:
    """At most `limit` items of a job, the least confident first, of those behind `after`, see place_by_confidence.

    Raises
    ------
    NotFound
        As job_store.get_job.
    """
    job = get_job(session, tenant_id=tenant_id, kind=JobKind.ANNOTATION, job_id=job_id)
    place = tuple_(func.coalesce(AnnotationRow.confidence, _UNKNOWN), AnnotationRow.id)
    query = _filtered(_items(job), only).where(place > after).order_by(*place).limit(limit)
    return _with_reviews(session, tenant_id, session.execute(query).all())


def place_by_confidence(annotation: AnnotationRow) -> tuple[float, int]:
    """Where an item stands in the list of the least confident; those of which nothing is known come last."""
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
