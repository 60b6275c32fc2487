"""Jobs and their events on the wire."""

from typing import Any

from pydantic import BaseModel, Field

from api.schemas.fields import Moment
from core.db.models import Job, JobEvent
from core.domain.lifecycle import JobState
from core.domain.spending import usd
from core.jobs import JobKind

PATHS = {JobKind.ANNOTATION: "/v1/annotation-jobs", JobKind.TRAINING: "/v1/training-jobs"}


class Counts(BaseModel):
    """How far a job is: items of an annotation job, optimiser steps of a training job."""

    total: int = Field(examples=[6400])
    done: int = Field(examples=[1200])
    outcomes: dict[str, int] = Field(
        {}, description="Items by outcome; they add up to `done`.", examples=[{"labelled": 1190, "empty": 10}]
    )


class JobErrorView(BaseModel):
    """Why a job failed."""

    model_config = {"extra": "allow"}

    code: str = Field(examples=["teacher_unreachable"])
    message: str


class JobView(BaseModel):
    """A job."""

    id: str = Field(examples=["an_01jd8x3v5zq6m8k2c4r7t9w0ab"])
    kind: JobKind
    state: JobState
    name: str
    dataset_id: str
    prior_id: str | None = Field(description="Of an annotation job.")
    retry_of: str | None = Field(description="The job that this one repeats.")
    request: dict[str, Any] = Field(description="What was asked for, defaults written out.")
    labels_sha256: str | None = Field(description="Of a training job: the labels it is pinned to.")
    counts: Counts
    progress: dict[str, Any] = Field(
        description="`fraction` (0 to 1) and `eta_seconds`, where known, beside the newest figures of the worker. "
        "Of an annotation job also what its calls have cost, and what is set aside for those in flight; in batch mode "
        "`batches`: how many are open, with how many questions and how many of them answered, and how many ended.",
        examples=[{"fraction": 0.19, "eta_seconds": 41.5, "token_loss": 0.31, "mass": 0.72}],
    )
    result: dict[str, Any] | None = Field(description="Of a job that succeeded.", examples=[{"adapter_id": "ad_01jd"}])
    error: JobErrorView | None = Field(description="Of a job that failed.")
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    links: dict[str, str] = Field(examples=[{"self": "/v1/annotation-jobs/an_01jd"}])


class EventView(BaseModel):
    """Something that happened to a job."""

    id: int = Field(description="Rises; also the Last-Event-ID of the stream.", examples=[42])
    type: str = Field(examples=["step"])
    at: Moment
    data: dict[str, Any]


def job_view(job: Job) -> JobView:
    """A job as shown."""
    kind = JobKind(job.kind)
    progress = {name: value for name, value in job.progress.items() if name != "outcomes"}
    fraction = 1.0 if job.state == JobState.SUCCEEDED else min(job.done / job.total, 1.0) if job.total else 0.0
    return JobView(
        id=job.id,
        kind=kind,
        state=JobState(job.state),
        name=job.request.get("name", ""),
        dataset_id=job.dataset_id,
        prior_id=job.prior_id,
        retry_of=job.retry_of,
        request=_request(job),
        labels_sha256=job.labels_sha256,
        counts=Counts(total=job.total, done=job.done, outcomes=_outcomes(job)),
        progress={"eta_seconds": None, **progress, "fraction": round(fraction, 4), **_spending(job, kind)},
        result=job.result,
        error=None if job.error is None else JobErrorView(**job.error),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links=_links(job, kind),
    )


def event_view(event: JobEvent) -> EventView:
    """An event as shown."""
    return EventView(id=event.id, type=event.type, at=event.at, data=event.data)


def _request(job: Job) -> dict[str, Any]:
    """What was asked for; where a base model lies on our disks is nobody's business."""
    shown = {name: value for name, value in job.request.items() if name not in ("name", "base")}
    base = job.request.get("base")
    return shown if base is None else {"base_model": base["name"], "base_revision": base["revision"], **shown}


def _spending(job: Job, kind: JobKind) -> dict[str, Any]:
    if kind is not JobKind.ANNOTATION:
        return {}
    return {
        "budget_tokens": job.budget_tokens,
        "budget_usd": None if job.budget_nano_usd is None else usd(job.budget_nano_usd),
        "spent_tokens": job.spent_tokens,
        "spent_usd": usd(job.spent_nano_usd),
        "reserved_tokens": job.reserved_tokens,
        "reserved_usd": usd(job.reserved_nano_usd),
    }


def _outcomes(job: Job) -> dict[str, int]:
    found: dict[str, int] = (job.result or {}).get("outcomes") or job.progress.get("outcomes", {})
    return found


def _links(job: Job, kind: JobKind) -> dict[str, str]:
    here = f"{PATHS[kind]}/{job.id}"
    links = {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel", "retry": f"{here}/retry"}
    if kind is JobKind.ANNOTATION:
        links |= {
            "budget": f"{here}/budget",
            "export": f"{here}/export",
            "annotations": f"/v1/annotations?job_id={job.id}",
        }
    adapter_id = (job.result or {}).get("adapter_id")
    return links | ({"adapter": f"/v1/adapters/{adapter_id}"} if adapter_id else {})
