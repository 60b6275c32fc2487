"""Annotation jobs."""

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from api.annotation_plan import plan_view
from api.deps import InUse, Reader, Services, Writer, Writing
from api.errors import documented
from api.job_answers import accepted
from api.job_routes import Descriptions, add_job_routes
from api.once import Once
from api.schemas.annotations import AnnotationJobIn, AnnotationPlanView, BudgetIn
from api.schemas.fields import PathId, Split
from api.schemas.jobs import JobView, job_view
from core import annotations, budgets, labelled_items, reviews
from core.db.session import Session
from core.domain.annotation import Mode, TeacherConfig
from core.domain.spending import in_batches, nano_usd
from core.errors import InvalidInput
from core.jobs import JobKind
from core.keys import Principal
from core.labels import DemonstrationSource, pinned
from core.settings import Settings

router = APIRouter(prefix="/v1/annotation-jobs", tags=["annotation jobs"])

_CHUNK = 1 << 16  # bytes
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Lines of {id, input, target, choices, relations}.", "content": {"application/x-ndjson": {}}}
}


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=JobView,
    summary="Label examples with a teacher",
    responses={HTTPStatus.OK: {"model": AnnotationPlanView, "description": "The plan, for a dry run."}}
    | documented(404, 409),
)
def create_annotation_job(body: AnnotationJobIn, services: InUse, uow: Writing, me: Writer, once: Once) -> Response:
    """Queues a job and answers 202 with its Location; with `dry_run` only answers what it would do."""
    teacher = _teacher(services.settings, body.teacher)
    _check(body, teacher)
    if body.dry_run:
        return Response(_plan(uow.session, me, body, teacher).model_dump_json(), media_type="application/json")
    submit = partial(
        annotations.submit,
        uow,
        tenant_id=me.tenant_id,
        dataset_id=body.dataset_id,
        prior_id=body.prior_id,
        teacher=body.teacher,
        splits=body.splits,
        votes=body.votes,
        mode=body.mode,
        demonstrations=_source(body),
        budget_tokens=body.budget_tokens,
        budget_usd=body.budget_usd,
        name=body.name,
    )
    return once(lambda: accepted(submit()))


add_job_routes(
    router,
    JobKind.ANNOTATION,
    retry=annotations.retry,
    says=Descriptions(
        show="State, counts by outcome, progress; with an ETag, and Retry-After while it is not finished.",
        cancel="Labels so far are kept. What a worker holds stops at its next heartbeat; asking again is harmless.",
        retry="A new job with the same request. What the teacher has answered is not asked, or paid for, again.",
        delete="Trainings that used the labels keep their adapters.",
        events="In pages, or as a stream.",
        with_labels=" with its labels",
    ),
)


@router.post("/{job_id}/budget", summary="Change the budget of an annotation job", responses=documented(404, 409))
def change_annotation_budget(job_id: PathId, body: BudgetIn, uow: Writing, me: Writer) -> JobView:
    """A job that was paused because it had spent its budget goes on. Not below what is spent or set aside already."""
    usd = None if body.budget_usd is None else nano_usd(body.budget_usd)
    job = budgets.change_budget(uow, tenant_id=me.tenant_id, job_id=job_id, tokens=body.budget_tokens, nano_usd=usd)
    return job_view(job)


@router.get(
    "/{job_id}/export",
    response_class=Response,
    summary="Export the labels of an annotation job",
    responses=_LINES | documented(404),
)
def export_annotation_job(
    job_id: PathId,
    services: InUse,
    me: Reader,
    split: Annotated[Split | None, Query(description="Only examples of this split.")] = None,
) -> StreamingResponse:
    """One example a line, as `POST /v1/datasets/{id}/examples` takes them."""
    return StreamingResponse(_in_chunks(_spooled(services, me, job_id, split)), media_type="application/x-ndjson")


def _teacher(settings: Settings, name: str) -> TeacherConfig:
    config = settings.teacher(name)
    if config is None:
        known = sorted(settings.teachers)
        raise InvalidInput(f"there is no teacher {name!r}; known are {', '.join(known)}", field="teacher", known=known)
    return config


def _check(body: AnnotationJobIn, teacher: TeacherConfig) -> None:
    """Refuse what the teacher cannot do."""
    if body.votes > 1 and teacher.kind == "rule":
        raise InvalidInput("rules always say the same: leave votes out, or name another teacher", field="votes")
    if body.budget_usd is not None and not (teacher.prompt_price or teacher.completion_price):
        raise InvalidInput(f"teacher {teacher.name!r} has no prices: bound its tokens instead", field="budget_usd")
    if body.demonstrations is not None and teacher.kind == "rule":
        raise InvalidInput("rules read no demonstrations: leave them out, or name a teacher", field="demonstrations")
    if body.mode is Mode.BATCH and teacher.kind == "rule":
        raise InvalidInput("rules answer at once: leave mode out, or name another teacher", field="mode")
    if body.mode is Mode.BATCH and body.votes > 1:
        raise InvalidInput("a batch asks once about each example: leave votes out, or use mode live", field="votes")


def _source(body: AnnotationJobIn) -> DemonstrationSource | None:
    asked = body.demonstrations
    return None if asked is None else DemonstrationSource(asked.k, tuple(asked.splits))


def _plan(session: Session, me: Principal, body: AnnotationJobIn, teacher: TeacherConfig) -> AnnotationPlanView:
    where = {"tenant_id": me.tenant_id, "dataset_id": body.dataset_id}
    plan = annotations.plan(session, **where, prior_id=body.prior_id, splits=body.splits)
    teacher = in_batches(teacher) if body.mode is Mode.BATCH else teacher
    source = _source(body)
    if source is None:
        return plan_view(plan, teacher, votes=body.votes)
    shown = reviews.for_demonstrations(session, **where, source=pinned(session, source, **where))
    return plan_view(plan, teacher, votes=body.votes, k=source.k, shown=shown)


def _spooled(services: Services, me: Principal, job_id: str, split: str | None) -> IO[bytes]:
    """The export in a file of its own: a client that reads slowly must not hold a database connection."""
    folder = services.settings.storage.spool
    folder.mkdir(parents=True, exist_ok=True)
    with services.database.reading() as session:
        lines = labelled_items.export(session, tenant_id=me.tenant_id, job_id=job_id, split=split)
        spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by _in_chunks)
        for line in lines:
            spool.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    spool.seek(0)
    return spool


def _in_chunks(spool: IO[bytes]) -> Iterator[bytes]:
    with spool:
        while chunk := spool.read(_CHUNK):
            yield chunk
