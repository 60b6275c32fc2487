"""The service as an operator runs it: one OS process a role, on real Postgres and Redis, killed at the end."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

_PATIENCE = 60.0  # seconds for a process to come up; never a bound on speed, only on hanging


@contextmanager
def running(
    name: str, arguments: list[str], *, environment: Mapping[str, str], logs: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python arguments...` until the block ends; its output goes to logs/NAME.log."""
    with (logs / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**_inherited(), **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
        if process.poll() not in (None, 0):
            raise AssertionError(f"{name} died with {process.returncode}:\n{tail(logs, name)}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(ready: Callable[[], bool], *, what: str, patience: float = _PATIENCE) -> None:
    """Poll `ready` until it is true."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up waiting for {what}")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether `url` answers 200 now."""
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def tail(logs: Path, name: str) -> str:
    """The end of a process's log."""
    return (logs / f"{name}.log").read_text(errors="replace")[-4000:]


def _inherited() -> dict[str, str]:
    """What a process needs from ours. Nothing of CAUSEWAY_: a test says all of that itself."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CAUSEWAY_")}
    return kept | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
