"""Finished adapters and their archives."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from api.byte_ranges import ByteRange, parse_range
from api.deps import InUse, Reader, Reading, Services, Writer
from api.errors import documented
from api.job_answers import NOT_MODIFIED, IfNoneMatch, matches
from api.pages import Cursor, Limit, Page, after_id, page_of
from api.schemas.adapters import AdapterView, adapter_view
from api.schemas.fields import PathId
from core import adapters
from core.db.models import Adapter
from core.keys import Principal

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])

_CHUNK = 1 << 16  # bytes
_ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A tar.gz: the adapter, its tokenizer, card and manifest.",
        "content": {"application/gzip": {}},
    },
    206: {"description": "The part that `Range` asked for.", "content": {"application/gzip": {}}},
}
Range = Annotated[str | None, Header(alias="Range", description="One range of bytes.", examples=["bytes=1000-"])]
IfRange = Annotated[str | None, Header(alias="If-Range", description="The ETag that `Range` belongs to.")]


@router.get("", summary="List adapters, newest first")
def list_adapters(session: Reading, me: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[AdapterView]:
    """In pages."""
    after = after_id(cursor, "adapters")
    rows = adapters.list_adapters(session, tenant_id=me.tenant_id, after=after, limit=limit + 1)
    return page_of(rows, limit, "adapters", lambda adapter: adapter.id, adapter_view)


@router.get("/{adapter_id}", summary="Show an adapter", responses=documented(404))
def get_adapter(adapter_id: PathId, session: Reading, me: Reader) -> AdapterView:
    """With its metrics and the sum of its archive."""
    return adapter_view(adapters.get(session, tenant_id=me.tenant_id, adapter_id=adapter_id))


@router.get(
    "/{adapter_id}/download",
    response_class=Response,
    summary="Download an adapter",
    responses=_ARCHIVE | NOT_MODIFIED | documented(404, 416),
)
def download_adapter(
    adapter_id: PathId,
    services: InUse,
    me: Reader,
    if_none_match: IfNoneMatch = None,
    wanted: Range = None,
    if_range: IfRange = None,
) -> Response:
    """The archive was built once, so its bytes never change; the ETag is its SHA-256."""
    adapter = _find(services, me, adapter_id)
    headers = _headers(adapter)
    if matches(if_none_match, headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    part = parse_range(wanted, adapter.size) if if_range in (None, headers["ETag"]) else None
    span = part or ByteRange(0, adapter.size)
    headers["Content-Length"] = str(span.end - span.start)
    if part is not None:
        headers["Content-Range"] = part.content_range(adapter.size)
    file, _ = adapters.open_archive(services.blobs, adapter)
    status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
    return StreamingResponse(_read(file, span), status, headers, "application/gzip")


@router.head(
    "/{adapter_id}/download",
    response_class=Response,
    summary="Size and sum of an adapter's archive",
    responses=documented(404),
)
def head_adapter(adapter_id: PathId, services: InUse, me: Reader) -> Response:
    """As the download, without the bytes."""
    adapter = _find(services, me, adapter_id)
    headers = _headers(adapter) | {"Content-Length": str(adapter.size)}
    return Response(headers=headers, media_type="application/gzip")


@router.delete(
    "/{adapter_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete an adapter with its archive",
    responses=documented(404),
)
def delete_adapter(adapter_id: PathId, services: InUse, me: Writer) -> None:
    """The job that made it stays."""
    with services.database.transaction() as uow:
        key = adapters.remove(uow, tenant_id=me.tenant_id, adapter_id=adapter_id)
    # After the commit: a file without a row is swept up later, a row without a file would be a lie.
    services.blobs.delete(key)


def _find(services: Services, me: Principal, adapter_id: str) -> Adapter:
    with services.database.reading() as session:
        return adapters.get(session, tenant_id=me.tenant_id, adapter_id=adapter_id)


def _headers(adapter: Adapter) -> dict[str, str]:
    return {
        "ETag": f'"{adapter.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{adapter.id}.tar.gz"',
    }


def _read(file: BinaryIO, span: ByteRange) -> Iterator[bytes]:
    with file:
        file.seek(span.start)
        left = span.end - span.start
        while left and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk
