"""The worker side of a service that runs in one process: both kinds of worker and the relay, as threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.jobs import JobKind
from worker.consumer import Workers, consuming
from worker.relay import run_relay
from worker.runtime import Runtime


@contextmanager
def embedded(runtime: Runtime) -> Iterator[Workers]:
    """Work while the block runs, in threads. With memory:// the publisher must use `runtime.app` in this process."""
    with relaying(runtime), consuming(runtime, list(JobKind)) as workers:
        yield workers


@contextmanager
def relaying(runtime: Runtime) -> Iterator[threading.Thread]:
    """Run the relay in a thread while the block runs."""
    stop = threading.Event()
    thread = threading.Thread(target=run_relay, args=(runtime, stop), name="relay", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()
