"""Errors as RFC 9457 problems: every error of ours has a status here, and none tells more than its facts."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.byte_ranges import RangeNotSatisfiable
from core import errors
from core.db.text import storable
from core.errors import CausewayError

PROBLEM = "application/problem+json"

# The nearest class counts; what stands nowhere is our fault.
_STATUS: dict[type[CausewayError], HTTPStatus] = {
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.IdempotencyMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
_MOST_ERRORS = 20


class Problem(BaseModel):
    """What went wrong (RFC 9457). More facts may stand beside these, such as `id`, `known` or `state`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:causeway:problem:invalid_input"])
    title: str = Field(examples=["Invalid input"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["line 7: target must not be empty"])
    code: str = Field(description="Stable, for programs.", examples=["invalid_input"])
    field: str | None = Field(None, description="Which part of the request is meant.", examples=["target"])
    line: int | None = Field(None, description="Which line of an upload is meant, from 1.", examples=[7])


def install(app: FastAPI) -> None:
    """Answer every error with a problem."""
    app.add_exception_handler(CausewayError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def problem(
    status: int, code: str, detail: str, facts: Mapping[str, Any] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """A problem as a response; a fact named like one of its own fields gives way."""
    body = {
        "type": f"urn:causeway:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": int(status),
        "detail": detail,
        "code": code,
    }
    # Facts may quote what users sent, which need not be something that JSON in UTF-8 can say.
    return JSONResponse(storable({**(facts or {}), **body}), int(status), headers, PROBLEM)


def status_of(error: CausewayError) -> HTTPStatus:
    """The HTTP status of an error of ours."""
    found = (_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, for its OpenAPI entry."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM: {"schema": _REFERENCE}}}
        for status in statuses
    }


_REFERENCE = {"$ref": "#/components/schemas/Problem"}


async def _on_ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CausewayError)  # noqa: S101 (Starlette types handlers by the base class)
    status = status_of(error)
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.facts['size']}"
    if "retry_after" in error.facts or status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(error.facts.get("retry_after", 5))
    return problem(status, error.code, error.message, error.facts, headers)


async def _on_validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (as above)
    found = [_readable(one) for one in error.errors()[:_MOST_ERRORS]]
    first = found[0]
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        errors.InvalidInput.code,
        f"{first['field']}: {first['message']}" if first["field"] else first["message"],
        {"field": first["field"] or None, "errors": found},
    )


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 (as above)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_")
    return problem(status, code, str(error.detail), headers=dict(error.headers or {}))


async def _on_disconnect(_request: Request, _error: Exception) -> JSONResponse:
    # Nobody will read it; without it a client that hangs up would look like a bug of ours.
    return problem(HTTPStatus.BAD_REQUEST, "client_disconnected", "the client left before the body ended")


def _readable(error: dict[str, Any]) -> dict[str, str]:
    """Where (`body`, `query`, ...), which field, and what is the matter; never the value."""
    where, *path = error["loc"]
    message = error["msg"]
    if error["type"] == "json_invalid":
        message = f"the body is not valid JSON: {error.get('ctx', {}).get('error', message)} at character {path[0]}"
        path = []
    elif not path and where == "body":
        message = "send a JSON object with Content-Type: application/json"
    elif error["type"] == "extra_forbidden":
        message = "unknown field"
    return {"in": str(where), "field": dotted(path), "message": message}


def dotted(path: Sequence[int | str]) -> str:
    """A place inside of JSON as people write it: relations[0].effect.start."""
    written = ""
    for step in path:
        written += f"[{step}]" if isinstance(step, int) else f".{step}" if written else str(step)
    return written
