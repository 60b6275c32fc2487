"""Batch mode against an endpoint that expires, errors, reorders, doubles, omits and forgets."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from core.db.models import TeacherReply
from core.domain.lifecycle import JobState
from tests import scenes
from tests.fake_batches import FakeBatches
from tests.worker.batch_scenes import (
    CALL_TOKENS,
    batches,
    items,
    job_in_batches,
    outcomes,
    slice_of,
    taught_by,
    until_it_stops,
)
from tests.worker.conftest import wait_until
from worker.embedded import embedded
from worker.runtime import Runtime


def test_answers_in_any_order_reach_their_items(runtime: Runtime) -> None:
    def answer(body: dict[str, Any]) -> str:
        number = body["messages"][-1]["content"].split("sun ")[1][:2]
        cause = {"quote": f"sun {number}" if int(number) % 2 else "sun", "segment": 1}
        return json.dumps({"relations": [{"effect": {"quote": "yes", "segment": 2}, "causes": [cause]}]})

    job = job_in_batches(runtime, 25)
    with FakeBatches(answer=answer).serving() as fake:
        taught = taught_by(runtime, fake, batch_lines=10)
        waiting = slice_of(taught, job)
        assert (waiting.state, waiting.lease_until, waiting.done) == (JobState.RUNNING, None, 0)
        assert waiting.progress["batches"] == {"open": 3, "open_lines": 25, "open_answered": 0, "ended": 0}
        ended = until_it_stops(taught, job)
        assert outcomes(ended) == {"labelled": 25}
        assert set(fake.asked.values()) == {1}
        assert [len(fake.lines_of(number)) for number in range(3)] == [10, 10, 5]
        assert (ended.spent_tokens, ended.reserved_tokens) == (25 * 120, 0)
    for number, item in enumerate(items(runtime, job)):
        assert item.relations is not None
        [relation] = item.relations
        assert relation["causes"][0]["end"] == (6 if number % 2 else 3)
        assert (item.prompt_tokens, item.completion_tokens) == (100, 20)
    assert ended.progress["batches"] == {"open": 0, "open_lines": 0, "open_answered": 0, "ended": 3}


def test_only_what_is_missing_is_asked_again(runtime: Runtime) -> None:
    job = job_in_batches(runtime, 12)
    first = items(runtime, job)[0].id
    fates = ["ok", "expire", "500", "429", "omit", "junk", "stray", "double", "again", "400", "prose", "huge"]

    def fate(batch: int, item: str, body: dict[str, Any]) -> str:
        return fates[int(item) - first] if batch == 0 else "ok"

    with FakeBatches(fate=fate).serving() as fake:
        ended = until_it_stops(taught_by(runtime, fake), job)
        times = [fake.asked[str(first + at)] for at in range(12)]
    assert dict(zip(fates, times, strict=True)) == {
        "ok": 1, "expire": 2, "500": 2, "429": 2, "omit": 2, "junk": 2, "stray": 2, "double": 1, "again": 1,
        "400": 1, "prose": 2, "huge": 1,
    }  # fmt: skip
    assert outcomes(ended) == {"labelled": 10, "failed": 1, "unreadable": 1}
    found = dict(zip(fates, items(runtime, job), strict=True))
    # Nine answers, two for the reply that could not be read, and as much as one may cost where nobody says.
    assert ended.spent_tokens == 11 * 120 + CALL_TOKENS
    assert "HTTP 400: as scripted" in (found["400"].detail or "")
    assert found["huge"].outcome == "unreadable"
    # Both of its questions are paid, and both of its replies count.
    assert (found["prose"].prompt_tokens, found["prose"].completion_tokens) == (200, 40)


def test_an_unreadable_reply_is_shown_to_its_author_once(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 3)
    with FakeBatches(fate=lambda batch, item, body: "prose").serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        assert outcomes(ended) == {"unreadable": 3}
        assert set(fake.asked.values()) == {2}
        [again] = {json.dumps(body["messages"][-2:]) for body in fake.bodies[3:]}
    assert "Because it is sunny." in again
    assert "could not be read" in again


def test_replies_are_remembered_and_a_new_job_sends_nothing(runtime: Runtime) -> None:
    job = job_in_batches(runtime, 5)
    with FakeBatches().serving() as fake:
        taught = taught_by(runtime, fake)
        until_it_stops(taught, job)
        again = job_in_batches(runtime, dataset_id=job.dataset_id)
        assert outcomes(until_it_stops(taught, again)) == {"labelled": 5}
        assert fake.calls["create"] == 1
    with runtime.database.reading() as session:
        assert session.scalars(select(func.count()).select_from(TeacherReply)).one() == 5
    assert scenes.row(runtime.database, again.id).spent_tokens == 0


def test_structured_output_and_parameters_are_given_up_one_by_one(sqlite_runtime: Runtime) -> None:
    def fate(batch: int, item: str, body: dict[str, Any]) -> str:
        if "max_tokens" in body:
            return "parameter=max_tokens"
        return "format" if "response_format" in body else "ok"

    job = job_in_batches(sqlite_runtime, 4)
    with FakeBatches(fate=fate).serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        forms = [
            (sorted(body.keys() - {"messages", "model", "temperature"}), body.get("response_format", {}).get("type"))
            for body in (fake.lines_of(number)[0]["body"] for number in range(4))
        ]
    assert outcomes(ended) == {"labelled": 4}
    assert forms == [
        (["max_tokens", "response_format"], "json_schema"),
        (["max_completion_tokens", "response_format"], "json_schema"),
        (["max_completion_tokens", "response_format"], "json_object"),
        (["max_completion_tokens"], None),
    ]
    assert ended.spent_tokens == 4 * 120  # what was refused cost nothing


def test_a_file_holds_no_more_than_its_bounds(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 9)
    with FakeBatches().serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake, batch_bytes=10_000), job)
        sizes = [len(fake.files[batch["input_file_id"]]) for batch in fake.batches]
        lines = [len(fake.lines_of(number)) for number in range(len(fake.batches))]
        assert outcomes(ended) == {"labelled": 9}
    assert max(sizes) <= 10_000
    assert len(sizes) > 1
    # Each holds as much as it can.
    assert all(size + size / count > 10_000 for size, count in zip(sizes[:-1], lines[:-1], strict=True))


def test_rounds_that_bring_nothing_end(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 3)
    with FakeBatches(fate=lambda batch, item, body: "expire").serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake, batch_lines=2), job)
        assert (ended.state, (ended.error or {})["code"]) == (JobState.FAILED, "batch_stuck")
        assert set(fake.asked.values()) == {5}
    assert "batch_expired" in (ended.error or {})["message"]


def test_a_batch_that_does_not_validate_fails_the_job_with_what_the_endpoint_says(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 3)
    with FakeBatches(ends=lambda batch: "failed=invalid_json_line").serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        assert fake.calls["create"] == 1
    assert (ended.state, (ended.error or {})["code"]) == (JobState.FAILED, "batch_rejected")
    assert "invalid_json_line" in (ended.error or {})["message"]
    assert [item.batch_id for item in items(sqlite_runtime, job)] == [None] * 3


@pytest.mark.parametrize("how", ["failed=token_limit_exceeded", "400=File is too large"])
def test_what_is_too_much_at_a_time_goes_in_smaller_files(sqlite_runtime: Runtime, how: str) -> None:
    job = job_in_batches(sqlite_runtime, 8)
    kinds = {"ends": lambda batch: how if batch == 0 else "completed"} if how.startswith("failed") else {}
    with FakeBatches(**kinds).serving() as fake:  # type: ignore[arg-type]
        fake.trouble["upload"] = [how] if how.startswith("400") else []
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        sizes = [batch.lines for batch in batches(sqlite_runtime, job)]
        assert outcomes(ended) == {"labelled": 8}
    assert sizes == [8, 4, 4]


@pytest.mark.parametrize("status", ["401", "404"])
def test_an_endpoint_that_takes_no_batches_fails_the_job(sqlite_runtime: Runtime, status: str) -> None:
    job = job_in_batches(sqlite_runtime, 3)
    with FakeBatches(trouble={"upload": [status]}).serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
    assert (ended.state, (ended.error or {})["code"]) == (JobState.FAILED, "teacher_rejected")


def test_a_question_that_every_model_refuses_fails_the_job(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 3)
    with FakeBatches(fate=lambda batch, item, body: "404").serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        assert set(fake.asked.values()) == {1}
    assert (ended.state, (ended.error or {})["code"]) == (JobState.FAILED, "teacher_rejected")


def test_an_endpoint_out_of_reach_is_come_back_to(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 3)
    trouble = {"look": ["500", "lost", "torn"], "content": ["503", "torn"], "upload": ["429"]}
    with FakeBatches(trouble=trouble).serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        assert outcomes(ended) == {"labelled": 3}
        assert set(fake.asked.values()) == {1}
        assert trouble == {"look": [], "content": [], "upload": []}


def test_a_batch_that_its_endpoint_has_forgotten_is_asked_again(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 3)
    with FakeBatches(trouble={"look": ["gone"], "content": ["gone"]}).serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        assert outcomes(ended) == {"labelled": 3}
        assert set(fake.asked.values()) == {3}


def test_examples_that_no_teacher_need_see_are_not_sent(sqlite_runtime: Runtime) -> None:
    dataset_id = scenes.dataset(sqlite_runtime.database, examples=2)
    scenes.empty_target(sqlite_runtime.database, dataset_id)
    job = job_in_batches(sqlite_runtime, dataset_id=dataset_id)
    with FakeBatches().serving() as fake:
        ended = until_it_stops(taught_by(sqlite_runtime, fake), job)
        assert outcomes(ended) == {"labelled": 2, "failed": 1}
        assert len(fake.asked) == 2


def test_a_retry_after_is_not_undercut(sqlite_runtime: Runtime) -> None:
    job = job_in_batches(sqlite_runtime, 2)
    with FakeBatches(trouble={"look": ["429"]}, headers={"Retry-After": "500"}).serving() as fake:
        taught = taught_by(sqlite_runtime, fake)
        slice_of(taught, job)
        waits = slice_of(taught, job).not_before
    assert waits is not None
    assert waits - time.time() > 400


def test_the_relay_wakes_a_job_when_its_time_has_come(redis_runtime: Runtime) -> None:
    """Everything at work on its own, on the real services: the job holds no worker while its batches are worked on."""
    with FakeBatches(looks=2, fate=lambda batch, item, body: "expire" if batch == 0 else "ok").serving() as fake:
        runtime = taught_by(redis_runtime, fake, batch_lines=3)
        rhythm = runtime.settings.jobs.model_copy(update={"batch_poll": 0.1})
        runtime = replace(runtime, settings=runtime.settings.model_copy(update={"jobs": rhythm}))
        job = job_in_batches(runtime, 5)
        with embedded(runtime):
            wait_until(lambda: scenes.row(runtime.database, job.id).finished_at is not None)
        now = scenes.row(runtime.database, job.id)
        assert outcomes(now) == {"labelled": 5}
        assert sorted(fake.asked.values()) == [1, 1, 2, 2, 2]
    assert now.epoch > 3  # it was let go and taken up again
    assert now.attempts == 0
