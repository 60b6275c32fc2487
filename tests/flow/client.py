"""A user's script: everything it knows of Causeway is the REST API's address and a key."""

import hashlib
import json
import tarfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from core.domain.annotation import Example

_PATIENCE = 240.0  # seconds for a job; never a bound on speed, only on hanging
_TERMINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Client:
    """A thin client: every method is one request, or one request repeated until a job has ended."""

    http: httpx.Client

    def post(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """POST that must be accepted."""
        response = self.http.post(path, **kwargs)
        assert response.is_success, f"{path}: {response.status_code} {response.text}"
        return dict(response.json())

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """GET that must be found."""
        response = self.http.get(path, params=params)
        assert response.is_success, f"{path}: {response.status_code} {response.text}"
        return dict(response.json())

    def upload(self, dataset: str, split: str, examples: Iterable[Example]) -> dict[str, Any]:
        """Post examples without their relations: labelling is what we came for."""
        lines = [
            json.dumps({"id": e.id, "input": e.input, "target": e.target, "choices": list(e.choices)}) for e in examples
        ]
        return self.post(
            f"/datasets/{dataset}/examples",
            params={"split": split},
            content="\n".join(lines),
            headers={"Content-Type": "application/x-ndjson"},
        )

    def finished(self, path: str) -> dict[str, Any]:
        """The job at `path` once it has ended, as politely as Retry-After asks."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            response = self.http.get(path)
            job: dict[str, Any] = response.raise_for_status().json()
            if job["state"] in _TERMINAL:
                return job
            time.sleep(min(0.3, float(response.headers.get("Retry-After", "0.3"))))
        raise AssertionError(f"{path} did not end: {job}")

    def download(self, adapter: str, folder: Path) -> Path:
        """Fetch an adapter's archive, check it against its published sum, unpack it."""
        expected = self.get(f"/adapters/{adapter}")["sha256"]
        archive = self.http.get(f"/adapters/{adapter}/download").raise_for_status().content
        assert hashlib.sha256(archive).hexdigest() == expected
        folder.mkdir(parents=True)
        (folder / "adapter.tar.gz").write_bytes(archive)
        with tarfile.open(folder / "adapter.tar.gz") as tar:
            tar.extractall(folder, filter="data")
        return folder
