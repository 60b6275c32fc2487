"""The lines of a batch on the wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.teachers.base import Finish
from annotator.teachers.batch_lines import Fate, Form, form_from_json, read_result, request_line, split_lines
from core.domain.annotation import TeacherConfig, Usage

CONFIG = TeacherConfig("t", "openai", model="m", temperature=0.5, max_tokens=99)
ASKED = [{"role": "user", "content": "naïve 日本 🙂"}]


def result(status: int = 200, body: Any = None, **changed: Any) -> bytes:
    line = {"id": "r", "custom_id": "7", "response": {"status_code": status, "body": body}, "error": None}
    return json.dumps(line | changed).encode()


def completion(text: Any = "{}", **changed: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text, **changed}, "finish_reason": "stop"}]}


def test_a_question_is_a_line_of_its_own() -> None:
    line = request_line("7", ASKED, CONFIG, Form())
    assert line.count(b"\n") == 1
    sent = json.loads(line)
    assert (sent["custom_id"], sent["method"], sent["url"]) == ("7", "POST", "/v1/chat/completions")
    assert sent["body"]["messages"] == ASKED
    assert (sent["body"]["model"], sent["body"]["temperature"], sent["body"]["max_tokens"]) == ("m", 0.5, 99)
    assert sent["body"]["response_format"]["type"] == "json_schema"


def test_a_form_gives_up_what_is_objected_to_and_never_returns_to_it() -> None:
    form: Form | None = Form()
    tried = []
    for fault in ("temperature", "response_format", "max_tokens", "max_completion_tokens", "response_format"):
        assert form is not None
        form = form.without(fault, CONFIG)
        tried.append(None if form is None else form.to_json())
    assert tried[-1] == {"rung": 2, "refused": ["max_completion_tokens", "max_tokens", "temperature"]}
    last = form_from_json(tried[-1])  # type: ignore[arg-type] # the line above has seen it
    assert json.loads(request_line("7", ASKED, CONFIG, last))["body"].keys() == {"model", "messages"}
    assert last.without("response_format", CONFIG) is None
    assert last.without("temperature", CONFIG) is None
    assert last.without("messages", CONFIG) is None


def test_an_answer_is_read() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    found = read_result(result(body=completion("hello") | {"usage": usage}))
    assert found is not None
    assert (found.custom_id, found.fate, found.reply.text, found.reply.usage) == (
        "7", Fate.ANSWERED, "hello", Usage(5, 3),
    )  # fmt: skip
    refusal = read_result(result(body=completion(None, refusal="no")))
    assert refusal is not None
    assert refusal.reply.finish is Finish.REFUSED
    other = read_result(result(body={"hello": "world"}))
    assert other is not None
    assert "world" in other.reply.text


@pytest.mark.parametrize(
    ("line", "fate"),
    [
        (result(400, {"error": {"message": "too long"}}), Fate.UNFIT),
        (result(422, "what"), Fate.UNFIT),
        (result(401, {}), Fate.REFUSED),
        (result(404, {}), Fate.REFUSED),
        (result(302, {}), Fate.REFUSED),
        (result(429, {}), Fate.AGAIN),
        (result(500, None), Fate.AGAIN),
        (result(response=None, error={"code": "batch_expired", "message": "late"}), Fate.AGAIN),
        (result(response=None, error={"code": 7}), Fate.AGAIN),
    ],
)
def test_what_has_no_answer_says_why(line: bytes, fate: Fate) -> None:
    found = read_result(line)
    assert found is not None
    assert (found.fate, found.custom_id) == (fate, "7")
    assert found.why


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ({"message": "x", "param": "response_format"}, "response_format"),
        ({"message": "x", "param": "response_format.json_schema"}, "response_format"),
        ({"message": "Invalid parameter: 'response_format' of type 'json_schema' is not supported"}, "response_format"),
        ({"message": "x", "code": "unsupported_parameter", "param": "max_tokens"}, "max_tokens"),
        ({"message": "x", "code": "unsupported_value", "param": "temperature"}, "temperature"),
        ({"message": "x", "code": "context_length_exceeded", "param": "messages"}, None),
        ({"message": None}, None),
        ("no object", None),
    ],
)
def test_the_part_of_the_form_that_is_at_fault(error: Any, fault: str | None) -> None:
    found = read_result(result(400, {"error": error}))
    assert found is not None
    assert found.fault == fault


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"7", b"null", b"{}", b"[" * 100_000, b"\xff\xfe", result(custom_id=7), result(response={}),
     result(response={"status_code": "200"}), result(response=None)],
)  # fmt: skip
def test_what_is_no_result_is_none(line: bytes) -> None:
    assert read_result(line) is None


def test_a_line_too_long_to_be_read_still_has_its_id() -> None:
    line = result(body=completion("x" * 1000))
    found = read_result(line[:300], whole=False)
    assert found is not None
    assert (found.custom_id, found.fate, found.reply.finish) == ("7", Fate.ANSWERED, Finish.OVERSIZED)
    assert read_result(b'{"text": "\\"custom_id\\": \\"8\\"', whole=False) is None


@given(st.binary(max_size=300))
def test_no_line_is_raised_for(line: bytes) -> None:
    read_result(line)
    read_result(line, whole=False)


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line and line.strip())), st.integers(1, 9))
def test_lines_are_split_wherever_the_pieces_end(lines: list[bytes], size: int) -> None:
    content = b"\n".join(lines)
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    assert list(split_lines(pieces)) == [(line, True) for line in lines]
    assert list(split_lines([*pieces, b"\n\n \n"])) == [(line, True) for line in lines]


@given(st.lists(st.sampled_from([b"abc", b"abcdefgh", b"x" * 100])), st.integers(1, 9))
def test_a_line_over_the_bound_is_cut_and_the_next_is_whole(lines: list[bytes], size: int) -> None:
    content = b"".join(line + b"\n" for line in lines)
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    assert list(split_lines(pieces, longest=5)) == [(line[:5], len(line) <= 5) for line in lines]
