"""A nudge that could not be sent waits in the outbox."""

import pytest

from core import outbox
from core.db.session import Database
from core.errors import Unavailable
from core.jobs import JobKind, Nudge
from tests import scenes


def test_what_was_promised_is_sent_in_order_and_once(database: Database) -> None:
    jobs = [scenes.annotation_job(database).id, scenes.training_job(database).id]
    sent: list[Nudge] = []
    with database.transaction() as uow:
        assert outbox.send_promised(uow, sent.append) == 2
    assert sent == [Nudge(JobKind.ANNOTATION, jobs[0]), Nudge(JobKind.TRAINING, jobs[1])]
    with database.transaction() as uow:
        assert outbox.send_promised(uow, sent.append) == 0


def test_what_cannot_be_sent_stays(database: Database) -> None:
    job = scenes.annotation_job(database)

    def away(_: Nudge) -> None:
        raise Unavailable("no broker")

    with pytest.raises(Unavailable), database.transaction() as uow:
        outbox.send_promised(uow, away)
    assert scenes.promised(database) == [job.id]


def test_a_broker_that_is_away_does_not_fail_the_request(sqlite: Database) -> None:
    def away(_: Nudge) -> None:
        raise Unavailable("no broker")

    database = Database(str(sqlite.engine.url), publish=away)
    job = scenes.annotation_job(database)
    assert scenes.promised(database) == [job.id]
    database.dispose()
