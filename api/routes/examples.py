"""The examples of a dataset: posted as a stream of lines, read in pages."""

from functools import partial
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from api.deps import InUse, Reader, Reading, Services, Writer
from api.errors import documented
from api.example_lines import LineReader
from api.lines import Lines
from api.once import IdempotencyKey, answer_once, created, identity
from api.pages import Cursor, Page, ShortLimit, after_number, page_of
from api.schemas.datasets import ExampleView, UploadView, example_view
from api.schemas.fields import PathId, Split
from api.uploads import Upload, receive
from core import datasets
from core.errors import InvalidInput
from core.idempotency import Answer
from core.keys import Principal

router = APIRouter(prefix="/v1/datasets/{dataset_id}/examples", tags=["examples"])

_NDJSON: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-ndjson": {
                "schema": {"$ref": "#/components/schemas/ExampleIn"},
                "examples": {
                    "two": {"value": '{"id": "1", "input": "1 + 1 = ", "target": "2"}\n{"input": "a", "target": "b"}\n'}
                },
            }
        },
    }
}


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=UploadView,
    summary="Add examples",
    openapi_extra=_NDJSON,
    responses=documented(404, 409, 413),
)
async def add_examples(
    dataset_id: PathId,
    request: Request,
    services: InUse,
    me: Writer,
    split: Annotated[Split, Query(description="What they are for.", examples=["train"])] = "train",
    extra: Annotated[
        Literal["refuse", "ignore"], Query(description="What to do with fields we do not know.")
    ] = "refuse",
    key: IdempotencyKey = None,
) -> Response:
    """One JSON object a line, of any number of lines; `Content-Encoding: gzip` is understood.

    All lines are checked before the first is stored, and all are stored or none: an error names its line. An `id` that
    exists is a no-op when the content is equal, and a conflict when it is not. Relations are given as spans of
    `input + target` in code points, or in words as `important`, which are then looked for in the text.
    """
    digest = sha256(identity(request))
    lines = Lines(services.settings.limits, gzipped=_gzipped(request))
    reader = LineReader(split, most_relations=services.settings.limits.relations_per_example, loose=extra == "ignore")
    with Upload(lines, reader, services.settings.storage.spool) as upload:
        find = partial(_check_dataset, services, me, dataset_id)  # before a long upload, not after it
        await receive(request, upload, digest.update, first=find)
        store = partial(_store, services, me, dataset_id, split, upload, key, digest.hexdigest())
        return await to_thread.run_sync(store)


@router.get("", summary="List examples", responses=documented(404))
def list_examples(
    dataset_id: PathId,
    session: Reading,
    me: Reader,
    split: Annotated[Split | None, Query(description="Only those of this split.")] = None,
    limit: ShortLimit = 50,
    cursor: Cursor = None,
) -> Page[ExampleView]:
    """In the order in which they were posted."""
    rows = datasets.list_examples(
        session,
        tenant_id=me.tenant_id,
        dataset_id=dataset_id,
        split=split,
        after=after_number(cursor, "examples"),
        limit=limit + 1,
    )
    return page_of(rows, limit, "examples", lambda row: row.position, example_view)


def _check_dataset(services: Services, me: Principal, dataset_id: str) -> None:
    with services.database.reading() as session:
        datasets.get(session, tenant_id=me.tenant_id, dataset_id=dataset_id)


def _store(
    services: Services,
    me: Principal,
    dataset_id: str,
    split: str,
    upload: Upload,
    key: str | None,
    request_sha256: str,
) -> Response:
    def effect() -> Answer:
        added = datasets.add_examples(
            uow, tenant_id=me.tenant_id, dataset_id=dataset_id, split=split, rows=upload.examples()
        )
        view = UploadView(
            stored=added.stored,
            unchanged=added.unchanged,
            relations=upload.relations,
            unresolved=dict(upload.unresolved),
            malformed=upload.malformed,
        )
        return created(view, f"/v1/datasets/{dataset_id}/examples?split={split}")

    with services.database.transaction() as uow:
        return answer_once(uow, tenant_id=me.tenant_id, key=key, request_sha256=request_sha256, effect=effect)


def _gzipped(request: Request) -> bool:
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("gzip", "identity"):
        raise InvalidInput("Content-Encoding: only gzip is understood", field="Content-Encoding")
    return encoding == "gzip"
