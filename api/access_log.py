"""Around every request: an id, one log line, its metrics, and the last line of defence against our own bugs."""

import re
import secrets
import time
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem
from api.metrics import Metrics

_log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_CLIENT_LEFT = 499  # nobody hears this answer; it is for the log


class AccessLog:
    """ASGI middleware. Logs method, path template, status and seconds; never a body, a query or a key."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        begun = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, sending)
            except Exception:  # nothing is left above us: whatever it is, log it, and answer without its text
                _log.exception("bug", path=_template(scope))
                if status:
                    raise  # half an answer is out: let the server cut the connection
                answer = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "something went wrong on our side")
                await answer(scope, receive, sending)
            finally:
                self._record(scope, status or _CLIENT_LEFT, time.perf_counter() - begun)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method, path = scope["method"], _template(scope)
        self._metrics.answered(method, path, status, seconds)
        if path not in _QUIET:
            _log.info("request", method=method, path=path, status=status, seconds=round(seconds, 4))


def _request_id(headers: Headers) -> str:
    """The client's own, when it is harmless, so that both logs can be laid side by side."""
    sent = headers.get("X-Request-Id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)


def _template(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "unmatched"))
