"""The service as a child process, on a folder and a port of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.demo.client import Client, DemoFailed

_START = 120.0  # seconds until the service must answer
_STOP = 30.0  # seconds until it must be gone after SIGTERM
_REQUEST = 120.0  # seconds for one answer


@dataclass(frozen=True, slots=True)
class Started:
    """A running service, as the demo needs it."""

    url: str
    client: Client


@contextmanager
def service(folder: Path, *, log: Path, trainings: int) -> Iterator[Started]:
    """Run `causeway serve` until the block ends; everything it stores lies in `folder`, its output in `log`.

    `trainings` jobs may train at the same time, on one thread each.

    Raises
    ------
    DemoFailed
        When it ends by itself or does not answer in time.
    """
    environment = _environment(folder, trainings)
    _causeway(["migrate"], environment, log)
    key = _causeway(["keys", "create", "--name", "demo", "--quiet"], environment, log).strip()
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "serve", "--port", str(port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_ready(process, url, log)
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=_REQUEST, trust_env=False) as http:
            yield Started(url, Client(http))
    finally:
        _stop(process)


def _environment(folder: Path, trainings: int) -> Mapping[str, str]:
    """The caller's environment, so that their teachers work; database, broker and storage are the demo's own."""
    return os.environ | {
        "CAUSEWAY_DATABASE__URL": f"sqlite:///{folder / 'causeway.db'}",
        "CAUSEWAY_BROKER__URL": "memory://",
        "CAUSEWAY_STORAGE__BLOBS": str(folder / "blobs"),
        "CAUSEWAY_STORAGE__RUNS": str(folder / "runs"),
        "CAUSEWAY_STORAGE__SPOOL": str(folder / "spool"),
        "CAUSEWAY_JOBS__TRAINING_CONCURRENCY": str(trainings),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _causeway(arguments: list[str], environment: Mapping[str, str], log: Path) -> str:
    """The stdout of a causeway command that must succeed."""
    with log.open("ab") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise DemoFailed(f"`causeway {arguments[0]}` failed (exit {done.returncode}); see {log}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoFailed(f"the service ended with exit {process.returncode} before it answered; see {log}")
        try:
            if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise DemoFailed(f"the service did not answer at {url} within {_START:.0f} s; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
