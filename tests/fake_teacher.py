"""A teacher endpoint in the OpenAI chat format, on loopback, that labels STG texts rightly and fails as it is told.

In a test:            with FakeTeacher(["429=1", "hang"]).serving() as teacher: ... teacher.base_url, teacher.calls
As its own process:   python -m tests.fake_teacher --port 8099 --faults 500,500,prose --latency 0.02
                      (prints its base URL as the first line; --port 0 picks a free one)

Every call takes the next fault of the script; after its last, all is well. Over HTTP, GET /calls is the call log and
POST /faults {"faults": [...]} replaces the script. Faults:

    ok           as if nothing
    429  429=2   slow down, without or with `Retry-After: 2`
    500 ... 599  a server error; 401, 402, 403, 404, 400, 422 a refusal of the call
    quota        429 with the code insufficient_quota
    redirect     302 to another host
    hang         no reply until the server stops (at most 60 s)
    reset        the connection is reset; `torn` the same after half of the body
    prose        text instead of JSON; `refusal_prose` a refusal in prose; `html` a page with a script
    half         JSON that stops in the middle; `junk` a body that is no completion; `huge` 10 MB,
                 `endless` one that never stops
    length, filter, refusal      the finish reasons of that name
    many         a thousand relations; `other` another item's answer; `everything` an effect that is the whole text
"""

import argparse
import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.fake_server import Handler, serving

_CAUSE = re.compile(r"\b(?:Smoking|Weight|Exercise): \d+")
_SEGMENT = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    at: float  # seconds, time.monotonic of this process
    fault: str
    prompt: str  # the last message
    messages: int
    model: str
    response_format: str  # "json_schema", "json_object" or ""
    parameters: tuple[str, ...]  # names of what else the body holds
    authorization: str
    in_flight: int  # this one included


@dataclass
class FakeTeacher:
    """Behaviour and memory of the endpoint.

    `faults` is a list of faults, taken in turn, or a function from the item (the message that shows it) to a fault.
    `answer` maps the item to the reply's text. `formats` are the response formats it understands: others are a 400.
    """

    faults: Sequence[str] | Callable[[str], str] = ()
    answer: Callable[[str], str] = field(default_factory=lambda: label_stg)
    latency: float = 0.0  # seconds
    formats: frozenset[str] = frozenset(("json_schema", "json_object", ""))
    refuses: frozenset[str] = frozenset()  # parameters that are a 400, as reasoning models have them
    usage: bool = True
    headers: dict[str, str] = field(default_factory=dict)  # sent with every good reply
    calls: list[Call] = field(default_factory=list)
    base_url: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _taken: int = 0
    _in_flight: int = 0

    @contextmanager
    def serving(self, port: int = 0) -> Iterator["FakeTeacher"]:
        """Serve from a thread of this process while the context lasts."""
        with serving(_Handler, self, port=port) as address:
            self.base_url = f"{address}/v1"
            try:
                yield self
            finally:
                self.stopping.set()  # or an answer that hangs would hold the server

    def begin(self, body: dict[str, Any], authorization: str) -> str:
        """Log a call and say which fault it gets."""
        with self._lock:
            if callable(self.faults):
                fault = self.faults(_item_of(body))
            else:
                fault = self.faults[self._taken] if self._taken < len(self.faults) else "ok"
                self._taken += 1
            self._in_flight += 1
            self.calls.append(
                Call(
                    at=time.monotonic(),
                    fault=fault,
                    prompt=body["messages"][-1]["content"],
                    messages=len(body["messages"]),
                    model=body.get("model", ""),
                    response_format=_format_of(body),
                    parameters=tuple(sorted(body.keys() - {"messages", "model", "response_format"})),
                    authorization=authorization,
                    in_flight=self._in_flight,
                )
            )
        return fault

    def end(self) -> None:
        """A call is over."""
        with self._lock:
            self._in_flight -= 1

    def script(self, faults: Sequence[str]) -> None:
        """Replace the faults still to come."""
        with self._lock:
            self.faults, self._taken = list(faults), 0


def label_stg(prompt: str) -> str:
    """The right reply to a prompt about an STG text: the target, caused by its three deciding attributes."""
    _, _, item = prompt.rpartition("INPUT\n")
    before, _, target = item.partition("\n\nTARGET\n")
    causes = [
        {"quote": quote, "segment": int(number)}
        for number, segment in _SEGMENT.findall(before)
        for quote in _CAUSE.findall(segment)
    ]
    effects = [{"quote": segment, "segment": int(number)} for number, segment in _SEGMENT.findall(target)]
    relations = [{"effect": effect, "causes": causes} for effect in effects[:1] if causes]
    return json.dumps({"relations": relations})


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_teacher", description="A scripted fake teacher.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", "--script", default="", help="comma-separated; FAULT*N repeats one N times")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--no-json-schema", action="store_true")
    parser.add_argument("--no-json-mode", action="store_true")
    options = parser.parse_args(arguments)
    formats = {"json_schema", "json_object", ""}
    formats -= {"json_schema"} if options.no_json_schema else set()
    formats -= {"json_schema", "json_object"} if options.no_json_mode else set()
    teacher = FakeTeacher(_expand(options.faults), latency=options.latency, formats=frozenset(formats))
    with teacher.serving(options.port):
        sys.stdout.write(teacher.base_url + "\n")
        sys.stdout.flush()
        threading.Event().wait()


