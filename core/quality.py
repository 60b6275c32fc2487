"""What is needed to say how good an annotation job's labels are. What is counted: annotator.quality and .agreement.

Everything here is about what teachers said: reviews, which outrank them elsewhere, would only hide their mistakes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from core.db.models import AnnotationRow, ExampleRow, Job, ReviewRow
from core.domain.annotation import Outcome
from core.domain.relations import Relation, relation_from_json
from core.errors import InvalidInput
from core.job_store import get_job
from core.jobs import JobKind
from core.labels import relations_of

_SAID = (Outcome.LABELLED, Outcome.EMPTY)  # outcomes in which a teacher said what it thinks
_AT_A_TIME = 1000  # rows


@dataclass(frozen=True, slots=True)
class Label:
    """What became of one item, in the form of annotator.wire, and the texts it is about."""

    input: str
    target: str
    outcome: Outcome
    relations: list[dict[str, Any]]
    unresolved: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Pair:
    """What two jobs said about one example."""

    position: int
    annotation_id: int
    other_id: int
    relations: list[Relation]
    others: list[Relation]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which items of two jobs can be compared."""

    both: int  # examples that both jobs have
    said: int  # of those, examples about which both teachers said something readable
    only_here: int
    only_there: int


def job_of(session: Session, *, tenant_id: str, job_id: str) -> Job:
    """An annotation job. Raises NotFound as job_store.get_job."""
    return get_job(session, tenant_id=tenant_id, kind=JobKind.ANNOTATION, job_id=job_id)


def pending(session: Session, job: Job) -> int:
    """How many items of a job have no outcome yet."""
    query = select(func.count()).where(
        AnnotationRow.job_id == job.id, AnnotationRow.tenant_id == job.tenant_id, AnnotationRow.outcome.is_(None)
    )
    return session.scalars(query).one()


def labels(session: Session, job: Job) -> Iterator[Label]:
    """Every item of a job that has an outcome, in order. Memory stays flat."""
    columns = (AnnotationRow.outcome, AnnotationRow.relations, AnnotationRow.unresolved)
    query = (
        select(*columns, ExampleRow.input, ExampleRow.target)
        .join(ExampleRow, ExampleRow.position == AnnotationRow.example_position)
        .where(*_finished(job))
        .order_by(AnnotationRow.id)
    )
    for row in _streamed(session, query):
        yield Label(row.input, row.target, Outcome(row.outcome), row.relations or [], row.unresolved or [])


def gold_labels(session: Session, *, tenant_id: str, job_id: str) -> Iterator[tuple[list[Relation], list[Relation]]]:
    """For every gold example that a job is through with: the teacher's relations, and the human's."""
    query = (
        select(AnnotationRow.relations, ExampleRow)
        .join(ExampleRow, ExampleRow.position == AnnotationRow.example_position)
        .where(
            AnnotationRow.job_id == job_id,
            AnnotationRow.tenant_id == tenant_id,
            AnnotationRow.outcome.is_not(None),
            ExampleRow.gold,
        )
    )
    for relations, example in _streamed(session, query):
        yield _relations(relations), relations_of(example)


def reviews_by_decision(session: Session, job: Job) -> dict[str, int]:
    """How many examples of a job a human has accepted or changed, by the newest decision on each."""
    newest = (
        select(ReviewRow.example_position, func.max(ReviewRow.number).label("number"))
        .join(AnnotationRow, AnnotationRow.example_position == ReviewRow.example_position)
        .where(AnnotationRow.job_id == job.id, ReviewRow.tenant_id == job.tenant_id)
        .group_by(ReviewRow.example_position)
        .subquery()
    )
    query = (
        select(ReviewRow.decision, func.count().label("examples"))
        .join(
            newest,
            (newest.c.example_position == ReviewRow.example_position) & (newest.c.number == ReviewRow.number),
        )
        .group_by(ReviewRow.decision)
    )
    return {row.decision: row.examples for row in session.execute(query)}


def overlap(session: Session, job: Job, other: Job) -> Overlap:
    """Which items of two jobs can be compared.

    Raises
    ------
    InvalidInput
        When the jobs have no example in common.
    """
    here, there = aliased(AnnotationRow), aliased(AnnotationRow)
    query = (
        select(func.count().label("both"), func.count().filter(_both_said(here, there)).label("said"))
        .select_from(here)
        .join(there, there.example_position == here.example_position)
        .where(here.job_id == job.id, there.job_id == other.id)
    )
    found = session.execute(query).one()
    if found.both == 0:
        raise InvalidInput(f"jobs {job.id} and {other.id} have no example in common", field="with")
    return Overlap(found.both, found.said, job.total - found.both, other.total - found.both)


def pairs(session: Session, job: Job, other: Job) -> Iterator[Pair]:
    """What two jobs said about each example on which both teachers said something readable. Memory stays flat."""
    here, there = aliased(AnnotationRow), aliased(AnnotationRow)
    query = (
        select(here.example_position, here.id, there.id, here.relations, there.relations)
        .join(there, there.example_position == here.example_position)
        .where(here.job_id == job.id, there.job_id == other.id, _both_said(here, there))
        .order_by(here.id)
    )
    for position, annotation_id, other_id, relations, others in _streamed(session, query):
        yield Pair(position, annotation_id, other_id, _relations(relations), _relations(others))


def examples_at(session: Session, *, tenant_id: str, positions: Collection[int]) -> dict[int, ExampleRow]:
    """Examples by position."""
    query = select(ExampleRow).where(ExampleRow.tenant_id == tenant_id, ExampleRow.position.in_(positions))
    return {example.position: example for example in session.scalars(query)}


def _finished(job: Job) -> tuple[Any, ...]:
    return (
        AnnotationRow.job_id == job.id,
        AnnotationRow.tenant_id == job.tenant_id,
        AnnotationRow.outcome.is_not(None),
    )


def _both_said(here: type[AnnotationRow], there: type[AnnotationRow]) -> Any:
    return here.outcome.in_(_SAID) & there.outcome.in_(_SAID)


def _streamed(session: Session, query: "Select[Any]") -> Iterator[Any]:
    yield from session.execute(query.execution_options(yield_per=_AT_A_TIME))


def _relations(stored: list[dict[str, Any]] | None) -> list[Relation]:
    return [relation_from_json(relation) for relation in stored or []]
