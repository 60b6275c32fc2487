"""A role as its own process: it works, and goes when it is asked to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.domain.lifecycle import JobState
from tests import scenes
from tests.worker.conftest import wait_until
from worker.runtime import Runtime


def _start(role: str, runtime: Runtime, log: Path) -> "subprocess.Popen[bytes]":
    settings = {
        "CAUSEWAY_DATABASE__URL": runtime.database.engine.url.render_as_string(hide_password=False),
        "CAUSEWAY_BROKER__URL": runtime.settings.broker.url,
        "CAUSEWAY_BROKER__NAMESPACE": runtime.settings.broker.namespace,
        "CAUSEWAY_STORAGE__BLOBS": str(runtime.settings.storage.blobs),
        "CAUSEWAY_STORAGE__RUNS": str(runtime.settings.storage.runs),
        "CAUSEWAY_JOBS__RELAY": "0.2",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CAUSEWAY_")}
    with log.open("wb") as out:
        return subprocess.Popen([sys.executable, "-m", "worker", role], env=kept | settings, stderr=out, stdout=out)


def test_a_job_nobody_was_told_of_is_found_and_done(redis_runtime: Runtime, tmp_path: Path) -> None:
    job = scenes.annotation_job(redis_runtime.database)  # without a publisher: only the outbox knows
    roles = [_start(role, redis_runtime, tmp_path / f"{role}.log") for role in ("relay", "annotation")]
    try:
        wait_until(lambda: scenes.row(redis_runtime.database, job.id).finished_at is not None)
        assert scenes.row(redis_runtime.database, job.id).state == JobState.SUCCEEDED
        for process in roles:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in roles] == [0, 0]
    finally:
        for process in roles:
            process.kill()
            process.wait()
    logs = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert job.id in logs
    assert "sun 00?" not in logs


def test_a_role_that_does_not_exist() -> None:
    made = subprocess.run([sys.executable, "-m", "worker", "juggler"], capture_output=True, check=False, text=True)
    assert made.returncode == 2
    assert "annotation" in made.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_goes_on_either_signal(redis_runtime: Runtime, tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "relay.log"
    process = _start("relay", redis_runtime, log)
    wait_until(lambda: '"started"' in log.read_text())
    process.send_signal(number)
    assert process.wait(60) == 0
