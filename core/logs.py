"""Structured logs, the same in every process: one event a line, with the ids of what it is about.

User text never reaches a log. Nobody passes it as a field, and an exception is logged by its type and place: the
message is shown only for our own errors, which are written without user text (those of a database or a validator quote
the values).
"""

import logging
import sys
import traceback
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from core.errors import CausewayError

# These report each request or task at INFO, which we log ourselves with more to say.
_CHATTY = ("httpx", "httpx2", "httpcore", "celery.worker.strategy", "celery.app.trace", "uvicorn.access", "alembic")


def configure_logs(level: str, *, as_json: bool | None) -> None:
    """Send the logs of this process, ours and those of libraries, to stderr. Called at entry points only.

    Parameters
    ----------
    level
        Name of the lowest level that is shown: DEBUG, INFO, WARNING or ERROR.
    as_json
        One JSON object a line, or lines for a person; None: the latter on a terminal only.
    """
    on_terminal = sys.stderr.isatty()
    as_json = not on_terminal if as_json is None else as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _place_of_exception,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    render: Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=on_terminal)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _place_of_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace exc_info by `errors`, outermost first, and `at`, the frames of the root cause."""
    info = event.pop("exc_info", None)
    if not info:
        return event
    error = info if isinstance(info, BaseException) else (info if isinstance(info, tuple) else sys.exc_info())[1]
    event["errors"], event["at"] = [], []
    while error is not None:
        event["errors"].append(_named(error))
        frames = traceback.extract_tb(error.__traceback__)
        event["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return event


def _named(error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    return f"{name}: {error.message}" if isinstance(error, CausewayError) else name


def job_context(**ids: Any) -> None:
    """Bind ids (job_id, tenant_id, epoch) to every later log line of this task or thread."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**ids)
