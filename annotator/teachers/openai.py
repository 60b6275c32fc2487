"""Any endpoint that speaks the OpenAI chat format, through the `openai` client with its own retries off."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai

from annotator.parsing import storable
from annotator.teachers.base import Finish, Message, Purse, Reply
from annotator.teachers.chat_format import (
    RUNGS,
    UNSUPPORTED,
    estimate_tokens,
    most_tokens,
    parameters_of,
    read_completion,
    request_parameters,
    response_format,
)
from annotator.teachers.client import client_options, transport_options
from annotator.teachers.gate import Gate
from annotator.teachers.health import EndpointHealth
from annotator.teachers.retry import backoff, exhausted_for, retry_after
from core.domain.annotation import TeacherConfig, Usage
from core.errors import TeacherRejected, TeacherUnreachable

MAX_BODY = 2_000_000  # bytes of a reply that are read
_MAX_ERROR = 500  # characters of an endpoint's error message that are kept
_REJECTED = {
    401: "it does not accept the key",
    402: "it wants payment",
    403: "it forbids this key to use the model",
    404: "it has no such model or path",
}


@asynccontextmanager
async def open_endpoint(
    config: TeacherConfig, health: EndpointHealth, purse: Purse | None = None
) -> AsyncIterator["OpenAIEndpoint"]:
    """An endpoint whose connections are closed at the end, and whose calls are paid from `purse`."""
    transport = openai.DefaultAsyncHttpxClient(**transport_options(config))
    async with openai.AsyncOpenAI(http_client=transport, **client_options(config)) as client:
        yield OpenAIEndpoint(config, client, health, purse)


class OpenAIEndpoint:
    """A chat model behind a `base_url`, with our own retries, pacing, concurrency and breaker; see ChatEndpoint."""

    def __init__(
        self,
        config: TeacherConfig,
        client: openai.AsyncOpenAI,
        health: EndpointHealth,
        purse: Purse | None = None,
    ) -> None:
        self._config = config
        self._purse = purse
        self._client = client
        self._health = health
        self._gate = Gate(health)
        self._chance = random.Random()  # noqa: S311 (jitter)

    @property
    def model(self) -> str:
        """The model's name at the endpoint."""
        return self._config.model

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All that shapes a reply besides the prompt."""
        return parameters_of(self._config)

    async def ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Reply:
        """The reply to one prompt, see ChatEndpoint.ask.

        Gives up after `max_attempts` failures of this prompt's own, or `deadline` seconds after its first call. Being
        told to slow down, and probing an endpoint that is down for everybody, is no failure of this prompt.
        """
        failure: Exception = _Failed("no answer")
        tries = own_failures = 0
        try:
            async with asyncio.timeout(None) as limit:
                while True:
                    try:
                        return await self._paid(messages, schema, limit)
                    except (_Failed, _Throttled) as exc:
                        failure = exc
                    tries += 1
                    own_failures += isinstance(failure, _Failed) and not self._health.is_open
                    if own_failures >= self._config.max_attempts or self._is_hopeless():
                        raise self._unreachable(str(failure)) from failure
                    await asyncio.sleep(backoff(tries, self._chance))
        except TimeoutError as exc:
            raise self._unreachable(f"{failure}, for {self._config.deadline:g} s") from exc

    async def _paid(self, messages: Sequence[Message], schema: Mapping[str, Any], limit: asyncio.Timeout) -> Reply:
        """One attempt, with money set aside for it. Where nobody says what was charged, all of that was."""
        if self._purse is None:
            return await self._step_down_the_ladder(messages, schema, limit)
        most = most_tokens(messages, schema, self._config.max_tokens)
        reservation = await self._purse.reserve(most)
        try:
            reply = await self._step_down_the_ladder(messages, schema, limit)
        except (_Throttled, TeacherRejected):
            self._purse.settle(reservation, Usage())
            raise
        except _Failed as exc:
            self._purse.settle(reservation, most if exc.may_be_charged else Usage())
            raise
        free = reply.finish is Finish.INVALID
        self._purse.settle(reservation, reply.usage if free or reply.usage != Usage() else most)
        return reply

    async def _step_down_the_ladder(
        self, messages: Sequence[Message], schema: Mapping[str, Any], limit: asyncio.Timeout
    ) -> Reply:
        """One attempt; where the endpoint may not know our structured output, with less of it until it does."""
        rung = 0
        while True:
            try:
                return await self._attempt(messages, schema, rung, limit)
            except _NotAccepted as exc:
                if exc.parameter in exc.sent:
                    self._health.refused |= {exc.parameter}
                    continue
                proven = self._health.rung_proven and exc.rung == self._health.rung
                if proven or exc.rung == RUNGS - 1:
                    return Reply(storable(str(exc)), finish=Finish.INVALID)
                rung = exc.rung + 1

    async def _attempt(
        self, messages: Sequence[Message], schema: Mapping[str, Any], least_rung: int, limit: asyncio.Timeout
    ) -> Reply:
        """One call, as soon as the gate admits it; tells the endpoint's health how it went."""
        loop, health = asyncio.get_running_loop(), self._health
        tokens = estimate_tokens(messages)
        estimate = tokens.prompt + tokens.reply
        async with self._gate.admitted(estimate) as started:
            if limit.when() is None:  # waiting behind others is not this prompt's time
                limit.reschedule(started + self._config.deadline)
            rung = max(least_rung, health.rung)  # others may have found it while this one waited
            try:
                sent = request_parameters(self.parameters, health.refused)
                reply, headers = await self._call(messages, sent, response_format(rung, schema))
            except _Throttled as exc:
                health.throttled(loop.time(), started, exc.wait)
                raise
            except _Failed:
                health.failed(loop.time())
                raise
            except TeacherRejected:
                health.answered(started)
                raise
            except _NotAccepted as exc:
                health.answered(started)
                exc.rung, exc.sent = rung, frozenset(sent)
                raise
            health.answered(started)
            if used := reply.usage.prompt_tokens + reply.usage.completion_tokens:
                health.settle(loop.time(), used - estimate)
            if not health.rung_proven:
                health.rung, health.rung_proven = rung, True
            if (wait := exhausted_for(headers)) is not None:
                health.pause(loop.time() + wait)
            return reply

    async def _call(
        self, messages: Sequence[Message], parameters: Mapping[str, Any], format_: dict[str, Any] | None
    ) -> tuple[Reply, Mapping[str, str]]:
        """One HTTP request. The body goes by `extra_body`, which spares half of the client's time for each call."""
        body = {"messages": messages, **parameters} | ({} if format_ is None else {"response_format": format_})
        create = self._client.chat.completions.with_streaming_response.create
        try:
            async with create(model=self.model, messages=[], extra_body=body) as response:
                content = await _read_capped(response)
                if len(content) > MAX_BODY:
                    return Reply(
                        storable(content.decode("utf-8", "replace")), finish=Finish.OVERSIZED
                    ), response.headers
                return read_completion(content), response.headers
        except openai.APIStatusError as exc:
            raise self._translated(exc) from exc
        except (openai.APIConnectionError, httpx2.TransportError, httpx2.DecodingError) as exc:
            raise _Failed(type(exc.__cause__ or exc).__name__, may_be_charged=not _never_sent(exc)) from exc

    def _translated(self, error: openai.APIStatusError) -> Exception:
        status = error.status_code
        if status in _REJECTED or 300 <= status < 400 or error.code == "insufficient_quota":
            why = _REJECTED.get(status, "it redirects" if status < 400 else "its quota is used up")
            return TeacherRejected(
                f"teacher {self._config.name!r} refuses every call: {why} (HTTP {status})",
                teacher=self._config.name,
                status=status,
            )
        if status == 429:
            return _Throttled(retry_after(error.response.headers))
        if status >= 500 or status in (408, 409, 425):
            return _Failed(f"HTTP {status}")
        refused = error.param if error.code in UNSUPPORTED else None
        return _NotAccepted(f"HTTP {status}: {error.message}"[:_MAX_ERROR], refused)

    def _is_hopeless(self) -> bool:
        """Whether the endpoint was down from the start and stayed so for as many probes as a prompt has attempts."""
        return not self._health.ever_answered and self._health.failed_probes >= self._config.max_attempts

    def _unreachable(self, last: str) -> TeacherUnreachable:
        return TeacherUnreachable(
            f"teacher {self._config.name!r} cannot be reached: {last}", teacher=self._config.name, last=last
        )


class _Throttled(Exception):
    """429: slow down. `wait` is what Retry-After says, in seconds."""

    def __init__(self, wait: float | None) -> None:
        super().__init__("it asks to slow down (HTTP 429)")
        self.wait = wait


class _Failed(Exception):
    """The network or the server failed; the same call may pass later.

    A server that says so charges nothing; a call whose end we did not see may have been charged.
    """

    def __init__(self, what: str, *, may_be_charged: bool = False) -> None:
        super().__init__(what)
        self.may_be_charged = may_be_charged


class _NotAccepted(Exception):
    """400 and the like: this request, as it stands, will never pass.

    `parameter` is the one the endpoint says it does not take; `sent` were sent, with structured output of `rung`.
    """

    rung = 0
    sent: frozenset[str] = frozenset()

    def __init__(self, what: str, parameter: str | None) -> None:
        super().__init__(what)
        self.parameter = parameter


def _never_sent(error: Exception) -> bool:
    return isinstance(error.__cause__ or error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)


async def _read_capped(response: openai.AsyncAPIResponse[Any]) -> bytes:
    """The body, or its first MAX_BODY bytes and a little more."""
    body = bytearray()
    async for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            break
    return bytes(body)
