"""Training jobs."""

from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response

from api.deps import InUse, Writer, Writing
from api.errors import documented
from api.job_answers import accepted
from api.job_routes import Descriptions, add_job_routes
from api.once import Once
from api.schemas.jobs import JobView
from api.schemas.trainings import TrainingJobIn
from core import trainings
from core.domain.run_folder import BaseModelSpec
from core.domain.training import TrainingConfig, training_from_json
from core.errors import InvalidInput
from core.jobs import JobKind
from core.labels import LabelSource
from core.settings import Settings

router = APIRouter(prefix="/v1/training-jobs", tags=["training jobs"])


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


add_job_routes(
    router,
    JobKind.TRAINING,
    retry=trainings.retry,
    says=Descriptions(
        show="State, steps, newest metrics, time left; with an ETag, and Retry-After while it is not finished.",
        cancel="What a worker holds stops at its next heartbeat, without an adapter; asking again is harmless.",
        retry="A new job with the same request and the same pinned labels.",
        delete="With its events. Its adapter stays.",
        events="Plan, steps, evaluations, states: in pages, or as a stream.",
    ),
)


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
