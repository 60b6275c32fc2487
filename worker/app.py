"""The Celery application: how nudges travel. Messages carry a job id and nothing else; losing one loses nothing."""

from typing import Any

from celery import Celery
from kombu.exceptions import KombuError

from core.errors import Unavailable
from core.jobs import JobKind, Nudge, Publish
from core.settings import Settings

UPKEEP = "causeway.upkeep"

_CONNECT = 2.0  # seconds: publishing happens inside a request and must fail fast


def make_app(settings: Settings) -> Celery:
    """A Celery application without tasks: enough to publish. See worker.consumer for one that works."""
    url = "memory://localhost" if _in_memory(settings) else settings.broker.url
    app = Celery("causeway", broker=url, set_as_current=False)
    app.conf.update(
        # JSON ids in, nothing out: the row is the job.
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        # A task is done when it was received: what it leaves undone, the relay finds in the database.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        # Our logs are ours.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_timer_precision=0.2,  # seconds: how long a stop waits for an idle timer
        broker_connection_timeout=_CONNECT,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(settings),
    )
    return app


def publisher(app: Celery) -> Publish:
    """What sends a nudge, once: raises Unavailable within seconds when the broker is away."""

    def publish(nudge: Nudge) -> None:
        _send(app, task_name(nudge.kind), nudge.kind, nudge.job_id)

    return publish


def send_upkeep(app: Celery) -> None:
    """Ask a training worker to tidy its run folders. Raises Unavailable when the broker is away."""
    _send(app, UPKEEP, JobKind.TRAINING)


def backlog(app: Celery, kind: JobKind) -> int:
    """How many nudges wait in the queue of a kind. Raises Unavailable when the broker is away."""
    try:
        with app.connection_for_read() as connection:
            # Not passive: kombu forgets the key prefix when it looks whether a queue exists.
            declared = connection.default_channel.queue_declare(str(kind))
    except _BROKER_ERRORS as exc:
        raise Unavailable("the broker cannot be reached") from exc
    return int(declared.message_count)


def task_name(kind: JobKind) -> str:
    """The Celery task that works on jobs of a kind; its queue has the kind's own name."""
    return f"causeway.{kind}"


_BROKER_ERRORS = (KombuError, OSError)


def _send(app: Celery, name: str, kind: JobKind, *args: str) -> None:
    try:
        app.send_task(name, args=args, queue=str(kind), retry=False, ignore_result=True)
    except _BROKER_ERRORS as exc:
        raise Unavailable("the broker cannot be reached") from exc


def _transport_options(settings: Settings) -> dict[str, Any]:
    if _in_memory(settings):
        return {"polling_interval": 0.05}  # the default of 1 s makes every start slow
    return {
        "global_keyprefix": f"{settings.broker.namespace}:",
        "max_retries": 0,  # of a connection that is made to publish; a worker's own tries for ever
        "socket_connect_timeout": _CONNECT,
        "socket_timeout": 5.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def _in_memory(settings: Settings) -> bool:
    return settings.broker.url.startswith("memory:")