def _expand(faults: str) -> list[str]:
    script: list[str] = []
    for fault in filter(None, faults.split(",")):
        name, _, times = fault.partition("*")
        script += [name] * int(times or 1)
    return script


class _Handler(Handler):
    def do_GET(self) -> None:
        self._send(200, json.dumps([asdict(call) for call in self.server.play.calls]))

    def do_POST(self) -> None:
        teacher = self.server.play
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/faults":
            teacher.script(body["faults"])
            self._send(200, "{}")
        elif self.path != "/v1/chat/completions":
            self._send(404, _error("no such path"))
        else:
            fault = teacher.begin(body, self.headers.get("authorization", ""))
            try:
                if teacher.latency:
                    teacher.stopping.wait(teacher.latency)
                self._play(fault, body)
            finally:
                teacher.end()

    def _play(self, fault: str, body: dict[str, Any]) -> None:
        name, _, value = fault.partition("=")
        kind = _format_of(body)
        if name.isdigit() and int(name) >= 300:
            self._send(int(name), _error("as scripted"), {"Retry-After": value} if value else {})
        elif refused := sorted(self.server.play.refuses & body.keys()):
            self._send(400, _error(f"unsupported: {refused[0]}", "unsupported_parameter", param=refused[0]))
        elif kind not in self.server.play.formats:
            self._send(400, _error(f"response_format {kind} is not supported"))
        elif name == "quota":
            self._send(429, _error("you have used it all", code="insufficient_quota"))
        elif name == "redirect":
            self._send(302, "", {"Location": "http://127.0.0.2:9/v1/chat/completions"})
        elif name == "hang":
            self.server.play.stopping.wait(60)
        elif name == "endless":
            self._send_on_and_on()
        elif name in ("reset", "torn"):
            self._reset(after="" if name == "reset" else _completion("{}"))
        elif name in _BODIES:
            self._send(200, _BODIES[name](_item_of(body)))
        else:
            self._reply(name, _item_of(body))

    def _reply(self, name: str, item: str) -> None:
        teacher = self.server.play
        finish = {"length": "length", "filter": "content_filter"}.get(name, "stop")
        text = _TEXTS[name](item) if name in _TEXTS else teacher.answer(item)
        text = text[: len(text) // 2] if name in ("half", "length", "filter") else text
        self._send(200, _completion(text, finish, usage=teacher.usage), teacher.headers)

    def _send(self, status: int, body: str, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def _send_on_and_on(self) -> None:
        self._send(200, '{"x": "', length=10**12)
        while not self.server.play.stopping.is_set():
            self.wfile.write(b"x" * 65_536)  # until the client hangs up

    def _reset(self, after: str) -> None:
        if after:
            self._send(200, after, length=2 * len(after))
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _format_of(body: dict[str, Any]) -> str:
    return (body.get("response_format") or {}).get("type", "")


def _item_of(body: dict[str, Any]) -> str:
    """The last message that shows an item: not the last of all when a reply is asked for again."""
    contents = [message["content"] for message in body["messages"]]
    return next((content for content in reversed(contents) if "\nTARGET\n" in content), contents[-1])


def _completion(text: str | None, finish: str = "stop", *, refusal: str | None = None, usage: bool = True) -> str:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    document: dict[str, Any] = {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    if usage:
        document["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return json.dumps(document)


def _error(message: str, code: str = "scripted", param: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "type": "fake", "code": code, "param": param}})


def _thousand(prompt: str) -> str:
    phrase = {"quote": "Smoking", "segment": 1}
    return json.dumps({"relations": [{"effect": phrase, "causes": [phrase]}] * 1000})


def _everything(prompt: str) -> str:
    whole = " ".join(segment for _, segment in _SEGMENT.findall(prompt))
    return json.dumps({"relations": [{"effect": {"quote": whole}, "causes": [{"quote": whole[:20]}]}]})


def _other(prompt: str) -> str:
    cause, effect = {"quote": "17 purple elephants", "segment": 1}, {"quote": "they all flew home", "segment": 2}
    return json.dumps({"relations": [{"effect": effect, "causes": [cause]}]})


_BODIES: dict[str, Callable[[str], str]] = {
    "junk": lambda prompt: '{"hello": "world"}',
    "huge": lambda prompt: _completion("x" * 10_000_000),
    "refusal": lambda prompt: _completion(None, refusal="I will not do that."),
}
_TEXTS: dict[str, Callable[[str], str]] = {
    "prose": lambda prompt: "The patient smokes a lot, therefore the risk is high.",
    "refusal_prose": lambda prompt: "I'm sorry, but I can't help with medical data.",
    "html": lambda prompt: "<html><script>alert(1)</script></html>",
    "many": _thousand,
    "other": _other,
    "everything": _everything,
}


if __name__ == "__main__":
    main()
