"""`causeway serve` is the whole service: it starts on nothing, makes one key, does work, and leaves when asked."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.services import free_port, redis_url

PRIOR = Path(__file__).parents[2] / "examples" / "priors" / "stg.yaml"
LINE = b'{"input": "Smoking: 9, Weight: 3, Exercise: 2, Room size: 4 Answer: ", "target": "High Risk"}\n'
_PATIENCE = 60.0  # seconds; never a bound on speed, only on hanging


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and its address, once it is ready; its stdout lies in folder/out.txt."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CAUSEWAY_")}
    with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "serve", "--port", str(port)],
            cwd=folder,
            env=kept | environment,
            stdout=out,
            stderr=err,
        )
    try:
        _wait(lambda: _ready(process, url), folder)
        yield process, url
    finally:
        process.kill()
        process.wait()


def _ready(process: subprocess.Popen[bytes], url: str) -> bool:
    assert process.poll() is None, "the service ended by itself"
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


def _wait(condition, folder: Path) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, (folder / "err.txt").read_text()[-3000:]
        time.sleep(0.1)


def _printed_key(folder: Path) -> str | None:
    found = re.search(r"^cw_\S+$", (folder / "out.txt").read_text(), re.MULTILINE)
    return found and found[0]


def _label_one(url: str, key: str, folder: Path) -> None:
    with httpx.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}) as http:
        dataset = http.post("/datasets", json={"name": "one"}).raise_for_status().json()["id"]
        http.post(f"/datasets/{dataset}/examples", params={"split": "train"}, content=LINE).raise_for_status()
        prior = http.post("/priors", content=PRIOR.read_bytes(), headers={"Content-Type": "application/yaml"})
        body = {"dataset_id": dataset, "prior_id": prior.raise_for_status().json()["id"], "teacher": "rule"}
        job = http.post("/annotation-jobs", json=body).raise_for_status().json()["id"]
        _wait(lambda: http.get(f"/annotation-jobs/{job}").json()["state"] == "succeeded", folder)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_on_nothing_works_and_leaves_when_asked(tmp_path: Path, stop: signal.Signals) -> None:
    with serving(tmp_path) as (process, url):
        key = _printed_key(tmp_path)
        assert key
        _label_one(url, key, tmp_path)
        process.send_signal(stop)
        assert process.wait(_PATIENCE) == 0
    assert (tmp_path / "var" / "causeway.db").exists()
    with serving(tmp_path) as (_, url):
        assert _printed_key(tmp_path) is None  # shown once, by the start that made it
        headers = {"Authorization": f"Bearer {key}"}
        assert len(httpx.get(f"{url}/v1/datasets", headers=headers).json()["items"]) == 1


def test_it_works_on_postgres_and_redis(tmp_path: Path, postgres_url: str) -> None:
    broker = {"CAUSEWAY_BROKER__URL": redis_url(), "CAUSEWAY_BROKER__NAMESPACE": uuid.uuid4().hex[:12]}
    key_made = subprocess.run(
        [sys.executable, "-m", "cli", "keys", "create", "--name", "test", "--quiet"],
        env=os.environ | {"CAUSEWAY_DATABASE__URL": postgres_url},
        check=True,
        capture_output=True,
        text=True,
    )
    with serving(tmp_path, CAUSEWAY_DATABASE__URL=postgres_url, **broker) as (process, url):
        assert _printed_key(tmp_path) is None  # there is one already
        _label_one(url, key_made.stdout.strip(), tmp_path)
        process.send_signal(signal.SIGINT)
        assert process.wait(_PATIENCE) == 0


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "cli", "serve", "--port", port]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"error [conflict] cannot listen on 127.0.0.1, port {port}" in done.stderr.replace("\n", "")
