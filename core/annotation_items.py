"""The items of an annotation job, as its worker sees them: fetched, labelled, paid for once, completed.

An item is a row that waits for its outcome. The order of items is the order of the examples.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from core.db.base import utcnow
from core.db.models import AnnotationRow, ExampleRow, Job, PriorRow, TeacherReply
from core.db.session import UnitOfWork
from core.db.text import storable, storable_text
from core.domain.annotation import Example, Mode
from core.domain.lifecycle import JobState
from core.job_store import record_change
from core.labels import DemonstrationSource, example_of
from core.leases import Claim, fence, finish

RAW_REPLY_CAP = 100_000  # code points of a raw reply that are kept

# Item id -> annotation in the form of annotator.wire.annotation_to_json, with `confidence` where there were votes.
Labels = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of work: the row to fill and the example to ask about."""

    id: int
    example: Example


@dataclass(frozen=True, slots=True)
class Asked:
    """How a job is to be labelled."""

    teacher: str  # by its name in the settings
    prior: dict[str, Any]
    votes: int  # of the teacher on each item
    dataset_id: str
    mode: Mode = Mode.LIVE
    demonstrations: DemonstrationSource | None = None


def asked_of(session: Session, claim: Claim) -> Asked:
    """How the job is to be labelled."""
    query = select(Job.request, Job.dataset_id, PriorRow.body).join(PriorRow, PriorRow.id == Job.prior_id)
    found = session.execute(query.where(Job.id == claim.job_id, Job.tenant_id == claim.tenant_id)).one()
    request = found.request
    shown = request.get("demonstrations")  # jobs of before have neither these nor votes nor mode
    return Asked(
        request["teacher"],
        found.body,
        request.get("votes", 1),
        found.dataset_id,
        Mode(request.get("mode", Mode.LIVE)),
        shown and DemonstrationSource(shown["k"], tuple(shown["splits"]), shown["reviews_until"]),
    )


def pending_items(session: Session, claim: Claim, *, after: int, limit: int) -> list[Item]:
    """At most `limit` items without an outcome and with an id above `after`, in order.

    Their examples come without relations: what a human said, gold above all, is not for a teacher to see.
    """
    query = (
        select(AnnotationRow.id, ExampleRow)
        .join(ExampleRow, ExampleRow.position == AnnotationRow.example_position)
        .where(
            *_of(claim),
            AnnotationRow.outcome.is_(None),
            AnnotationRow.id > after,
        )
        .order_by(AnnotationRow.id)
        .limit(limit)
    )
    return [Item(item_id, example_of(row, ())) for item_id, row in session.execute(query)]


def is_done(session: Session, claim: Claim) -> bool:
    """Whether no item of the job is pending."""
    pending = select(AnnotationRow.id).where(*_of(claim), AnnotationRow.outcome.is_(None)).limit(1)
    return session.scalars(pending).one_or_none() is None


def store_labels(uow: UnitOfWork, claim: Claim, labels: Labels, *, items_per_second: float) -> Job:
    """Write what became of some items and the progress this makes, as the claim's owner.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's; nothing is written then.
    """
    job = fence(uow, claim)
    if not labels:
        return job
    uow.session.execute(update(AnnotationRow), [_columns(item, label) for item, label in labels.items()])
    outcomes = dict(job.progress.get("outcomes", {}))
    for label in labels.values():
        outcomes[label["outcome"]] = outcomes.get(label["outcome"], 0) + 1
    job.done += len(labels)
    left = job.total - job.done
    job.progress = {
        **job.progress,
        "outcomes": outcomes,
        "prompt_tokens": job.progress.get("prompt_tokens", 0) + _spent(labels, "prompt_tokens"),
        "completion_tokens": job.progress.get("completion_tokens", 0) + _spent(labels, "completion_tokens"),
        "items_per_second": round(items_per_second, 2),
        "eta_seconds": round(left / items_per_second, 1) if items_per_second > 0 else None,
    }
    record_change(uow, job, "progress", {"done": job.done, "total": job.total, **job.progress})
    return job


def complete(uow: UnitOfWork, claim: Claim, *, measured: Mapping[str, Any] | None = None) -> Job:
    """End a job none of whose items is pending. The result counts the outcomes; they add up to the items.

    Parameters
    ----------
    measured
        What else is known of the job's labels, to stand in its result.

    Raises
    ------
    LeaseLost
        When the job is no longer this claim's.
    """
    counted = (
        select(AnnotationRow.outcome, func.count(), func.sum(AnnotationRow.unresolved_count))
        .where(*_of(claim))
        .group_by(AnnotationRow.outcome)
    )
    rows = uow.session.execute(counted).all()
    result = {
        "outcomes": {outcome: count for outcome, count, _ in rows if outcome is not None},
        "unresolved": int(sum(unresolved for _, _, unresolved in rows)),
        **(measured or {}),
    }
    return finish(uow, claim, JobState.SUCCEEDED, result=result)


def stored_replies(session: Session, *, tenant_id: str, prompt_hashes: Collection[str]) -> dict[str, dict[str, Any]]:
    """What a teacher answered to these very prompts before, by hash; those never asked are missing."""
    query = select(TeacherReply.prompt_hash, TeacherReply.reply).where(
        TeacherReply.tenant_id == tenant_id, TeacherReply.prompt_hash.in_(prompt_hashes)
    )
    return dict(session.execute(query).all())


def store_replies(uow: UnitOfWork, *, tenant_id: str, replies: Mapping[str, dict[str, Any]]) -> None:
    """Keep replies by prompt hash; the first to a prompt stays."""
    if not replies:
        return
    rows = [
        {"tenant_id": tenant_id, "prompt_hash": key, "reply": storable(reply), "created_at": utcnow()}
        for key, reply in replies.items()
    ]
    dialect = postgresql if uow.on_postgres else sqlite
    uow.session.execute(dialect.insert(TeacherReply).values(rows).on_conflict_do_nothing())


def _of(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return AnnotationRow.job_id == claim.job_id, AnnotationRow.tenant_id == claim.tenant_id


def _columns(item: int, label: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": item,
        "outcome": label["outcome"],
        "relations": storable(label["relations"]),
        "unresolved": storable(label["unresolved"]),
        "unresolved_count": len(label["unresolved"]),
        "detail": storable_text(label["detail"]),
        "raw_reply": storable_text(label["raw_reply"][:RAW_REPLY_CAP]),
        "prompt_hash": label["prompt_hash"],
        "prompt_tokens": label["usage"]["prompt_tokens"],
        "completion_tokens": label["usage"]["completion_tokens"],
        "confidence": label.get("confidence"),
        "updated_at": utcnow(),
    }


def _spent(labels: Labels, kind: str) -> int:
    spent: int = sum(label["usage"][kind] for label in labels.values())
    return spent
