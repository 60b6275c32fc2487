"""The routes that both kinds of jobs have: list, show, cancel, repeat, delete, follow."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

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
from core import job_store
from core.db.models import Job
from core.db.session import UnitOfWork
from core.jobs import JobKind


class Retry(Protocol):
    """The use case that repeats a job of one kind."""

    def __call__(self, uow: UnitOfWork, *, tenant_id: str, job_id: str) -> Job:
        """The new job."""


@dataclass(frozen=True, slots=True)
class Descriptions:
    """What the API documentation says of each route, where the kinds of jobs differ."""

    show: str
    cancel: str
    retry: str
    delete: str
    events: str
    with_labels: str = ""  # what else is deleted, in the summary


def add_job_routes(router: APIRouter, kind: JobKind, *, retry: Retry, says: Descriptions) -> None:
    """Give `router` the routes of jobs of one kind that do not depend on what the jobs do."""
    job = f"{kind} job"
    a_job = f"{'an' if kind is JobKind.ANNOTATION else 'a'} {job}"

    @router.get("", name=f"list_{kind}_jobs", summary=f"List {job}s, newest first")
    def list_jobs(
        session: Reading, me: Reader, state: State = None, limit: Limit = 50, cursor: Cursor = None
    ) -> Page[JobView]:
        """In pages."""
        after = after_id(cursor, f"{kind}-jobs")
        rows = job_store.list_jobs(
            session, tenant_id=me.tenant_id, kind=kind, after=after, limit=limit + 1, state=state
        )
        return listed(rows, limit, kind)

    @router.get(
        "/{job_id}",
        name=f"get_{kind}_job",
        response_model=JobView,
        summary=f"Show {a_job}",
        description=says.show,
        responses=NOT_MODIFIED | documented(404),
    )
    def get_job(job_id: PathId, session: Reading, me: Reader, if_none_match: IfNoneMatch = None) -> Response:
        return shown(job_store.get_job(session, tenant_id=me.tenant_id, kind=kind, job_id=job_id), if_none_match)

    @router.post(
        "/{job_id}/cancel",
        name=f"cancel_{kind}_job",
        summary=f"Cancel {a_job}",
        description=says.cancel,
        responses=documented(404, 409),
    )
    def cancel_job(job_id: PathId, uow: Writing, me: Writer) -> JobView:
        return job_view(job_store.cancel_job(uow, tenant_id=me.tenant_id, kind=kind, job_id=job_id))

    @router.post(
        "/{job_id}/retry",
        name=f"retry_{kind}_job",
        status_code=HTTPStatus.ACCEPTED,
        response_model=JobView,
        summary=f"Repeat a failed or cancelled {job}",
        description=says.retry,
        responses=documented(404, 409),
    )
    def retry_job(job_id: PathId, uow: Writing, me: Writer, once: Once) -> Response:
        return once(lambda: accepted(retry(uow, tenant_id=me.tenant_id, job_id=job_id)))

    @router.delete(
        "/{job_id}",
        name=f"delete_{kind}_job",
        status_code=HTTPStatus.NO_CONTENT,
        summary=f"Delete a finished {job}{says.with_labels}",
        description=says.delete,
        responses=documented(404, 409),
    )
    def delete_job(job_id: PathId, uow: Writing, me: Writer) -> None:
        job_store.delete_job(uow, tenant_id=me.tenant_id, kind=kind, job_id=job_id)

    @router.get(
        "/{job_id}/events",
        name=f"{kind}_job_events",
        response_model=Page[EventView],
        summary=f"What happened to {a_job}",
        description=says.events,
        responses=events.STREAM | documented(404),
    )
    async def job_events(
        job_id: PathId,
        request: Request,
        services: InUse,
        streams: Streams,
        me: Reader,
        limit: Limit = 50,
        cursor: Cursor = None,
        last_event_id: events.LastEventId = None,
    ) -> Any:
        if events.wants_stream(request):
            return await events.stream(streams, me, kind, job_id, last_event_id)
        return await to_thread.run_sync(events.page, services.database, me, kind, job_id, limit, cursor)
