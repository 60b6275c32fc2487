"""What travels through the broker."""

import json

import pytest

from core.db.session import Database
from core.errors import Unavailable
from core.jobs import JobKind, Nudge
from tests.services import free_port
from tests.worker.conftest import runtime_on
from worker.app import backlog, publisher
from worker.runtime import Runtime


@pytest.mark.parametrize("kind", list(JobKind))
def test_a_nudge_is_an_id_in_json_and_nothing_more(redis_runtime: Runtime, kind: JobKind) -> None:
    publisher(redis_runtime.app)(Nudge(kind, "job_42"))
    with redis_runtime.app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(str(kind), no_ack=True)
    assert message is not None
    assert message.content_type == "application/json"
    assert message.headers["task"] == f"causeway.{kind}"
    assert message.headers["eta"] is None
    assert json.loads(message.body)[:2] == [["job_42"], {}]


def test_services_on_one_redis_do_not_hear_each_other(redis_runtime: Runtime, sqlite: Database, tmp_path) -> None:
    other = runtime_on(sqlite, tmp_path / "other", broker=redis_runtime.settings.broker.url)
    publisher(redis_runtime.app)(Nudge(JobKind.TRAINING, "tr_mine"))
    assert (backlog(redis_runtime.app, JobKind.TRAINING), backlog(other.app, JobKind.TRAINING)) == (1, 0)
    other.app.close()


def test_a_broker_that_is_away_is_a_fact_not_a_crash(sqlite: Database, tmp_path) -> None:
    runtime = runtime_on(sqlite, tmp_path, broker=f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(Unavailable):
        backlog(runtime.app, JobKind.TRAINING)
    with pytest.raises(Unavailable):
        publisher(runtime.app)(Nudge(JobKind.TRAINING, "tr_1"))
    runtime.app.close()
