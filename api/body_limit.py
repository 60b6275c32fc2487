"""No body is read into memory beyond the limit. Uploads, which go to disk, have limits of their own."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem, status_of
from core.errors import PayloadTooLarge

_STREAMED = "/examples"  # how the paths end whose routes read the body piece by piece


class BodyLimit:
    """ASGI middleware: 413 for a body that says or turns out to be longer than `limit` bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].endswith(_STREAMED):
            await self._app(scope, receive, send)
            return
        try:
            announced = Headers(scope=scope).get("Content-Length", "0")
            if announced.isdigit() and int(announced) > self._limit:
                raise self._error()
            body = await self._read(receive)
        except PayloadTooLarge as error:
            await problem(status_of(error), error.code, error.message, error.facts)(scope, receive, send)
            return
        await self._app(scope, _again(body, receive), send)

    async def _read(self, receive: Receive) -> list[Message]:
        """The body, before anybody has begun to work on it."""
        messages: list[Message] = []
        size = 0
        while not messages or messages[-1].get("more_body"):
            messages.append(await receive())
            size += len(messages[-1].get("body", b""))
            if size > self._limit:
                raise self._error()
        return messages

    def _error(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"the body is longer than {self._limit} bytes", limit=self._limit)


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Give `messages` once more, then whatever comes."""
    pending = iter(messages)

    async def replayed() -> Message:
        for message in pending:
            return message
        return await receive()

    return replayed
