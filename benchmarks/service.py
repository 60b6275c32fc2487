"""The service as a benchmark runs it: a Postgres database of its own, and each role as a process."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import create_engine, make_url, text

from core.db.session import Database
from core.keys import create_key
from migrations.run import upgrade

POSTGRES = os.environ.get("CAUSEWAY_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("CAUSEWAY_TEST_REDIS", "redis://127.0.0.1:6379/0")

_PATIENCE = 60.0  # seconds for a process to come up


@contextmanager
def database(server: str) -> Iterator[str]:
    """The URL of a new, migrated database on `server`; dropped at the end."""
    name = f"causeway_benchmark_{secrets.token_hex(4)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    try:
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
        upgrade(url)
        yield url
    finally:
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()


def environment(database_url: str, broker_url: str, folder: Path) -> dict[str, str]:
    """The settings that all roles share; files go to `folder`."""
    return {
        "CAUSEWAY_DATABASE__URL": database_url,
        "CAUSEWAY_BROKER__URL": broker_url,
        "CAUSEWAY_BROKER__NAMESPACE": f"benchmark-{secrets.token_hex(4)}",
        "CAUSEWAY_STORAGE__SPOOL": str(folder / "spool"),
        "CAUSEWAY_STORAGE__BLOBS": str(folder / "blobs"),
        "CAUSEWAY_STORAGE__RUNS": str(folder / "runs"),
        "CAUSEWAY_LOG_LEVEL": "WARNING",
    }


@contextmanager
def role(arguments: Sequence[str], settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python ARGUMENTS` beside us for the length of the block."""
    process = subprocess.Popen([sys.executable, *arguments], env=os.environ | dict(settings))
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def api(settings: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """An api process that is ready, and a client of it that has a key."""
    port = free_port()
    with (
        role(["-m", "api"], {**settings, "CAUSEWAY_API__PORT": str(port)}) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False) as http,
    ):
        wait_for(http, "/readyz")
        http.headers["Authorization"] = f"Bearer {_key(settings['CAUSEWAY_DATABASE__URL'])}"
        yield process, http


def wait_for(http: httpx.Client, path: str) -> None:
    """Ask until `path` answers well."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            http.get(path).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"{http.base_url} did not come up")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _key(url: str) -> str:
    keys = Database(url)
    with keys.transaction() as uow:
        _, secret = create_key(uow, tenant_id="benchmark", name="benchmark")
    keys.dispose()
    return secret
