"""A runtime on each database: the quick rhythm of the test profile, an in-memory broker, stand-ins for the engines."""

import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from core.db.session import Database
from core.jobs import JobKind
from core.settings import BrokerSettings, DatabaseSettings, JobSettings, Settings, StorageSettings
from core.storage import BlobStore
from tests.services import redis_url
from worker.app import make_app
from worker.runtime import Runtime, trainer_command

FAKE_TRAINER = Path(__file__).parent / "fake_trainer.py"
PATIENCE = 60.0  # seconds; a bound on hanging, not on speed


def runtime_on(database: Database, folder: Path, *, broker: str = "memory://") -> Runtime:
    """A runtime of its own: nothing it knows is shared but the database."""
    settings = Settings(
        database=DatabaseSettings(url="sqlite://"),
        broker=BrokerSettings(url=broker, namespace=f"test-{secrets.token_hex(8)}"),
        storage=StorageSettings(blobs=folder / "blobs", runs=folder / "runs", spool=folder / "spool"),
        jobs=JobSettings(lease=2.0, heartbeat=0.2, relay=0.2, slice=30.0, cancel_grace=0.5),
    )
    blobs = BlobStore(settings.storage.blobs)
    return Runtime(settings, make_app(settings), database, blobs, trainer_command(settings.jobs))


def training_with(runtime: Runtime, behaviour: str) -> Runtime:
    """The same runtime with a fake trainer that does as `behaviour` says."""
    return replace(runtime, trainer=(sys.executable, str(FAKE_TRAINER), behaviour))


@pytest.fixture
def redis_runtime(postgres: Database, tmp_path: Path) -> Iterator[Runtime]:
    """A runtime on real services, with queues of its own."""
    url = redis_url()
    made = runtime_on(postgres, tmp_path, broker=url)
    yield made
    made.app.close()
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"{made.settings.broker.namespace}:*"):
            client.delete(key)


@pytest.fixture
def runtime(database: Database, tmp_path: Path) -> Iterator[Runtime]:
    made = runtime_on(database, tmp_path)
    yield made
    made.app.close()


@pytest.fixture
def sqlite_runtime(sqlite: Database, tmp_path: Path) -> Iterator[Runtime]:
    """A runtime on SQLite alone, for what does not depend on the database."""
    made = runtime_on(sqlite, tmp_path)
    yield made
    made.app.close()


@pytest.fixture
def postgres_runtime(postgres: Database, tmp_path: Path) -> Iterator[Runtime]:
    """A runtime on Postgres alone, for what an embedded service does not promise."""
    made = runtime_on(postgres, tmp_path)
    yield made
    made.app.close()


def purge(runtime: Runtime) -> None:
    """Empty the queues; of memory:// there is one broker for the whole process."""
    with runtime.app.connection_for_write() as connection:
        for kind in JobKind:
            connection.default_channel.queue_declare(str(kind))
            connection.default_channel.queue_purge(str(kind))


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.02)


def in_background(work: Callable[[], object]) -> threading.Thread:
    """Work started in a thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() != "" and not state.startswith("Z")


def left_behind(trainer: list[str], folder: Path) -> int:
    """The process id of a trainer whose supervisor was killed with SIGKILL."""
    script = (
        "import time; from pathlib import Path; from worker.supervisor import Child\n"
        f"with Child({trainer!r}, Path({str(folder)!r})): time.sleep(600)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", script])
    lock = folder / "trainer.lock"
    wait_until(lambda: lock.exists() and lock.read_text() != "")
    orphan = int(lock.read_text())
    supervisor.kill()
    supervisor.wait()
    assert runs(orphan)
    return orphan
