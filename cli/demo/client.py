"""A client of the REST API: each method is one request, or one repeated until a job has ended."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from core.errors import CausewayError

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})

_POLL = 0.5  # seconds between two looks at a job, unless Retry-After asks for less
_BLOCK = 1 << 16  # bytes


class DemoFailed(CausewayError):
    """A step of the demo did not do what it must."""

    code = "demo_failed"


@dataclass(frozen=True)
class Client:
    """The API at `http.base_url`, with the key in its headers.

    Every method raises DemoFailed with the service's own words (problem+json) when a request is refused, or when the
    service cannot be reached.
    """

    http: httpx.Client

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST a JSON body; a repetition of the same request after a broken connection would create nothing twice."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._send("POST", path, json=body, headers=headers)

    def upload(self, dataset_id: str, split: str, lines: Iterator[bytes]) -> int:
        """Stream NDJSON lines into a split; how many examples were stored."""
        headers = {"Content-Type": "application/x-ndjson"}
        path = f"/datasets/{dataset_id}/examples"
        answer = self._send("POST", path, params={"split": split}, content=lines, headers=headers)
        return int(answer["stored"])

    def post_prior(self, yaml: str) -> dict[str, Any]:
        """Post a prior as a person wrote it."""
        return self._send("POST", "/priors", content=yaml, headers={"Content-Type": "application/yaml"})

    def look(self, path: str) -> dict[str, Any]:
        """GET a JSON answer."""
        return self._send("GET", path)

    def follow(self, path: str) -> Iterator[dict[str, Any]]:
        """The job at `path`, again and again until it has ended; the last one is terminal."""
        while True:
            job = self.look(path)
            yield job
            if job["state"] in TERMINAL:
                return
            time.sleep(_POLL)

    def download(self, path: str, to: Path) -> None:
        """GET bytes into a file."""
        try:
            with self.http.stream("GET", path) as response:
                _check(response)
                with to.open("wb") as file:
                    for block in response.iter_bytes(_BLOCK):
                        file.write(block)
        except httpx.TransportError as exc:
            raise DemoFailed(f"GET {path}: the service cannot be reached ({exc})") from exc

    def _send(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = self.http.request(method, path, **request)
        except httpx.TransportError as exc:
            raise DemoFailed(f"{method} {path}: the service cannot be reached ({exc})") from exc
        _check(response)
        answer: dict[str, Any] = response.json()
        return answer


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    request = f"{response.request.method} {response.request.url.path}"
    raise DemoFailed(f"{request}: {response.status_code} {response.text}")
