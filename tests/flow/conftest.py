"""The whole service on real Postgres and Redis, each role a process of its own, with a teacher over HTTP."""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from core.db.session import Database
from core.keys import create_key
from migrations.run import upgrade
from tests.flow.processes import answers, running, wait_until
from tests.services import free_port, postgres_url, redis_url


@dataclass(frozen=True)
class Service:
    """Where the service listens, how it is configured, and a key to it."""

    url: str
    environment: dict[str, str]
    key: str
    logs: Path
    folder: Path

    def http(self) -> httpx.Client:
        """An HTTP client that has the key; close it."""
        return httpx.Client(base_url=f"{self.url}/v1", headers=_bearer(self.key), timeout=30)


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """A database of our own, migrated, dropped at the end."""
    server = postgres_url()
    name = f"causeway_flow_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = server.rsplit("/", 1)[0] + f"/{name}"
    try:
        upgrade(url)
        yield url
    finally:
        with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def service(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """api, relay, annotation worker, training worker and a fake teacher, as separate OS processes."""
    folder = tmp_path_factory.mktemp("service")
    teacher, port = free_port(), free_port()
    api = f"http://127.0.0.1:{port}"
    environment = {
        "CAUSEWAY_DATABASE__URL": database_url,
        # Queues of our own on the shared Redis: another run may be going on beside us.
        "CAUSEWAY_BROKER__URL": redis_url(),
        "CAUSEWAY_BROKER__NAMESPACE": uuid.uuid4().hex[:12],
        "CAUSEWAY_STORAGE__BLOBS": str(folder / "blobs"),
        "CAUSEWAY_STORAGE__RUNS": str(folder / "runs"),
        "CAUSEWAY_STORAGE__SPOOL": str(folder / "spool"),
        "CAUSEWAY_API__PORT": str(port),
        "CAUSEWAY_JOBS__RELAY": "0.5",
        "CAUSEWAY_JOBS__HEARTBEAT": "0.5",
        "CAUSEWAY_JOBS__LEASE": "10",
        "CAUSEWAY_TEACHERS": json.dumps(
            {
                "fake": {"base_url": f"http://127.0.0.1:{teacher}/v1", "model": "fake", "api_key": "sk-test"},
                "nobody": {
                    "base_url": f"http://127.0.0.1:{free_port()}/v1",
                    "model": "absent",  # another model: what `fake` has answered is remembered by model and prompt
                    "api_key": "sk-test",
                    "max_attempts": 2,
                    "deadline": 5,
                },
            }
        ),
        "CAUSEWAY_CACHE": str(folder / "cache"),
    }
    roles = {
        "teacher": ["-m", "tests.fake_teacher", "--port", str(teacher)],
        "api": ["-m", "api"],
        "relay": ["-m", "worker", "relay"],
        "annotation": ["-m", "worker", "annotation"],
        "training": ["-m", "worker", "training"],
    }
    with ExitStack() as stack:
        for name, arguments in roles.items():
            stack.enter_context(running(name, arguments, environment=environment, logs=folder))
        wait_until(lambda: answers(f"{api}/readyz"), what="the api")
        yield Service(api, environment, _key(database_url), folder, folder)


def _key(database_url: str) -> str:
    database = Database(database_url)
    try:
        with database.transaction() as uow:
            _, secret = create_key(uow, tenant_id="flow", name="flow", scopes=["read", "write"], expires_at=None)
        return secret
    finally:
        database.dispose()


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
