"""What users get wrong in an upload, one row each: the status, and what the problem must name for them to mend it."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import func, select

from core.db.models import ExampleRow
from tests.api.conftest import LINES, Api
from tests.api.problems import assert_problem

GOOD = b'{"input": "1 + 1 = ", "target": "2"}\n'
DEEP = b'{"input": "a", "target": "b", "important": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"


@dataclass(frozen=True)
class Case:
    """A bad upload, and what its problem must say."""

    body: bytes
    line: int | None = None
    field: str | None = None
    words: str = ""
    status: int = 422
    code: str = "invalid_input"
    query: str = ""


UPLOADS = {
    "malformed JSON in line 7 of 10": Case(GOOD * 6 + b'{"input": "a", "target"\n' + GOOD * 3, line=7, words="JSON"),
    "a missing field": Case(GOOD + b'{"input": "a"}', line=2, field="target", words="missing"),
    "an empty target": Case(b'{"input": "a", "target": ""}', line=1, field="target", words="empty"),
    "a blank target": Case(b'{"input": "a", "target": " "}', line=1, field="target", words="blank"),
    "an empty input": Case(b'{"input": "", "target": "a"}', line=1, field="input", words="empty"),
    "a 20 MB line": Case(
        GOOD + b'{"input": "' + b"x" * 20_000_000 + b'"}', line=2, status=413, code="payload_too_large"
    ),
    "JSON that is too deep": Case(GOOD + DEEP, line=2, words="recursion"),
    "a number for a text": Case(b'{"input": "a", "target": 5}', line=1, field="target", words="in quotes"),
    "an array": Case(b'["input", "target"]', line=1, words="object"),
    "not UTF-8": Case(b'{"input": "\xff\xfe", "target": "a"}', line=1, words="JSON"),
    "half a surrogate pair": Case(b'{"input": "\\ud800", "target": "a"}', line=1, words="JSON"),
    "NUL in a text": Case(b'{"input": "a\\u0000", "target": "a"}', line=1, field="input", words="NUL"),
    "NUL in an id": Case(b'{"id": "\\u0000", "input": "a", "target": "a"}', line=1, field="id", words="NUL"),
    "NUL in important": Case(
        b'{"input": "a", "target": "a", "important": [{"a": ["\\u0000"]}]}', line=1, field="important", words="NUL"
    ),
    "an unknown field": Case(
        b'{"input": "a", "target": "b", "Question": "c"}', line=1, field="Question", words="extra=ignore"
    ),
    "an id that is too long": Case(
        b'{"id": "' + b"x" * 201 + b'", "input": "a", "target": "b"}', line=1, field="id", words="200"
    ),
    "choices without the target": Case(
        b'{"input": "a", "target": "b", "choices": ["c", "d"]}', line=1, field="choices", words="target"
    ),
    "a span outside of the text": Case(
        b'{"input": "ab", "target": "c", "relations": [{"effect": {"start": 2, "end": 9}, '
        b'"causes": [{"start": 0, "end": 1}]}]}',
        line=1,
        field="relations[0]",
        words="after the text",
        code="invalid_span",
    ),
    "a cause after its effect": Case(
        b'{"input": "ab", "target": "c", "relations": [{"effect": {"start": 0, "end": 1}, '
        b'"causes": [{"start": 2, "end": 3}]}]}',
        line=1,
        field="relations[0]",
        words="before",
        code="invalid_span",
    ),
    "a relation without causes": Case(
        b'{"input": "ab", "target": "c", "relations": [{"effect": {"start": 2, "end": 3}, "causes": []}]}',
        line=1,
        field="relations[0].causes",
    ),
    "relations and important": Case(
        b'{"input": "a", "target": "b", "relations": [], "important": []}', line=1, field="important", words="both"
    ),
    "too many relations": Case(
        json.dumps({"input": "a", "target": "b", "important": {"b": ["a"] * 501}}).encode(),
        line=1,
        field="important",
        words="500",
        status=413,
        code="payload_too_large",
    ),
    "an id twice with another content": Case(
        b'{"id": "z", "input": "a", "target": "b"}\n{"id": "z", "input": "a", "target": "c"}',
        line=2,
        field="id",
        words="'z'",
        status=409,
        code="conflict",
    ),
    "an id that exists with another content": Case(
        b'{"id": "b", "input": "Snow falls. Is it warm? ", "target": "yes"}',
        line=1,
        field="id",
        words="'b'",
        status=409,
        code="conflict",
    ),
    "no line at all": Case(b"\n \n", words="no example"),
    "a split that is a path": Case(GOOD, field="split", query="?split=../train"),
    "gzip that is none": Case(GOOD, field="Content-Encoding", words="gzip"),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_a_bad_upload_is_explained_and_nothing_of_it_is_stored(api: Api, name: str) -> None:
    case = UPLOADS[name]
    dataset_id = api.dataset(LINES)
    headers = {"Content-Encoding": "gzip"} if case.field == "Content-Encoding" else {}
    answer = api.client.post(f"/v1/datasets/{dataset_id}/examples{case.query}", content=case.body, headers=headers)
    assert_problem(answer, case.status, case.code, case.field, case.words)
    assert answer.json().get("line") == case.line
    if case.line is not None:
        assert f"line {case.line}" in answer.json()["detail"]
    assert api.client.get(f"/v1/datasets/{dataset_id}").json()["examples"] == 2
    with api.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ExampleRow)) == 2


def test_a_whole_upload_has_limits_too(make_api: Any) -> None:
    api = make_api(upload_rows=2, upload_bytes=1_000)
    dataset_id = api.dataset(LINES)
    rows = api.client.post(f"/v1/datasets/{dataset_id}/examples", content=GOOD * 3)
    assert_problem(rows, 413, "payload_too_large", None, "2 examples")
    assert rows.json()["line"] == 3
    size = api.client.post(f"/v1/datasets/{dataset_id}/examples", content=b" " * 1_001)
    assert_problem(size, 413, "payload_too_large", None, "1000 bytes")
