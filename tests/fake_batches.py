"""A Batch API on loopback, in the OpenAI format, that answers in any order and goes wrong as it is told.

    with FakeBatches(fate=lambda batch, item, body: "expire" if batch == 0 else "ok").serving() as fake: fake.base_url

`fate` decides each line, by the number of its batch, its custom_id and its body:

    ok           an answer; `nousage` one that does not say what it cost; `double` one that comes twice; `again` 500 too
    prose        an answer that cannot be read; `huge` one over every bound
    expire       batch_expired in the error file; 429, 500, 400, 404, ... an error of that status there
    format       400 about response_format; `parameter=NAME` 400 about a parameter of that name
    omit         no line at all; `junk` a line that is no JSON; `stray` an answer with an id that was never asked for

`ends` is how a batch ends, by its number: a status, or `failed=CODE`. `trouble` holds, for an operation (upload,
create, list, look, content, cancel), what befalls its next calls: `ok`, a status, `lost` (done, but the reply is not
heard of), `torn` (half of the reply) or `gone` (404).
"""

import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fake_server import Handler, serving

PAGE = 2  # batches in a list, whatever is asked for
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def label_weather(body: dict[str, Any]) -> str:
    """The right answer to an example of tests.scenes."""
    phrases = [{"quote": "yes", "segment": 2}, {"quote": "sun", "segment": 1}]
    return json.dumps({"relations": [{"effect": phrases[0], "causes": phrases[1:]}]})


@dataclass
class FakeBatches:
    """Behaviour and memory of the endpoint."""

    fate: Callable[[int, str, dict[str, Any]], str] = lambda batch, item, body: "ok"
    ends: Callable[[int], str] = lambda batch: "completed"
    answer: Callable[[dict[str, Any]], str] = label_weather
    looks: int = 0  # at a batch before it ends
    before_cancel: int = 0  # lines of a batch that have their result when it is cancelled
    trouble: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # sent with every trouble
    base_url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)  # lines by custom_id, in batches that were made
    answered: Counter[str] = field(default_factory=Counter)  # the same, that were charged
    bodies: list[dict[str, Any]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)  # by operation
    cancelled: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def serving(self) -> Iterator["FakeBatches"]:
        """Serve from a thread of this process while the context lasts."""
        with serving(_Handler, self) as address:
            self.base_url = f"{address}/v1"
            yield self

    def lines_of(self, number: int) -> list[dict[str, Any]]:
        """The questions in the file of a batch."""
        return [json.loads(line) for line in self.files[self.batches[number]["input_file_id"]].splitlines()]

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        number = len(self.batches)
        batch = {
            "id": f"batch_{number}",
            "object": "batch",
            "endpoint": request["endpoint"],
            "input_file_id": request["input_file_id"],
            "completion_window": request["completion_window"],
            "metadata": request.get("metadata"),
            "status": "validating",
            "created_at": int(time.time()),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "looks": 0,
        }
        self.batches.append(batch)
        for line in self.lines_of(number):
            self.asked[line["custom_id"]] += 1
            self.bodies.append(line["body"])
        return batch

    def look(self, number: int) -> dict[str, Any]:
        batch = self.batches[number]
        batch["looks"] += 1
        if batch["status"] in ("validating", "in_progress") and batch["looks"] > self.looks:
            self._end(number, batch)
        elif batch["status"] == "validating":
            batch["status"] = "in_progress"
        elif batch["status"] == "cancelling":
            self._end(number, batch, cancelled=True)
        return batch

    def cancel(self, number: int) -> dict[str, Any]:
        batch = self.batches[number]
        self.cancelled.append(batch["id"])
        batch["status"] = "cancelling" if batch["status"] in ("validating", "in_progress") else batch["status"]
        return batch

    def _end(self, number: int, batch: dict[str, Any], *, cancelled: bool = False) -> None:
        status, _, code = ("cancelled" if cancelled else self.ends(number)).partition("=")
        batch["status"] = status
        if status == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": code, "message": f"as scripted: {code}"}]}
            return
        good, bad = [], []
        for at, line in enumerate(self.lines_of(number)):
            late = cancelled and at >= self.before_cancel
            fate = "expire" if late else self.fate(number, line["custom_id"], line["body"])
            for result in self._results(fate, line["custom_id"], line["body"]):
                (bad if b'"status_code": 200' not in result and b"junk" not in result else good).append(result)
        shuffle = random.Random(number).shuffle
        for name, lines in (("output_file_id", good), ("error_file_id", bad)):
            shuffle(lines)
            if lines:
                batch[name] = f"file-{name}-{number}"
                self.files[batch[name]] = b"\n".join(lines) + b"\n"
        batch["request_counts"] = {"total": len(good) + len(bad), "completed": len(good), "failed": len(bad)}

    def _results(self, fate: str, item: str, body: dict[str, Any]) -> list[bytes]:
        name, _, value = fate.partition("=")
        if name == "omit":
            return []
        if name == "junk":
            return [b'{"custom_id": "junk']
        if name == "expire":
            return [_line(item, error={"code": "batch_expired", "message": "not before the window ended"})]
        if name.isdigit():
            return [_line(item, int(name), {"error": {"message": "as scripted", "code": None, "param": None}})]
        if name in ("format", "parameter"):
            part = "response_format" if name == "format" else value
            error = {"message": f"{part} is not supported", "code": "unsupported_parameter", "param": part}
            return [_line(item, 400, {"error": error})]
        self.answered[item] += 1
        good = self._answered(name, item, body)
        if name == "double":
            return [good, good]
        return [_line(item, 500, {}), good] if name == "again" else [good]

    def _answered(self, name: str, item: str, body: dict[str, Any]) -> bytes:
        texts = {"prose": "Because it is sunny.", "huge": "x" * 2_200_000}
        message = {"role": "assistant", "content": texts.get(name) or self.answer(body)}
        completion: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        if name != "nousage":
            completion["usage"] = USAGE
        return _line("999999999" if name == "stray" else item, 200, completion)


