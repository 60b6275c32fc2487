"""The items of an annotation job that go to their teacher in batches.

An item belongs to one open batch at most. What comes back is stored a few hundred items at a time, each time with its
price; doing so again after a crash changes nothing, because an item that has its outcome is passed over.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from core import annotation_items, budgets
from core.annotation_items import Labels
from core.db.models import AnnotationRow, ExampleRow, TeacherBatch
from core.db.session import UnitOfWork
from core.db.text import storable_text
from core.domain.annotation import Example, Usage
from core.domain.batches import FirstReply
from core.domain.spending import Cost
from core.errors import Conflict
from core.labels import example_of
from core.leases import Claim

_AT_ONCE = 1000  # items a statement


@dataclass(frozen=True, slots=True)
class BatchItem:
    """An item that is, or is to be, in a batch; with the teacher's first reply, where that could not be read."""

    id: int
    example: Example
    first: FirstReply | None
    is_done: bool


def free_items(session: Session, claim: Claim, *, after: int, limit: int) -> list[BatchItem]:
    """At most `limit` items without outcome or batch and with an id above `after`, in order."""
    free = AnnotationRow.outcome.is_(None), AnnotationRow.batch_id.is_(None), AnnotationRow.id > after
    return _items(session, claim, *free, limit=limit)


def items_of(session: Session, claim: Claim, batch_id: str, ids: Collection[int]) -> dict[int, BatchItem]:
    """Those of these items that belong to a batch, by id."""
    found = _items(session, claim, AnnotationRow.batch_id == batch_id, AnnotationRow.id.in_(ids), limit=len(ids))
    return {item.id: item for item in found}


def claim_items(uow: UnitOfWork, claim: Claim, batch_id: str, items: Sequence[int]) -> None:
    """Give free items to a batch.

    Raises
    ------
    Conflict
        When one of them is not free.
    """
    if sum(_claimed(uow, claim, batch_id, chunk) for chunk in _chunks(items)) != len(items):
        raise Conflict("an item of the batch is not free")


def free(uow: UnitOfWork, claim: Claim, batch_id: str) -> None:
    """Take the items that have no outcome back from a batch."""
    left = AnnotationRow.batch_id == batch_id, AnnotationRow.outcome.is_(None)
    uow.session.execute(update(AnnotationRow).where(*_of(claim), *left).values(batch_id=None))


def store_answers(
    uow: UnitOfWork,
    claim: Claim,
    batch: TeacherBatch,
    *,
    labels: Labels,
    unreadable: Mapping[int, FirstReply],
    replies: Mapping[str, dict[str, Any]],
    cost: Cost,
) -> None:
    """Write what became of some items of a batch, and what they cost.

    Parameters
    ----------
    labels
        Of items that have their outcome now.
    unreadable
        First replies to items that are free again, to be asked about once more.
    replies
        To be remembered, by prompt hash.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's; nothing is written then.
    """
    budgets.draw(uow, claim, batch.reservation_id, cost)
    annotation_items.store_labels(uow, claim, labels, items_per_second=0.0)
    annotation_items.store_replies(uow, tenant_id=claim.tenant_id, replies=replies)
    if unreadable:
        uow.session.execute(update(AnnotationRow), [_asked_once(item, reply) for item, reply in unreadable.items()])


def _items(session: Session, claim: Claim, *which: ColumnElement[bool], limit: int) -> list[BatchItem]:
    query = (
        select(AnnotationRow, ExampleRow)
        .join(ExampleRow, ExampleRow.position == AnnotationRow.example_position)
        .where(*_of(claim), *which)
        .order_by(AnnotationRow.id)
        .limit(limit)
    )
    return [
        BatchItem(row.id, example_of(example, ()), _first_reply(row), row.outcome is not None)
        for row, example in session.execute(query)
    ]


def _first_reply(row: AnnotationRow) -> FirstReply | None:
    if row.outcome is not None or row.raw_reply is None:
        return None
    return FirstReply(row.raw_reply, row.detail or "", Usage(row.prompt_tokens, row.completion_tokens))


def _asked_once(item: int, reply: FirstReply) -> dict[str, Any]:
    return {
        "id": item,
        "batch_id": None,
        "raw_reply": storable_text(reply.text),
        "detail": storable_text(reply.problem),
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
    }


def _claimed(uow: UnitOfWork, claim: Claim, batch_id: str, items: Sequence[int]) -> int:
    free = AnnotationRow.id.in_(items), AnnotationRow.outcome.is_(None), AnnotationRow.batch_id.is_(None)
    taken: int = uow.session.execute(
        update(AnnotationRow)
        .where(*_of(claim), *free)
        .values(batch_id=batch_id)
        .execution_options(synchronize_session=False)
    ).rowcount  # type: ignore[attr-defined] # of an UPDATE it has one
    return taken


def _chunks(items: Sequence[int]) -> Iterator[Sequence[int]]:
    waiting = iter(items)
    while chunk := list(itertools.islice(waiting, _AT_ONCE)):
        yield chunk


def _of(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return AnnotationRow.job_id == claim.job_id, AnnotationRow.tenant_id == claim.tenant_id
