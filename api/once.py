"""Creating requests: what they answer, and the same answer again for the same Idempotency-Key."""

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from api.deps import Writer, Writing
from core import idempotency
from core.db.session import UnitOfWork
from core.idempotency import Answer

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Yours to choose, once a request: the same request sent again is answered, not carried out, again.",
    ),
]
Create = Callable[[Callable[[], Answer]], Response]


def created(view: BaseModel, location: str, status: int = HTTPStatus.CREATED) -> Answer:
    """The answer of a request that made something which can be found at `location`."""
    return Answer(int(status), view.model_dump_json(), {"Location": location})


def identity(request: Request) -> bytes:
    """What makes a request what it is, but for its body: method, path and query."""
    return f"{request.method} {request.url.path}?{request.url.query}\n".encode()


def answer_once(
    uow: UnitOfWork, *, tenant_id: str, key: str | None, request_sha256: str, effect: Callable[[], Answer]
) -> Response:
    """Run `effect`, or repeat what a request with the same key was answered. Raises as core.idempotency.once."""
    if key is None:
        answer = effect()
    else:
        answer = idempotency.once(uow, tenant_id=tenant_id, key=key, request_sha256=request_sha256, effect=effect)
    headers = answer.headers | ({"Idempotent-Replayed": "true"} if answer.replayed else {})
    return Response(answer.body, answer.status, headers, "application/json")


async def _request_sha256(request: Request) -> str:
    return hashlib.sha256(identity(request) + await request.body()).hexdigest()


def _once(
    uow: Writing, me: Writer, request_sha256: Annotated[str, Depends(_request_sha256)], key: IdempotencyKey = None
) -> Create:
    def run(effect: Callable[[], Answer]) -> Response:
        return answer_once(uow, tenant_id=me.tenant_id, key=key, request_sha256=request_sha256, effect=effect)

    return run


Once = Annotated[Create, Depends(_once, scope="function")]
