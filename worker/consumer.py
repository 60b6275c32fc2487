"""Celery workers as threads of this process, each taking one kind of nudge."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from celery import Celery
from celery.worker import WorkController, state

from core.jobs import JobKind
from core.settings import JobSettings
from worker.app import UPKEEP, make_app, task_name
from worker.runtime import Runtime
from worker.tasks.annotation import annotate
from worker.tasks.training import train
from worker.tasks.upkeep import sweep_runs

_log = structlog.get_logger(__name__)


class Workers:
    """The workers of a process."""

    def __init__(self, threads: Sequence[threading.Thread]) -> None:
        self._threads = threads

    def alive(self) -> bool:
        """Whether none has given up. One that has will not come back: the process should end, and be started again."""
        return all(thread.is_alive() for thread in self._threads)


@contextmanager
def consuming(runtime: Runtime, kinds: Sequence[JobKind]) -> Iterator[Workers]:
    """Take nudges of these kinds while the block runs, then let go: what is in flight is finished or handed back.

    The broker need not be there yet. Celery keeps one stop flag per process, so there is one such block at a time.
    """
    workers = [_worker(runtime, kind) for kind in kinds]
    threads = [threading.Thread(target=worker.start, name=worker.hostname, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield Workers(threads)
    finally:
        runtime.draining.set()
        state.should_stop = 0  # the exit status
        for thread in threads:
            thread.join()
        state.should_stop = None
        for worker in workers:
            worker.app.close()


def _worker(runtime: Runtime, kind: JobKind) -> WorkController:
    app = make_app(runtime.settings)  # of its own: an application remembers which queues its worker takes from
    _register_tasks(app, runtime)
    return WorkController(
        app=app,
        hostname=f"{kind}@%h",
        queues=[str(kind)],
        pool="threads",
        concurrency=_concurrency(runtime.settings.jobs, kind),
        # Workers do not talk to each other: the database is where they meet.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        # The plain loop: it looks at the stop flag often, and needs nothing that is global to a process.
        use_eventloop=False,
    )


def _concurrency(rhythm: JobSettings, kind: JobKind) -> int:
    return rhythm.annotation_concurrency if kind is JobKind.ANNOTATION else rhythm.training_concurrency


def _register_tasks(app: Celery, runtime: Runtime) -> None:
    def annotation(job_id: str) -> None:
        annotate(runtime, job_id)

    def training(job_id: str) -> None:
        train(runtime, job_id)

    def upkeep() -> None:
        sweep_runs(runtime)

    app.task(name=task_name(JobKind.ANNOTATION), shared=False)(annotation)
    app.task(name=task_name(JobKind.TRAINING), shared=False)(training)
    app.task(name=UPKEEP, shared=False)(upkeep)
    app.finalize()
    app.set_default()  # Celery looks its tasks up on the default application when it runs them in a thread
