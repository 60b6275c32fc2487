"""Postgres and Redis for a test run: found, or started for the run and stopped after it.

In this order: the URLs in CAUSEWAY_TEST_POSTGRES and CAUSEWAY_TEST_REDIS; a server on the usual local port; the
programs on this machine, on a free port and in a temporary folder; a container, where docker works. When none of these
is to be had, tests that ask for the URL are skipped, and fail where CI=true.

tests/conftest.py imports the two hooks; the controller of an xdist run starts the services once and hands the URLs to
its workers in the environment.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

POSTGRES, REDIS = "CAUSEWAY_TEST_POSTGRES", "CAUSEWAY_TEST_REDIS"

_PATIENCE = 60.0  # seconds for a server to come up
_running = contextlib.ExitStack()

Started = contextlib.AbstractContextManager[str]


def postgres_url() -> str:
    """postgresql+psycopg:// of a server on which the tests may create and drop databases; skips when there is none."""
    return _url_or_skip(POSTGRES, "Postgres")


def redis_url() -> str:
    """redis:// of a server in which the tests may use any database number; skips when there is none."""
    return _url_or_skip(REDIS, "Redis")


def pytest_configure(config: pytest.Config) -> None:
    """Find or start the services, once for a run."""
    if hasattr(config, "workerinput"):
        return  # an xdist worker: the controller has set the environment
    for variable, usual, answers, ways in (
        (POSTGRES, "postgresql+psycopg://postgres@127.0.0.1:5432/postgres", _postgres_answers, _POSTGRES_WAYS),
        (REDIS, "redis://127.0.0.1:6379/0", _redis_answers, _REDIS_WAYS),
    ):
        url = os.environ.get(variable) or (usual if answers(usual) else _start(ways, answers))
        if url:
            os.environ[variable] = url


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what pytest_configure started."""
    if not hasattr(config, "workerinput"):
        _running.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _url_or_skip(variable: str, name: str) -> str:
    url = os.environ.get(variable, "")
    if url:
        return url
    message = f"no {name}: none at {variable}, on the usual port, on the PATH or in docker"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _start(ways: tuple[Callable[[], Started | None], ...], answers: Callable[[str], bool]) -> str | None:
    for way in ways:
        started = way()
        if started is None:
            continue
        url = _running.enter_context(started)
        deadline = time.monotonic() + _PATIENCE
        while not answers(url):
            if time.monotonic() > deadline:
                raise RuntimeError(f"started a server for {url}, but it did not answer within {_PATIENCE:.0f} s")
            time.sleep(0.1)
        return url
    return None


def _postgres_answers(url: str) -> bool:
    try:
        psycopg.connect(url.replace("+psycopg", ""), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _redis_answers(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_connect_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _local_postgres() -> Started | None:
    initdb, postgres = _program("initdb"), _program("postgres")
    return None if initdb is None or postgres is None else _postgres_on_free_port(initdb, postgres)


@contextlib.contextmanager
def _postgres_on_free_port(initdb: str, postgres: str) -> Iterator[str]:
    with _folder_of_server() as (folder, user):
        data, port = folder / "data", free_port()
        subprocess.run(
            [initdb, "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D", data],
            check=True, user=user, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        # Durability is not under test here: the tests that need it start a server of their own.
        options = ["-c", "fsync=off", "-c", "max_connections=200", "-c", "listen_addresses=127.0.0.1"]
        with _process([postgres, "-D", data, "-k", folder, "-p", str(port), *options], user, folder / "log"):
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def _local_redis() -> Started | None:
    server = _program("redis-server")
    return None if server is None else _redis_on_free_port(server)


@contextlib.contextmanager
def _redis_on_free_port(server: str) -> Iterator[str]:
    with _folder_of_server() as (folder, user):
        port = free_port()
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
        with _process([server, *options], user, folder / "log"):
            yield f"redis://127.0.0.1:{port}/0"


def _container_of(image: str, port: int, url: str, *environment: str) -> Callable[[], Started | None]:
    def start() -> Started | None:
        docker = shutil.which("docker")
        if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode != 0:
            return None
        return _container(docker, image, port, url, environment)

    return start


@contextlib.contextmanager
def _container(docker: str, image: str, port: int, url: str, environment: tuple[str, ...]) -> Iterator[str]:
    published = free_port()
    variables = [part for variable in environment for part in ("--env", variable)]
    command = [docker, "run", "--rm", "--detach", "--publish", f"127.0.0.1:{published}:{port}", *variables, image]
    container = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield url.format(port=published)
    finally:
        subprocess.run([docker, "stop", "--time", "5", container], check=False, capture_output=True)


_POSTGRES_WAYS = (
    _local_postgres,
    _container_of(
        "postgres:17",
        5432,
        "postgresql+psycopg://postgres@127.0.0.1:{port}/postgres",
        "POSTGRES_HOST_AUTH_METHOD=trust",
    ),
)
_REDIS_WAYS = (_local_redis, _container_of("redis:7", 6379, "redis://127.0.0.1:{port}/0"))


def _program(name: str) -> str | None:
    """A server program: on the PATH, or where Debian and Homebrew keep those of Postgres, newest first."""
    kept = [
        *Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
        *Path("/opt/homebrew/opt").glob(f"postgresql@*/bin/{name}"),
    ]
    return shutil.which(name) or next((str(path) for path in sorted(kept, reverse=True)), None)


@contextlib.contextmanager
def _folder_of_server() -> Iterator[tuple[Path, str | None]]:
    """A temporary folder and the user to run in it: Postgres refuses to run as root."""
    user = None
    with tempfile.TemporaryDirectory(prefix="causeway-test-") as name:
        if os.geteuid() == 0:
            known = {entry.pw_name for entry in pwd.getpwall()}
            user = "postgres" if "postgres" in known else "nobody"
            os.chown(name, pwd.getpwnam(user).pw_uid, -1)
        yield Path(name), user


@contextlib.contextmanager
def _process(command: list[str | Path], user: str | None, log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, user=user, stdout=out, stderr=out, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)  # Postgres: fast shutdown; Redis: shutdown
        process.wait(timeout=_PATIENCE)
