"""How `python -m api` sends nudges: Celery messages, and no worker. The embedded service brings its own publisher.

The api and the worker do not import each other, so both say how a message is named; tests/api/test_broker.py holds
them together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from celery import Celery
from kombu.exceptions import KombuError

from core.errors import Unavailable
from core.jobs import Nudge
from core.settings import BrokerSettings

_CONNECT = 2.0  # seconds: nudges are sent inside of requests, and one that fails is sent again by the relay
_BROKER_ERRORS = (KombuError, OSError)


@dataclass(frozen=True, slots=True)
class Broker:
    """A connection to the broker, for sending only."""

    app: Celery

    def publish(self, nudge: Nudge) -> None:
        """Send a nudge. Raises Unavailable within seconds when the broker is away."""
        with _translated():
            self.app.send_task(
                f"causeway.{nudge.kind}", args=(nudge.job_id,), queue=str(nudge.kind), retry=False, ignore_result=True
            )

    def reach(self) -> None:
        """Raise Unavailable when nudges cannot be sent now."""
        with _translated(), self.app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=_CONNECT)


@contextmanager
def open_broker(settings: BrokerSettings) -> Iterator[Broker]:
    """The broker of `settings`; connected to when first needed."""
    app = Celery("causeway", broker=settings.url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        task_ignore_result=True,
        result_backend=None,
        broker_connection_timeout=_CONNECT,
        broker_transport_options={
            "global_keyprefix": f"{settings.namespace}:",
            "max_retries": 0,
            "socket_connect_timeout": _CONNECT,
            "socket_timeout": 5.0,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    try:
        yield Broker(app)
    finally:
        app.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _BROKER_ERRORS as exc:
        raise Unavailable("the broker cannot be reached") from exc
