"""GET .../events of either kind of job: a page of JSON, or a stream to whoever asks for one."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Header, Request, Response
from fastapi.responses import StreamingResponse

from api.event_stream import EventStreams, Place
from api.pages import HIGHEST, Page, after_number, page_of
from api.schemas.jobs import EventView, event_view
from core.db.session import Database
from core.errors import InvalidInput
from core.job_store import events_after, get_job
from core.jobs import JobKind
from core.keys import Principal

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Of a stream: go on after this event.", max_length=19)
]
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page, or a stream when `Accept: text/event-stream` asks for one.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "Of a stream: the job has ended and there is nothing after Last-Event-ID."},
}


def wants_stream(request: Request) -> bool:
    """Whether the client asks for server-sent events."""
    return "text/event-stream" in request.headers.get("Accept", "")


async def stream(
    streams: EventStreams, me: Principal, kind: JobKind, job_id: str, last_event_id: str | None
) -> Response:
    """The events after `last_event_id` as they happen; 204, which tells a browser to stop, when there are no more."""
    seen = last_event_id or "0"
    if not (seen.isascii() and seen.isdigit() and int(seen) <= HIGHEST):
        raise InvalidInput("Last-Event-ID is the number of an event", field="Last-Event-ID")
    place = Place(me.tenant_id, kind, job_id, int(seen))
    news = await streams.news(place)
    if news.ended and not news.count:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(streams.follow(place), media_type="text/event-stream", headers=headers)


def page(
    database: Database, me: Principal, kind: JobKind, job_id: str, limit: int, cursor: str | None
) -> Page[EventView]:
    """The next events of a job, in order."""
    after = after_number(cursor, "events")
    with database.reading() as session:
        get_job(session, tenant_id=me.tenant_id, kind=kind, job_id=job_id)
        rows = events_after(session, tenant_id=me.tenant_id, job_id=job_id, after=after, limit=limit + 1)
    return page_of(rows, limit, "events", lambda event: event.id, event_view)
