"""The labels of a split, from wherever they come, as one stream; and the hash that pins them."""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.models import AnnotationRow, ExampleRow, Job, ReviewRow
from core.domain.annotation import Example, Outcome
from core.domain.relations import Relation, relation_from_json
from core.domain.spans import Span
from core.jobs import JobKind

_BATCH = 1000  # examples read at a time


@dataclass(frozen=True, slots=True)
class LabelSource:
    """Which relations a training run learns from.

    With annotation jobs: for each example what a human's newest review says; without one the labels of the last job in
    the list that labelled it, none when no job did. Without jobs: the relations that were posted with the dataset.
    """

    annotation_jobs: tuple[str, ...] = ()
    reviews_until: int = 0  # the last review taken into account, so that later ones do not change what was pinned


@dataclass(frozen=True, slots=True)
class DemonstrationSource:
    """Which reviewed examples a teacher may be shown beside those of its prior: of each item, the `k` nearest."""

    k: int
    splits: tuple[str, ...]
    reviews_until: int = 0  # the last review taken into account, so that a job asks the same however often it stops


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """One item of an annotation job, the example it belongs to, and the newest review of that example."""

    annotation: AnnotationRow
    example: ExampleRow
    review: ReviewRow | None = None

    @property
    def version(self) -> int:
        """What a review must name: 0 without a label, 1 with one, and one more with each review of the example."""
        return (self.annotation.outcome is not None) + (self.review.number if self.review else 0)

    @property
    def relations(self) -> list[Relation]:
        """Those that count: of the human who reviewed the example, else of the teacher."""
        found = self.annotation.relations if self.review is None else self.review.relations
        return [relation_from_json(relation) for relation in found or []]


def labelled_examples(
    session: Session, *, tenant_id: str, dataset_id: str, split: str, source: LabelSource
) -> Iterator[tuple[ExampleRow, list[Relation]]]:
    """The examples of a split in order of arrival, each with its relations. Memory stays flat."""
    after = 0
    while rows := _examples(session, tenant_id, dataset_id, split, after):
        after = rows[-1].position
        found = _labels(session, tenant_id, source, [row.position for row in rows])
        for row in rows:
            yield row, found.get(row.position, []) if source.annotation_jobs else relations_of(row)
            session.expunge(row)


def reviews_of(
    session: Session, *, tenant_id: str, positions: Collection[int], until: int | None = None
) -> dict[int, ReviewRow]:
    """The newest review of each of these examples, by position; `until` a review's id, where later ones are ignored."""
    query = select(ReviewRow).where(ReviewRow.tenant_id == tenant_id, ReviewRow.example_position.in_(positions))
    if until is not None:
        query = query.where(ReviewRow.id <= until)
    return {review.example_position: review for review in session.scalars(query.order_by(ReviewRow.number))}


def last_review(session: Session, *, tenant_id: str) -> int:
    """The id of a tenant's newest review, 0 when there is none."""
    return session.scalar(select(func.max(ReviewRow.id)).where(ReviewRow.tenant_id == tenant_id)) or 0


def evaluated_splits(session: Session, *, tenant_id: str, dataset_id: str) -> set[str]:
    """Every split of a dataset that some training job evaluates, or has evaluated, or was to."""
    query = select(Job.request).where(
        Job.tenant_id == tenant_id, Job.dataset_id == dataset_id, Job.kind == JobKind.TRAINING
    )
    return {split for request in session.scalars(query) for split in request["eval_splits"]}


def without_evaluated(session: Session, splits: Sequence[str], *, tenant_id: str, dataset_id: str) -> tuple[str, ...]:
    """Each of these splits, once, that no training job of the dataset evaluates."""
    evaluated = evaluated_splits(session, tenant_id=tenant_id, dataset_id=dataset_id)
    return tuple(split for split in dict.fromkeys(splits) if split not in evaluated)


def pinned(session: Session, source: DemonstrationSource, *, tenant_id: str, dataset_id: str) -> DemonstrationSource:
    """The same source with the reviews there are now and no later ones, without the splits that are evaluated."""
    splits = without_evaluated(session, source.splits, tenant_id=tenant_id, dataset_id=dataset_id)
    return replace(source, splits=splits, reviews_until=last_review(session, tenant_id=tenant_id))


def example_of(row: ExampleRow, relations: Sequence[Relation]) -> Example:
    """The domain's view of a row, with these relations instead of its own."""
    return Example(row.input, row.target, row.key, tuple(row.choices), tuple(relations))


def relations_of(row: ExampleRow) -> list[Relation]:
    """The relations that were posted with an example."""
    return [relation_from_json(relation) for relation in row.relations]


class LabelsDigest:
    """SHA-256 over (id, content, relations) of examples, in order."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, row: ExampleRow, relations: Sequence[Relation]) -> None:
        """Take one more example into account; `row.digest` stands for all that its owner sent."""
        spans = [[_pair(r.effect), [_pair(cause) for cause in r.causes]] for r in relations]
        self._sha.update(json.dumps([row.key, row.digest, spans]).encode() + b"\n")

    def hexdigest(self) -> str:
        """The digest of what was added so far."""
        return self._sha.hexdigest()


def _pair(span: Span) -> list[int]:
    return [span.start, span.end]


def _examples(session: Session, tenant_id: str, dataset_id: str, split: str, after: int) -> Sequence[ExampleRow]:
    query = (
        select(ExampleRow)
        .where(
            ExampleRow.tenant_id == tenant_id,
            ExampleRow.dataset_id == dataset_id,
            ExampleRow.split == split,
            ExampleRow.position > after,
        )
        .order_by(ExampleRow.position)
        .limit(_BATCH)
    )
    return session.scalars(query).all()


def _labels(
    session: Session, tenant_id: str, source: LabelSource, positions: Sequence[int]
) -> dict[int, list[Relation]]:
    """Position -> relations, for positions in rising order."""
    found: dict[int, list[Relation]] = {}
    for job_id in source.annotation_jobs:
        query = select(AnnotationRow.example_position, AnnotationRow.relations).where(
            AnnotationRow.job_id == job_id,
            AnnotationRow.tenant_id == tenant_id,
            AnnotationRow.example_position.between(positions[0], positions[-1]),
            AnnotationRow.outcome == Outcome.LABELLED,
        )
        for position, relations in session.execute(query):
            found[position] = [relation_from_json(relation) for relation in relations or []]
    if source.annotation_jobs and source.reviews_until:
        reviews = reviews_of(session, tenant_id=tenant_id, positions=positions, until=source.reviews_until)
        found |= {at: [relation_from_json(relation) for relation in one.relations] for at, one in reviews.items()}
    return found
