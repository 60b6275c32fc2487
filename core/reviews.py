"""Reviews: what a human decides about the relations of an example, having seen what a teacher said.

The newest review of an example outranks every teacher's labels; the older ones stay as its history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from core.db.base import utcnow
from core.db.models import AnnotationRow, ExampleRow, ReviewRow
from core.db.session import UnitOfWork
from core.domain.annotation import Decision, Example
from core.domain.relations import Relation, relation_from_json, relation_to_json
from core.errors import Conflict, InvalidInput, NotFound
from core.labels import DemonstrationSource, LabelledItem, example_of, reviews_of, without_evaluated

_MOST_SHOWN = 2000  # reviewed examples that demonstrations are drawn from: they are held in memory
_LONGEST_SHOWN = 20_000  # code points of one, as of a demonstration in a prior


def review(
    uow: UnitOfWork,
    *,
    tenant_id: str,
    key_id: str,
    annotation_id: int,
    version: int,
    decision: Decision,
    relations: Sequence[Relation] | None = None,
) -> LabelledItem:
    """Store what a human decided, and show the item as it is then.

    Parameters
    ----------
    key_id
        Whose decision it is.
    version
        Of the item as the human saw it, see LabelledItem.version.
    relations
        With `changed` those that hold instead, perhaps none. With `accepted` they may be left out.

    Raises
    ------
    NotFound
        When there is no such annotation, or it is another tenant's.
    Conflict
        When the item was labelled or reviewed since, or has no label yet. Facts: `version`, the one it has now.
    InvalidInput
        When `relations` do not fit the decision or the example's text.
    """
    annotation, example = _locked(uow.session, tenant_id, annotation_id)
    newest = reviews_of(uow.session, tenant_id=tenant_id, positions=[example.position]).get(example.position)
    seen = LabelledItem(annotation, example, newest)
    if annotation.outcome is None:
        raise Conflict(f"annotation {annotation_id} has no label yet to be reviewed", version=seen.version)
    if version != seen.version:
        raise Conflict(
            f"annotation {annotation_id} has changed: it is at version {seen.version}, the review is of {version}",
            version=seen.version,
        )
    made = ReviewRow(
        tenant_id=tenant_id,
        example_position=example.position,
        number=version,
        annotation_id=annotation_id,
        decision=decision,
        relations=[relation_to_json(relation) for relation in _decided(seen, decision, relations)],
        key_id=key_id,
        at=utcnow(),
    )
    uow.session.add(made)
    uow.session.flush()
    return LabelledItem(annotation, example, made)


def history(
    session: Session, *, tenant_id: str, annotation_id: int, after: int = 0, limit: int = 50
) -> list[ReviewRow]:
    """At most `limit` reviews of the annotation's example with a number above `after`, oldest first.

    Raises
    ------
    NotFound
        When there is no such annotation, or it is another tenant's.
    """
    found = select(AnnotationRow.example_position).where(
        AnnotationRow.id == annotation_id, AnnotationRow.tenant_id == tenant_id
    )
    position = session.scalars(found).one_or_none()
    if position is None:
        raise _no_annotation(annotation_id)
    query = (
        select(ReviewRow)
        .where(ReviewRow.tenant_id == tenant_id, ReviewRow.example_position == position, ReviewRow.number > after)
        .order_by(ReviewRow.number)
        .limit(limit)
    )
    return list(session.scalars(query))


@dataclass(frozen=True, slots=True)
class ReviewedExamples:
    """Examples with the relations of their newest review, in order of arrival; and the splits they may be from."""

    examples: list[Example]
    splits: tuple[str, ...]


def for_demonstrations(
    session: Session, *, tenant_id: str, dataset_id: str, source: DemonstrationSource
) -> ReviewedExamples:
    """What a teacher may be shown of a dataset: the 2,000 examples of those splits that were reviewed last.

    Never gold, which is to measure the teacher; and never of a split that a training job of the dataset evaluates,
    whatever `source` says: what it is measured by must not have shaped the labels it learns from.
    """
    splits = without_evaluated(session, source.splits, tenant_id=tenant_id, dataset_id=dataset_id)
    later = aliased(ReviewRow)
    outdated = exists().where(
        later.example_position == ReviewRow.example_position,
        later.number > ReviewRow.number,
        later.id <= source.reviews_until,
    )
    query = (
        select(ExampleRow, ReviewRow.relations)
        .join(ReviewRow, ReviewRow.example_position == ExampleRow.position)
        .where(
            ExampleRow.tenant_id == tenant_id,
            ReviewRow.tenant_id == tenant_id,
            ExampleRow.dataset_id == dataset_id,
            ExampleRow.split.in_(splits),
            ExampleRow.gold.is_(False),
            func.length(ExampleRow.input) + func.length(ExampleRow.target) <= _LONGEST_SHOWN,
            ReviewRow.id <= source.reviews_until,
            ~outdated,
        )
        .order_by(ReviewRow.id.desc())
        .limit(_MOST_SHOWN)
    )
    found = sorted(session.execute(query), key=lambda row: row.ExampleRow.position)
    examples = [example_of(row, [relation_from_json(one) for one in relations]) for row, relations in found]
    return ReviewedExamples(examples, splits)


def _decided(seen: LabelledItem, decision: Decision, relations: Sequence[Relation] | None) -> Sequence[Relation]:
    if decision is Decision.ACCEPTED:
        if relations is not None and list(relations) != seen.relations:
            raise InvalidInput(
                "accepted relations are those shown: leave them out, or send them as changed", field="relations"
            )
        return seen.relations
    if relations is None:
        raise InvalidInput(
            "say which relations hold instead; an empty list says that there are none", field="relations"
        )
    text = example_of(seen.example, ()).text
    for relation in relations:
        relation.check_against(text)
    return relations


def _locked(session: Session, tenant_id: str, annotation_id: int) -> tuple[AnnotationRow, ExampleRow]:
    """The item and its example, which nobody else reviews before the transaction ends."""
    query = (
        select(AnnotationRow, ExampleRow)
        .join(ExampleRow, ExampleRow.position == AnnotationRow.example_position)
        .where(AnnotationRow.id == annotation_id, AnnotationRow.tenant_id == tenant_id)
        # Jobs being submitted hold the example by their foreign keys: they need not wait, nor be waited for.
        .with_for_update(of=ExampleRow, key_share=True)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        raise _no_annotation(annotation_id)
    return found.AnnotationRow, found.ExampleRow


def _no_annotation(annotation_id: int) -> NotFound:
    return NotFound(f"no annotation {annotation_id}", id=annotation_id)
