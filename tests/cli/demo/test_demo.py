"""The demo as a shell sees it. Its success is what .ci/run asserts, with real training; here, how it fails."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cli.demo.client import Client, DemoFailed


def test_a_failing_step_is_told_with_its_reason_and_where_the_logs_are(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli", "demo", "--examples", "100", "--teacher", "nobody", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "error [demo_failed]" in done.stderr
    assert "nobody" in done.stderr
    assert str(tmp_path / "service.log") in done.stderr.replace("\n", "")
    assert (tmp_path / "service.log").stat().st_size
    assert not (tmp_path / "report.json").exists()


def _client(answer: httpx.Response | Exception) -> Client:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Client(httpx.Client(base_url="http://service/v1", transport=httpx.MockTransport(handle)))


def test_a_refused_request_is_told_in_the_services_own_words() -> None:
    problem = httpx.Response(422, json={"code": "invalid_input", "detail": "name is too long"})
    with pytest.raises(DemoFailed, match=r"POST /v1/datasets: 422 .*name is too long"):
        _client(problem).create("/datasets", {"name": "x"})


def test_a_refused_download_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DemoFailed, match="404"):
        _client(httpx.Response(404, json={})).download("/adapters/x/download", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_service_that_is_gone_is_told() -> None:
    with pytest.raises(DemoFailed, match="cannot be reached"):
        _client(httpx.ConnectError("refused")).look("/datasets")
