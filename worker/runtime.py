"""What every task needs, built once per process and handed down: nothing is global."""

import math
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from celery import Celery

from annotator.annotate import new_health, open_teacher
from annotator.teachers.base import Purse, Teacher
from annotator.teachers.health import EndpointHealth
from core.db.session import Database
from core.domain.annotation import Prior, TeacherConfig
from core.settings import JobSettings, Settings
from core.storage import BlobStore
from worker.app import make_app, publisher


class OpenTeacher(Protocol):
    """annotator.annotate.open_teacher, or a stand-in."""

    def __call__(
        self, config: TeacherConfig, prior: Prior, *, health: EndpointHealth | None = None, purse: Purse | None = None
    ) -> AbstractAsyncContextManager[Teacher]:
        """A teacher for the length of a block."""


@dataclass(frozen=True)
class Runtime:
    """The surroundings of a task."""

    settings: Settings
    app: Celery
    database: Database
    blobs: BlobStore
    trainer: tuple[str, ...]  # trainer_command, or a stand-in
    # Set when the process is to go: tasks finish what is in flight, hand the rest back and start nothing new.
    draining: threading.Event = field(default_factory=threading.Event)
    open_teacher: OpenTeacher = open_teacher
    # What was learned about each teacher's endpoint; it belongs to the endpoint and outlives a slice.
    health: dict[str, EndpointHealth] = field(default_factory=dict)

    def health_of(self, config: TeacherConfig) -> EndpointHealth:
        """The state of a teacher's endpoint, shared by all slices of this process."""
        return self.health.setdefault(config.name, new_health(config))


def trainer_command(jobs: JobSettings) -> tuple[str, ...]:
    """What starts a trainer, but for its run folder."""
    if jobs.training_processes == 1:
        return (sys.executable, "-m", "trainer")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", str(jobs.training_processes)]
    # By itself it waits 30 s for processes that it told to stop, and then kills them at their checkpoint.
    torchrun += ["--shutdown-timeout", str(math.ceil(jobs.cancel_grace))]
    return (*torchrun, "-m", "trainer")


@contextmanager
def open_runtime(settings: Settings) -> Iterator[Runtime]:
    """The runtime of a process that has no other use for a database. Connections are made when first needed."""
    app = make_app(settings)
    database = Database(settings.database.url, pool_size=settings.database.pool_size, publish=publisher(app))
    try:
        yield Runtime(settings, app, database, BlobStore(settings.storage.blobs), trainer_command(settings.jobs))
    finally:
        database.dispose()
        app.close()
