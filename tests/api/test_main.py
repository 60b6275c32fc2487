"""`python -m api` as an operator starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from core.db.session import Database


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_serves_logs_json_and_leaves_on_sigterm(database: Database, tmp_path: Path) -> None:
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CAUSEWAY_")} | {
        "CAUSEWAY_DATABASE__URL": database.engine.url.render_as_string(hide_password=False),
        "CAUSEWAY_API__PORT": str(port),
        "CAUSEWAY_STORAGE__SPOOL": str(tmp_path / "spool"),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        while not _answers(url):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        refused = httpx.get(f"{url}/v1/datasets?secret=diagnosis", headers={"Authorization": "Bearer cw_wrong"})
        assert refused.status_code == 401
        assert "server" not in refused.headers
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    [request] = [line for line in lines if line["event"] == "request"]
    assert (request["method"], request["path"], request["status"]) == ("GET", "/v1/datasets", 401)
    assert request["request_id"] == refused.headers["x-request-id"]
    assert "diagnosis" not in str(lines)
    assert "cw_wrong" not in str(lines)


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    environment = os.environ | {"CAUSEWAY_API__PORT": "-1"}
    ended = subprocess.run([sys.executable, "-m", "api"], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "api.port" in ended.stderr


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


pytestmark = pytest.mark.timeout(120)
