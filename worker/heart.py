"""A lease kept alive from a thread of its own, whatever the work is busy with."""

import threading
from types import TracebackType
from typing import Self

import structlog

from core import leases
from core.db.session import Database
from core.errors import LeaseLost, Unavailable
from core.leases import Claim
from core.settings import JobSettings

_log = structlog.get_logger(__name__)


class Heart:
    """Beats while its block runs. Beats that cannot reach the database are skipped: the fence decides, not we."""

    def __init__(self, database: Database, claim: Claim, rhythm: JobSettings) -> None:
        self.cancelled = threading.Event()  # the owner of the job wants it to stop
        self.lost = threading.Event()  # the job is another worker's now
        self._database, self._claim, self._rhythm = database, claim, rhythm
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heart-{claim.job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        # The first beat is at once: a job may be claimed while it is being cancelled.
        wait = 0.0
        while not self._stop.wait(wait):
            wait = self._rhythm.heartbeat
            try:
                with self._database.transaction() as uow:
                    orders = leases.heartbeat(uow, self._claim, lease=self._rhythm.lease)
            except LeaseLost:
                self.lost.set()
                return
            except Unavailable as exc:
                _log.warning("heartbeat_skipped", job_id=self._claim.job_id, reason=exc.message)
            else:
                if orders.cancel:
                    self.cancelled.set()
