"""The api and the workers do not import each other. What one sends, the other must receive."""

import pytest
from kombu import Connection

from api.broker import open_broker
from core.errors import Unavailable
from core.jobs import JobKind, Nudge
from core.settings import BrokerSettings, Settings
from tests import services
from worker.app import make_app, publisher, task_name

AWAY = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize("kind", list(JobKind))
def test_a_nudge_is_what_a_worker_expects(kind: JobKind) -> None:
    settings = BrokerSettings(url=services.redis_url(), namespace="test_api_broker")
    worker = make_app(Settings(broker=settings))
    ours, theirs = [], []
    with open_broker(settings) as broker, worker.connection_for_read() as connection:
        for send, found in ((broker.publish, ours), (publisher(worker), theirs)):
            send(Nudge(kind, "job_1"))
            found.append(_received(connection, str(kind)))
        broker.reach()
    worker.close()
    assert ours == theirs
    assert ours[0] == (task_name(kind), [["job_1"], {}])


def test_a_broker_that_is_away_is_said_to_be() -> None:
    with open_broker(BrokerSettings(url=AWAY)) as broker:
        with pytest.raises(Unavailable):
            broker.publish(Nudge(JobKind.TRAINING, "job_1"))
        with pytest.raises(Unavailable):
            broker.reach()


def _received(connection: Connection, queue: str) -> tuple[str, list[object]]:
    with connection.SimpleQueue(queue) as messages:
        message = messages.get(timeout=10)
        message.ack()
        return message.headers["task"], message.payload[:2]
