"""The client of the Batch API against an endpoint that goes wrong."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from annotator.teachers.batch_endpoint import BatchEndpoint, Gone, NotAccepted, open_batch_endpoint
from annotator.teachers.batch_file import open_batch_file
from annotator.teachers.batch_lines import Fate, Form, request_line
from core.domain.annotation import TeacherConfig
from core.errors import TeacherRejected, TeacherUnreachable
from tests.fake_batches import FakeBatches

CONFIG = TeacherConfig("t", "openai", model="m", api_key="k", read_timeout=5, deadline=30)
LINES = b"".join(request_line(str(at), [{"role": "user", "content": "sun"}], CONFIG, Form()) for at in range(1, 6))


@pytest.fixture
def fake() -> Iterator[FakeBatches]:
    with FakeBatches().serving() as fake:
        yield fake


@pytest.fixture
def endpoint(fake: FakeBatches) -> Iterator[BatchEndpoint]:
    with open_batch_endpoint(replace(CONFIG, base_url=fake.base_url)) as endpoint:
        yield endpoint


def made(endpoint: BatchEndpoint, mark: str = "batch_1") -> str:
    return endpoint.create(endpoint.upload(io.BytesIO(LINES), name=mark), mark=mark).id


def fates(endpoint: BatchEndpoint, batch_id: str) -> dict[str, Fate]:
    found = endpoint.results(endpoint.look(batch_id), lambda: False)
    return {one.custom_id: one.fate for one in found if one is not None}


def test_questions_go_there_and_results_come_back(fake: FakeBatches, endpoint: BatchEndpoint) -> None:
    fake.fate = lambda batch, item, body: {"1": "expire", "2": "400", "3": "omit"}.get(item, "ok")
    batch_id = made(endpoint)
    assert fake.files["file-0"] == LINES
    assert fake.batches[0]["metadata"] == {"causeway_batch": "batch_1"}
    assert fates(endpoint, batch_id) == {
        "1": Fate.AGAIN, "2": Fate.UNFIT, "4": Fate.ANSWERED, "5": Fate.ANSWERED,
    }  # fmt: skip


def test_a_batch_is_found_by_its_mark_over_several_pages(endpoint: BatchEndpoint) -> None:
    ids = [made(endpoint, f"batch_{number}") for number in range(5)]
    found = endpoint.find("batch_0", since=0)
    assert found is not None
    assert found.id == ids[0]
    assert endpoint.find("batch_9", since=0) is None


def test_what_is_older_than_a_batch_is_not_looked_through(fake: FakeBatches, endpoint: BatchEndpoint) -> None:
    for number in range(9):
        made(endpoint, f"batch_{number}")
        fake.batches[-1]["created_at"] = number * 10_000
    assert endpoint.find("batch_0", since=72_000) is None
    assert fake.calls["list"] == 2


Ask = Callable[[BatchEndpoint], Any]
ASKS: dict[str, Ask] = {
    "upload": lambda endpoint: endpoint.upload(io.BytesIO(LINES), name="x"),
    "create": lambda endpoint: endpoint.create("file-0", mark="x"),
    "list": lambda endpoint: endpoint.find("x", since=0),
    "look": lambda endpoint: endpoint.look("batch_0"),
    "cancel": lambda endpoint: endpoint.cancel("batch_0"),
    "content": lambda endpoint: fates(endpoint, "batch_0"),
}


@pytest.mark.parametrize("operation", ASKS)
@pytest.mark.parametrize("trouble", ["500", "429", "408", "lost", "torn"])
def test_what_may_pass_later_is_out_of_reach(
    fake: FakeBatches, endpoint: BatchEndpoint, operation: str, trouble: str
) -> None:
    made(endpoint)
    fake.trouble[operation] = [trouble]
    with pytest.raises(TeacherUnreachable):
        ASKS[operation](endpoint)


@pytest.mark.parametrize("operation", ASKS)
@pytest.mark.parametrize("status", ["401", "403", "302"])
def test_what_never_passes_is_rejected(fake: FakeBatches, endpoint: BatchEndpoint, operation: str, status: str) -> None:
    made(endpoint)
    fake.trouble[operation] = [status]
    with pytest.raises(TeacherRejected):
        ASKS[operation](endpoint)


def test_what_is_not_there(fake: FakeBatches, endpoint: BatchEndpoint) -> None:
    made(endpoint)
    fake.trouble = {"look": ["gone"], "cancel": ["gone"], "content": ["gone"], "upload": ["gone"], "list": ["gone"]}
    with pytest.raises(Gone):
        endpoint.look("batch_0")
    with pytest.raises(Gone):
        fates(endpoint, "batch_0")
    endpoint.cancel("batch_0")
    for ask in ("upload", "list"):  # there is no Batch API, or not enough of it
        with pytest.raises(TeacherRejected):
            ASKS[ask](endpoint)


@pytest.mark.parametrize(
    ("why", "crowded"),
    [("File is too large.", True), ("Enqueued token limit reached for m", True), ("invalid purpose", False)],
)
def test_what_it_will_not_have(fake: FakeBatches, endpoint: BatchEndpoint, why: str, crowded: bool) -> None:
    fake.trouble["upload"] = [f"400={why}"]
    with pytest.raises(NotAccepted) as caught:
        endpoint.upload(io.BytesIO(LINES), name="x")
    assert why in caught.value.why
    assert caught.value.crowded is crowded


@pytest.mark.parametrize(("code", "crowded"), [("token_limit_exceeded", True), ("invalid_json_line", False)])
def test_why_a_batch_failed_as_a_whole(fake: FakeBatches, endpoint: BatchEndpoint, code: str, crowded: bool) -> None:
    fake.ends = lambda batch: f"failed={code}"
    remote = endpoint.look(made(endpoint))
    assert remote.ended
    assert remote.fault is not None
    assert (code in remote.fault.why, remote.fault.crowded) == (True, crowded)


@pytest.mark.parametrize(
    "answer", ["", "[]", "{", "{}", '{"id": 7}', '{"id": "../files"}', '{"id": ".."}', '{"id": ""}', "7" * 3_000_000]
)
def test_an_answer_that_is_none(fake: FakeBatches, endpoint: BatchEndpoint, answer: str) -> None:
    made(endpoint)
    fake.look = lambda number: answer.encode()  # type: ignore[method-assign, assignment, return-value] # a body as it is
    with pytest.raises(TeacherUnreachable):
        endpoint.look("batch_0")


@pytest.mark.parametrize("odd", [{"errors": "x"}, {"errors": {"data": [7]}}, {"request_counts": [1]}, {"status": 7}])
def test_odd_answers_are_read_as_far_as_they_go(
    fake: FakeBatches, endpoint: BatchEndpoint, odd: dict[str, Any]
) -> None:
    made(endpoint)
    document = json.dumps({"id": "batch_0", "status": "in_progress", **odd}).encode()
    fake.look = lambda number: document  # type: ignore[method-assign, assignment, return-value] # a body as it is
    remote = endpoint.look("batch_0")
    assert (remote.id, remote.answered, remote.fault, remote.ended) == ("batch_0", 0, None, False)


def test_reading_stops_when_told(endpoint: BatchEndpoint) -> None:
    remote = endpoint.look(made(endpoint))
    assert list(endpoint.results(remote, lambda: True)) == []


def test_nobody_listening_is_out_of_reach() -> None:
    with FakeBatches().serving() as fake:
        pass  # its port is free again
    with open_batch_endpoint(replace(CONFIG, base_url=fake.base_url)) as endpoint, pytest.raises(TeacherUnreachable):
        endpoint.look("batch_0")


def test_a_file_has_its_bounds(tmp_path: Path) -> None:
    with open_batch_file(tmp_path / "spool", most_lines=3, most_bytes=10) as file:
        assert [file.add(line) for line in (b"1234\n", b"123456\n", b"123\n", b"\n", b"\n")] == [
            True, False, True, True, False,
        ]  # fmt: skip
        assert (file.lines, file.size, file.reread().read()) == (3, 10, b"1234\n123\n\n")
    assert list((tmp_path / "spool").iterdir()) == []
