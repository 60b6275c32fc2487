"""`python -m worker annotation | training | relay`: one role, until SIGTERM or SIGINT."""

import argparse
import signal
import sys
import threading
from types import FrameType

import structlog

from core.jobs import JobKind
from core.logs import configure_logs
from core.settings import Settings
from worker.consumer import consuming
from worker.relay import run_relay
from worker.runtime import Runtime, open_runtime

_log = structlog.get_logger("worker")

_RELAY = "relay"


def main(arguments: list[str] | None = None) -> int:
    """Run a role; returns the exit status: 0 when it was asked to go, 1 when it gave up."""
    role = _parser().parse_args(arguments).role
    settings = Settings()
    configure_logs(settings.log_level, as_json=settings.log_json)
    stop = _stop_on_signals()
    with open_runtime(settings) as runtime:
        _log.info("started", role=role)
        status = _relay(runtime, stop) if role == _RELAY else _consume(runtime, JobKind(role), stop)
        _log.info("stopped", role=role, status=status)
    return status


def _relay(runtime: Runtime, stop: threading.Event) -> int:
    run_relay(runtime, stop)
    return 0


def _consume(runtime: Runtime, kind: JobKind, stop: threading.Event) -> int:
    with consuming(runtime, [kind]) as workers:
        while workers.alive():
            if stop.wait(1.0):
                return 0
    return 1


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Run one role of the service.")
    parser.add_argument("role", choices=[*map(str, JobKind), _RELAY], help="what this process does")
    return parser


if __name__ == "__main__":
    sys.exit(main())
