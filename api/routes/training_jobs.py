"""Training jobs."""

from functools import partial
from http import HTTPStatus
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from api import events
from api.deps import InUse, Reader, Reading, Streams, Writer, Writing
from api.errors import documented
from api.job_answers import NOT_MODIFIED, IfNoneMatch, State, accepted, listed, shown
from api.once import Once
from api.pages import Cursor, Limit, Page, after_id
from api.schemas.fields import PathId
from api.schemas.jobs import EventView, JobView, job_view
from api.schemas.trainings import TrainingJobIn
from core import job_store, trainings
from core.domain.run_folder import BaseModelSpec
from core.domain.training import TrainingConfig, training_from_json
from core.errors import InvalidInput
from core.jobs import JobKind
from core.labels import LabelSource
from core.settings import Settings

router = APIRouter(prefix="/v1/training-jobs", tags=["training jobs"])

_KIND = JobKind.TRAINING


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=JobView,
    summary="Fine-tune a base model",
    responses=documented(404, 409),
)
def create_training_job(body: TrainingJobIn, services: InUse, uow: Writing, me: Writer, once: Once) -> Response:
    """Queues a job and answers 202 with its Location. With `dry_run` the job stops after planning."""
    submit = partial(
        trainings.submit,
        uow,
        tenant_id=me.tenant_id,
        dataset_id=body.dataset_id,
        base=_base_model(services.settings, body.base_model),
        config=_config(services.settings, body.config),
        labels=LabelSource(tuple(body.labels.annotation_jobs)),
        train_split=body.train_split,
        eval_splits=body.eval_splits,
        dry_run=body.dry_run,
        name=body.name,
    )
    return once(lambda: accepted(submit()))


@router.get("", summary="List training jobs, newest first")
def list_training_jobs(
    session: Reading, me: Reader, state: State = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[JobView]:
    """In pages."""
    after = after_id(cursor, f"{_KIND}-jobs")
    rows = job_store.list_jobs(session, tenant_id=me.tenant_id, kind=_KIND, after=after, limit=limit + 1, state=state)
    return listed(rows, limit, _KIND)


@router.get(
    "/{job_id}", response_model=JobView, summary="Show a training job", responses=NOT_MODIFIED | documented(404)
)
def get_training_job(job_id: PathId, session: Reading, me: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """State, steps, newest metrics, time left; with an ETag, and Retry-After while it is not finished."""
    return shown(job_store.get_job(session, tenant_id=me.tenant_id, kind=_KIND, job_id=job_id), if_none_match)


@router.post("/{job_id}/cancel", summary="Cancel a training job", responses=documented(404, 409))
def cancel_training_job(job_id: PathId, uow: Writing, me: Writer) -> JobView:
    """What a worker holds stops at its next heartbeat, without an adapter; asking again is harmless."""
    return job_view(job_store.cancel_job(uow, tenant_id=me.tenant_id, kind=_KIND, job_id=job_id))


@router.post(
    "/{job_id}/retry",
    status_code=HTTPStatus.ACCEPTED,
    response_model=JobView,
    summary="Repeat a failed or cancelled training job",
    responses=documented(404, 409),
)
def retry_training_job(job_id: PathId, uow: Writing, me: Writer, once: Once) -> Response:
    """A new job with the same request and the same pinned labels."""
    return once(lambda: accepted(trainings.retry(uow, tenant_id=me.tenant_id, job_id=job_id)))


@router.delete(
    "/{job_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete a finished training job",
    responses=documented(404, 409),
)
def delete_training_job(job_id: PathId, uow: Writing, me: Writer) -> None:
    """With its events. Its adapter stays."""
    job_store.delete_job(uow, tenant_id=me.tenant_id, kind=_KIND, job_id=job_id)


@router.get(
    "/{job_id}/events",
    response_model=Page[EventView],
    summary="What happened to a training job",
    responses=events.STREAM | documented(404),
)
async def training_job_events(
    job_id: PathId,
    request: Request,
    services: InUse,
    streams: Streams,
    me: Reader,
    limit: Limit = 50,
    cursor: Cursor = None,
    last_event_id: events.LastEventId = None,
) -> Any:
    """Plan, steps, evaluations, states: in pages, or as a stream."""
    if events.wants_stream(request):
        return await events.stream(streams, me, _KIND, job_id, last_event_id)
    return await to_thread.run_sync(events.page, services.database, me, _KIND, job_id, limit, cursor)


def _base_model(settings: Settings, name: str) -> BaseModelSpec:
    found = settings.base_model(name)
    if found is None:
        known = sorted(settings.base_models)
        raise InvalidInput(
            f"there is no base model {name!r}; known are {', '.join(known)}", field="base_model", known=known
        )
    return found


def _config(settings: Settings, sent: dict[str, Any]) -> TrainingConfig:
    config = training_from_json(sent)
    limit = settings.limits.epochs
    if config.epochs > limit:
        raise InvalidInput(f"config.epochs: at most {limit} are allowed here", field="config.epochs", limit=limit)
    return config
