"""The application: built from its services by a function, with nothing global."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi

from api import errors
from api.access_log import AccessLog
from api.body_limit import BodyLimit
from api.deps import Services
from api.errors import Problem, documented
from api.event_stream import EventStreams
from api.metrics import Metrics
from api.routes import (
    adapters,
    annotation_jobs,
    annotations,
    datasets,
    examples,
    health,
    priors,
    quality,
    reviews,
    training_jobs,
)
from api.schemas.datasets import ExampleIn
from core.db.session import Database
from core.settings import Settings
from core.storage import BlobStore

_ABOUT = """Raw data in, causal labels from a teacher, Causal Attention Tuning, a LoRA adapter out.

Every request needs `Authorization: Bearer cw_...`. Errors are problems (RFC 9457) whose `code` is for programs. Lists
come in pages: pass `next` as `cursor`. A creating request with an `Idempotency-Key` may be sent again without harm."""


def create_app(
    settings: Settings, database: Database, *, blobs: BlobStore, reach_broker: Callable[[], None] = lambda: None
) -> FastAPI:
    """The API over a database that is up to date.

    Parameters
    ----------
    database
        Publishes the nudges of what is submitted, see core.db.session.Database. Closed by whoever made it.
    reach_broker
        Raises core.errors.Unavailable when nudges cannot be sent now; asked by /readyz.
    """
    app = FastAPI(title="Causeway", version=version("causeway"), description=_ABOUT, lifespan=_lifespan, redoc_url=None)
    app.state.services = Services(settings, database, blobs, reach_broker)
    app.state.metrics = Metrics()
    errors.install(app)
    for module in (datasets, examples, priors, annotation_jobs, quality, annotations, reviews, training_jobs, adapters):
        app.include_router(module.router, responses=documented(401, 403, 422, 503))
    app.include_router(health.router)
    app.add_middleware(BodyLimit, limit=settings.limits.body_bytes)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["ETag", "Location", "Retry-After", "X-Request-Id", "Idempotent-Replayed"],
        )
    app.add_middleware(AccessLog, metrics=app.state.metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.streams = EventStreams(app.state.services.database)
    watcher = asyncio.create_task(app.state.streams.watch())
    yield
    watcher.cancel()
    with suppress(asyncio.CancelledError):
        await watcher  # one that has died says so here


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document with the schemas that no signature mentions: problems, and the lines of an upload."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=None
        )
        reference = "#/components/schemas/{model}"
        schemas = document["components"]["schemas"]
        for model in (Problem, ExampleIn):
            schema = model.model_json_schema(ref_template=reference)
            schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
        app.openapi_schema = document
    return app.openapi_schema
