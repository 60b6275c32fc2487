"""Annotation jobs: asked for, and asked for again. Their items at work: annotation_items, read back: labelled_items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, literal, select
from sqlalchemy.orm import Session

from core.db.models import AnnotationRow, ExampleRow, Job, PriorRow
from core.db.session import UnitOfWork
from core.db.text import storable_text
from core.domain.annotation import Example, Mode
from core.domain.spending import nano_usd
from core.errors import InvalidInput, NotFound
from core.job_store import add_job, dataset_for_job, job_to_retry
from core.jobs import JobKind
from core.labels import DemonstrationSource, example_of, pinned

_SAMPLE = 1000  # examples that a plan is estimated from


@dataclass(frozen=True, slots=True)
class AnnotationPlan:
    """What an annotation job would do, for a dry run."""

    items: int
    by_split: dict[str, int]
    sample: list[Example]  # at most a thousand items, evenly spread from the first on, as a teacher gets them
    prior: PriorRow


def plan(
    session: Session, *, tenant_id: str, dataset_id: str, prior_id: str, splits: Sequence[str] = ()
) -> AnnotationPlan:
    """What `submit` with the same arguments would start.

    Raises
    ------
    NotFound, InvalidInput
        As submit.
    """
    dataset_for_job(session, tenant_id=tenant_id, dataset_id=dataset_id)
    prior = _prior(session, tenant_id, prior_id)
    chosen = _chosen(tenant_id, dataset_id, splits)
    counted = select(ExampleRow.split, func.count().label("items")).where(*chosen).group_by(ExampleRow.split)
    by_split: dict[str, int] = {row.split: row.items for row in session.execute(counted)}
    items = sum(by_split.values())
    if items == 0:
        raise _nothing_chosen(splits)
    numbered = (
        select(ExampleRow.position, func.row_number().over(order_by=ExampleRow.position).label("number"))
        .where(*chosen)
        .subquery()
    )
    every = -(-items // _SAMPLE)
    spread = (
        select(ExampleRow)
        .join(numbered, numbered.c.position == ExampleRow.position)
        .where(numbered.c.number % every == 1 % every)
        .order_by(ExampleRow.position)
    )
    sample = [example_of(row, ()) for row in session.scalars(spread)]
    return AnnotationPlan(items, by_split, sample, prior)


def submit(
    uow: UnitOfWork,
    *,
    tenant_id: str,
    dataset_id: str,
    prior_id: str,
    teacher: str,
    splits: Sequence[str] = (),
    votes: int = 1,
    mode: Mode = Mode.LIVE,
    demonstrations: DemonstrationSource | None = None,
    budget_tokens: int | None = None,
    budget_usd: float | None = None,
    name: str = "",
) -> Job:
    """Queue the labelling of the examples of some splits (all when none is named) by a teacher.

    With several `votes` it is asked that often about each, and how far it agrees with itself is kept as confidence.
    With `demonstrations` it is shown reviewed examples too, of the reviews there are now: later ones change no prompt.
    In batch mode it is asked in files, and answers within a day; see core/teacher_batches.py.
    A job that would cost more than its budget stops before that, as `paused_budget`; see core/budgets.py.

    Raises
    ------
    NotFound
        When dataset or prior is unknown.
    InvalidInput
        When there is no example to label.
    """
    request = {
        "name": storable_text(name),
        "teacher": teacher,
        "splits": list(splits),
        "votes": votes,
        "mode": mode,
        "demonstrations": demonstrations
        and _as_asked(pinned(uow.session, demonstrations, tenant_id=tenant_id, dataset_id=dataset_id)),
        "budget_tokens": budget_tokens,
        "budget_usd": budget_usd,
    }
    return _start(uow, tenant_id=tenant_id, dataset_id=dataset_id, prior_id=prior_id, request=request, retry_of=None)


def retry(uow: UnitOfWork, *, tenant_id: str, job_id: str) -> Job:
    """A new job with the request of a failed or cancelled one. What its teacher has answered is not asked again.

    Raises
    ------
    NotFound, Conflict
        As job_store.job_to_retry.
    """
    old = job_to_retry(uow.session, tenant_id=tenant_id, kind=JobKind.ANNOTATION, job_id=job_id)
    if old.prior_id is None:
        raise NotFound(f"job {job_id} names no prior", id=job_id)
    return _start(
        uow,
        tenant_id=tenant_id,
        dataset_id=old.dataset_id,
        prior_id=old.prior_id,
        request=dict(old.request),
        retry_of=old.id,
    )


def _start(
    uow: UnitOfWork,
    *,
    tenant_id: str,
    dataset_id: str,
    prior_id: str,
    request: dict[str, Any],
    retry_of: str | None,
) -> Job:
    dataset_for_job(uow.session, tenant_id=tenant_id, dataset_id=dataset_id)
    _prior(uow.session, tenant_id, prior_id)
    job = add_job(
        uow,
        tenant_id=tenant_id,
        kind=JobKind.ANNOTATION,
        dataset_id=dataset_id,
        prior_id=prior_id,
        request=request,
        retry_of=retry_of,
    )
    budget_usd = request.get("budget_usd")  # jobs of before have none
    job.budget_tokens = request.get("budget_tokens")
    job.budget_nano_usd = None if budget_usd is None else nano_usd(budget_usd)
    items = (
        select(literal(tenant_id), literal(job.id), ExampleRow.position)
        .where(*_chosen(tenant_id, dataset_id, request["splits"]))
        .order_by(ExampleRow.position)
    )
    columns = ["tenant_id", "job_id", "example_position"]
    uow.session.execute(insert(AnnotationRow).from_select(columns, items))
    counted = select(func.count()).where(AnnotationRow.job_id == job.id)
    job.total = uow.session.scalars(counted).one()
    if job.total == 0:
        raise _nothing_chosen(request["splits"])
    return job


def _as_asked(source: DemonstrationSource) -> dict[str, Any]:
    return {
        "source": "reviewed",
        "k": source.k,
        "splits": list(source.splits),
        "reviews_until": source.reviews_until,
    }


def _prior(session: Session, tenant_id: str, prior_id: str) -> PriorRow:
    query = select(PriorRow).where(PriorRow.id == prior_id, PriorRow.tenant_id == tenant_id)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise NotFound(f"no prior {prior_id}", id=prior_id, field="prior_id")
    return found


def _chosen(tenant_id: str, dataset_id: str, splits: Sequence[str]) -> list[Any]:
    chosen = [ExampleRow.tenant_id == tenant_id, ExampleRow.dataset_id == dataset_id]
    return [*chosen, ExampleRow.split.in_(splits)] if splits else chosen


def _nothing_chosen(splits: Sequence[str]) -> InvalidInput:
    where = f"the splits {', '.join(splits)}" if splits else "the dataset"
    return InvalidInput(f"there is no example in {where}", field="splits")