def _line(item: str, status: int = 0, body: Any = None, error: Any = None) -> bytes:
    response = {"status_code": status, "request_id": "r", "body": body} if status else None
    return json.dumps({"id": f"batch_req_{item}", "custom_id": item, "response": response, "error": error}).encode()


class _Handler(Handler):
    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/v1/batches":
            self._play("list", self._list)
        elif found := re.fullmatch(r"/v1/batches/batch_(\d+)", path):
            self._play("look", lambda: self.server.play.look(int(found[1])))
        elif found := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
            self._play("content", lambda: self.server.play.files[found[1]])
        else:
            self._send(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/files":
            self._play("upload", lambda: self._keep(body))
        elif self.path == "/v1/batches":
            self._play("create", lambda: self.server.play.create(json.loads(body)))
        elif found := re.fullmatch(r"/v1/batches/batch_(\d+)/cancel", self.path):
            self._play("cancel", lambda: self.server.play.cancel(int(found[1])))
        else:
            self._send(404, {"error": {"message": "no such path"}})

    def _play(self, operation: str, act: Callable[[], Any]) -> None:
        fake = self.server.play
        with fake.lock:
            fake.calls[operation] += 1
            waiting = fake.trouble.get(operation, [])
            trouble = waiting.pop(0) if waiting else "ok"
            done = act() if trouble in ("ok", "lost", "torn") else None
        name, _, message = trouble.partition("=")
        if name == "ok":
            self._send(200, done)
        elif name == "gone":
            self._send(404, {"error": {"message": "there is none"}})
        elif name.isdigit():
            error = {"message": message or "as scripted", "code": None}
            self._send(int(name), {"error": error}, fake.headers)
        else:
            self._hang_up(done if name == "torn" else None)

    def _keep(self, body: bytes) -> dict[str, Any]:
        """The file of a multipart form."""
        boundary = b"--" + self.headers["content-type"].partition("boundary=")[2].encode()
        parts = [part for part in body.split(boundary) if b'name="file"' in part]
        content = parts[0].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        assert b'name="purpose"\r\n\r\nbatch\r\n' in body
        name = f"file-{len(self.server.play.files)}"
        self.server.play.files[name] = content
        return {"id": name, "object": "file"}

    def _list(self) -> dict[str, Any]:
        after = parse_qs(urlsplit(self.path).query).get("after", [""])[0]
        newest = list(reversed(self.server.play.batches))
        start = next((at + 1 for at, batch in enumerate(newest) if batch["id"] == after), 0)
        return {"object": "list", "data": newest[start : start + PAGE], "has_more": start + PAGE < len(newest)}

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _hang_up(self, half_of: Any) -> None:
        if half_of is not None:
            data = half_of if isinstance(half_of, bytes) else json.dumps(half_of).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
