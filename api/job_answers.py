"""Jobs of either kind as responses: versioned, so that polling is cheap and polite."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Header, Query, Response

from api.once import created
from api.pages import Page, page_of
from api.schemas.jobs import PATHS, JobView, job_view
from core.db.models import Job
from core.domain.lifecycle import TERMINAL, JobState
from core.idempotency import Answer
from core.jobs import JobKind

IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="The ETag of the answer you have.")]
State = Annotated[JobState | None, Query(description="Only jobs in this state.")]

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as it was."}}

_RETRY_AFTER = "1"  # seconds


def shown(job: Job, if_none_match: str | None) -> Response:
    """A job with its ETag, or 304 when the client has it; Retry-After while it is not finished."""
    headers = {"ETag": f'"{job.version}"', "Cache-Control": "no-cache"}
    if JobState(job.state) not in TERMINAL:
        headers["Retry-After"] = _RETRY_AFTER
    if matches(if_none_match, headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(job_view(job).model_dump_json(), headers=headers, media_type="application/json")


def accepted(job: Job) -> Answer:
    """The answer of a request that queued a job."""
    answer = created(job_view(job), f"{PATHS[JobKind(job.kind)]}/{job.id}", HTTPStatus.ACCEPTED)
    answer.headers["Retry-After"] = _RETRY_AFTER
    return answer


def listed(rows: list[Job], limit: int, kind: JobKind) -> Page[JobView]:
    """A page of jobs."""
    return page_of(rows, limit, f"{kind}-jobs", lambda job: job.id, job_view)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag` (RFC 9110, weak comparison)."""
    named = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in named or "*" in named
