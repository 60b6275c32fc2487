"""`causeway serve`: the whole service in one process."""

import signal
import socket
import threading
from types import FrameType
from typing import Annotated

import structlog
import typer
import uvicorn

from api.app import create_app
from api.broker import open_broker
from cli.configuration import load_settings
from cli.console import err, out
from cli.keys import TENANT
from core.db.session import Database
from core.errors import Conflict
from core.keys import create_key, list_keys
from core.logs import configure_logs
from migrations.run import upgrade
from worker.consumer import Workers
from worker.embedded import embedded
from worker.runtime import open_runtime

_log = structlog.get_logger(__name__)

_WATCH = 1.0  # seconds between two looks at the workers
_GRACE = 10  # seconds that open event streams may hold up the end of the process


def serve(
    host: Annotated[str | None, typer.Option(help="Default: CAUSEWAY_API__HOST, which is 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Default: CAUSEWAY_API__PORT, 8000.")] = None,
) -> None:
    """Run everything in one process: api, relay, annotation worker, training worker. Ctrl-C stops it.

    Without settings it keeps SQLite and files in ./var and needs nothing else. With CAUSEWAY_DATABASE__URL and
    CAUSEWAY_BROKER__URL it works on those, beside other processes if there are any. Brings the database up to date
    first; the first start prints an API key, once.
    """
    settings = load_settings()
    configure_logs(settings.log_level, as_json=settings.log_json)
    upgrade(settings.database.url)
    signal.signal(signal.SIGTERM, _leave)
    listening = _listen(host or settings.api.host, settings.api.port if port is None else port)
    with open_runtime(settings) as runtime, open_broker(settings.broker) as broker, embedded(runtime) as workers:
        app = create_app(settings, runtime.database, blobs=runtime.blobs, reach_broker=broker.reach)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,  # ours, see core/logs.py
                access_log=False,  # ours, see api/access_log.py
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        _first_key(runtime.database)
        out.print(f"Causeway listens on {_url(listening)} (the API explains itself at /docs)", markup=False)
        threading.Thread(target=_watch, args=(workers, server), name="watch", daemon=True).start()
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            err.print("stopping: what is in flight is finished or handed back")
        healthy = workers.alive()
    if not healthy:
        _log.error("worker_gave_up")
        raise typer.Exit(1)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as exc:
        raise Conflict(f"cannot listen on {host}, port {port}: {exc.strerror}; choose another with --port") from exc


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _leave(_number: int, _frame: FrameType | None) -> None:
    # uvicorn raises the signal again once its own shutdown is done: end as on Ctrl-C, so that the workers drain.
    raise KeyboardInterrupt


def _first_key(database: Database) -> None:
    """There is no default key; a service without any makes one and shows it this once."""
    with database.reading() as session:
        if list_keys(session):
            return
    with database.transaction() as uow:
        _, secret = create_key(uow, tenant_id=TENANT, name="first")
    out.print("API key, shown once, so keep it:", markup=False)
    out.print(secret, markup=False, soft_wrap=True)


def _watch(workers: Workers, server: uvicorn.Server) -> None:
    """End the service when one of its workers has given up: half a service is worse than a restart."""
    pause = threading.Event()
    while workers.alive() and not server.should_exit:
        pause.wait(_WATCH)
    server.should_exit = True
