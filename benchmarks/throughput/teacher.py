"""A fake teacher that costs little: the OpenAI chat format over a bare asyncio protocol, in a process of its own.

Each model of its script has a latency of its own, and may answer 429 for a while. It knows only STG texts.

    python -m benchmarks.throughput.teacher PORT '{"slow": {"mean": 1.0, "cv": 0.5}}'

`GET /calls/MODEL` returns what happened, as lists of [came, answered, drawn, good].
"""

import asyncio
import json
import math
import random
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

_CAUSE = re.compile(r"(?:Smoking|Weight|Exercise): \d+")
_TARGET = re.compile(r"TARGET\n\[(\d+)\] (.+)")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model answers. Latency is lognormal with this mean and coefficient of variation; times in seconds."""

    mean: float
    cv: float = 0.0
    storm_after: float = math.inf  # from the model's first call on
    storm: float = 0.0  # how long every call gets a 429

    def latency(self, chance: random.Random) -> float:
        """One draw."""
        if not self.cv:
            return self.mean
        variance = math.log(1 + self.cv**2)
        return chance.lognormvariate(math.log(self.mean) - variance / 2, math.sqrt(variance))

    def storms(self, since_first: float) -> bool:
        """Whether a call that comes so long after the first gets a 429."""
        return self.storm_after <= since_first < self.storm_after + self.storm


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes to send, after how many seconds, and the call to note it in."""

    data: bytes
    wait: float = 0.0
    call: list[float | bool] | None = None


class FakeTeacher:
    """The models of a script and the calls they got."""

    def __init__(self, manners: dict[str, Manner], *, seed: int = 1) -> None:
        self._manners = manners
        self._chance = random.Random(seed)
        self._calls: dict[str, list[list[float | bool]]] = defaultdict(list)

    def answer(self, path: str, body: bytes, now: float) -> Answer:
        """What a request gets that came at `now`."""
        if path.startswith("/calls/"):
            return Answer(_http(200, self._calls[path.removeprefix("/calls/")]))
        request = json.loads(body)
        manner, calls = self._manners[request["model"]], self._calls[request["model"]]
        if manner.storms(now - float(calls[0][0]) if calls else 0.0):
            calls.append([now, now, 0.0, False])
            return Answer(_http(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}))
        wait = manner.latency(self._chance)
        calls.append([now, now + wait, wait, True])
        return Answer(_http(200, _completion(label(request["messages"][-1]["content"]))), wait, calls[-1])


def label(prompt: str) -> str:
    """The right reply to an STG item: its target, caused by the three attributes that decide it."""
    item = prompt.rpartition("INPUT\n")[2]
    target = _TARGET.search(item)
    if target is None:
        return '{"relations": []}'
    causes = [
        {"quote": quote, "segment": int(line[1 : line.index("]")])}
        for line in item[: target.start()].splitlines()
        for quote in _CAUSE.findall(line)
    ]
    effect = {"quote": target[2], "segment": int(target[1])}
    return json.dumps({"relations": [{"effect": effect, "causes": causes}]})


class _Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, teacher: FakeTeacher) -> None:
        self._teacher = teacher
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].decode("latin-1").split("\r\n")
        lengths = [int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:")]
        whole = end + 4 + sum(lengths)
        if len(self._received) < whole:
            return
        body = bytes(self._received[end + 4 : whole])
        del self._received[:whole]
        loop = asyncio.get_running_loop()
        answer = self._teacher.answer(head[0].split(" ")[1].removeprefix("/v1"), body, loop.time())
        loop.call_later(answer.wait, self._send, answer)

    def _send(self, answer: Answer) -> None:
        if answer.call is not None:
            answer.call[1] = asyncio.get_running_loop().time()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer.data)


def _http(status: int, document: Any) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


def _completion(text: str) -> dict[str, Any]:
    return {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 60, "total_tokens": 760},
    }


async def _serve(port: int, teacher: FakeTeacher) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(teacher), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    _script = {name: Manner(**manner) for name, manner in json.loads(sys.argv[2]).items()}
    asyncio.run(_serve(int(sys.argv[1]), FakeTeacher(_script)))
