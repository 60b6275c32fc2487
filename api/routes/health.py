"""For operators: is it alive, can it work, what has it done. Outside of /v1, without a key."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from api.deps import InUse
from api.errors import documented
from api.metrics import Metrics
from core.db.health import answers, jobs_by_state
from core.errors import Unavailable

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """All is well."""

    status: str = Field("ok", examples=["ok"])


@router.get("/healthz", summary="Whether the process is alive")
async def healthz() -> Health:
    """Asks nobody: a process that answers is alive, even when its database is not."""
    return Health()


@router.get("/readyz", summary="Whether requests can be served", responses=documented(503))
def readyz(services: InUse) -> Health:
    """Asks the database and the broker."""
    try:
        with services.database.reading() as session:
            answers(session)
    except Unavailable as exc:
        raise Unavailable(exc.message, what="database") from exc
    try:
        services.reach_broker()
    except Unavailable as exc:
        raise Unavailable(exc.message, what="broker") from exc
    return Health()


@router.get("/metrics", response_class=Response, summary="Figures for Prometheus", responses=documented(503))
def metrics(request: Request, services: InUse) -> Response:
    """Requests, latencies, jobs by state. No tenant, no text."""
    found: Metrics = request.app.state.metrics
    with services.database.reading() as session:
        jobs = jobs_by_state(session)
    return Response(found.exposition(jobs), media_type=CONTENT_TYPE_LATEST)
