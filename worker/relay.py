"""The relay: makes nudges disposable. It sends what was promised and not sent, finds jobs that nobody works on, and
takes back leases that ran out. Any number of relays may run.
"""

import threading
import time

import structlog

from core import leases, outbox, teacher_batches
from core.errors import Unavailable
from core.jobs import JobKind
from worker.app import backlog, publisher, send_upkeep
from worker.runtime import Runtime
from worker.tasks.upkeep import sweep_blobs

_log = structlog.get_logger(__name__)

_UPKEEP = 3600.0  # seconds
_MOST = 1000  # nudges sent again at a time


def run_relay(runtime: Runtime, stop: threading.Event) -> None:
    """Tick every `settings.jobs.relay` seconds until `stop` is set. What is away is tried again at the next tick."""
    upkeep_at = time.monotonic()
    while not stop.is_set():
        try:
            tick(runtime)
            if time.monotonic() >= upkeep_at:
                upkeep_at = time.monotonic() + _UPKEEP
                sweep_blobs(runtime)
                send_upkeep(runtime.app)
        except Unavailable as exc:
            _log.warning("relay_waits", reason=exc.message)
        except Exception:  # noqa: BLE001 (the relay is what heals the others: it must outlive its own bugs)
            _log.exception("relay_broke")
        stop.wait(runtime.settings.jobs.relay)


def tick(runtime: Runtime) -> None:
    """Do everything once.

    Raises
    ------
    Unavailable
        When database or broker is away; leases that ran out were taken back all the same if the database is there.
    """
    with runtime.database.transaction() as uow:
        expired = leases.expire(uow, max_attempts=runtime.settings.jobs.max_attempts)
    publish = publisher(runtime.app)
    with runtime.database.transaction() as uow:
        sent = outbox.send_promised(uow, publish)
    again = sum(_nudge_waiting(runtime, kind) for kind in JobKind)
    if expired or sent or again:
        _log.info("relay_ticked", expired=expired, sent=sent, nudged_again=again)


def _nudge_waiting(runtime: Runtime, kind: JobKind) -> int:
    """Nudge the jobs of a kind that nobody works on, unless as many nudges wait in its queue already.

    So a lost queue is filled again, and one that is merely busy does not grow. Among them are those that are over and
    left batches at their teacher.
    """
    with runtime.database.reading() as session:
        waiting = list(leases.runnable(session, kind=kind, limit=_MOST))
        if kind is JobKind.ANNOTATION:
            waiting += teacher_batches.left_behind(session, limit=_MOST)
    if not waiting or backlog(runtime.app, kind) >= len(waiting):
        return 0
    publish = publisher(runtime.app)
    for nudge in waiting:
        publish(nudge)
    return len(waiting)
