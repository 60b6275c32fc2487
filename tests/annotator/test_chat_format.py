import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.parsing import REPLY_SCHEMA
from annotator.teachers.base import Finish, Reply
from annotator.teachers.chat_format import estimate_tokens, read_completion, response_format
from core.domain.annotation import Usage


def body(message: object, finish: object = "stop", usage: object = None) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage}).encode()


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        (body({"content": "{}"}, usage={"prompt_tokens": 3, "completion_tokens": 2}), Reply("{}", Usage(3, 2))),
        (body({"content": "{"}, "length"), Reply("{", finish=Finish.LENGTH)),
        (body({"content": "x"}, "content_filter"), Reply("x", finish=Finish.FILTERED)),
        (body({"content": None, "refusal": "no"}), Reply("no", finish=Finish.REFUSED)),
        (body({"content": None}), Reply("")),
        (body({"content": "x"}, None, {"prompt_tokens": "3", "completion_tokens": -1}), Reply("x")),
        (body({"content": "a\x00b\ud800"}), Reply("a\ufffdb?")),
        (b"", Reply("")),
        (b"\xff", Reply("\ufffd")),
        (b'{"choices": []}', Reply('{"choices": []}')),
        (b'{"error": "x"}', Reply('{"error": "x"}')),
    ],
)
def test_bodies(sent: bytes, reply: Reply) -> None:
    assert read_completion(sent) == reply


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=100) | json_values.map(lambda v: json.dumps(v).encode()) | st.builds(body, json_values))
def test_every_body_is_a_reply_that_can_be_stored(sent: bytes) -> None:
    reply = read_completion(sent)
    assert "\x00" not in reply.text
    reply.text.encode("utf-8")


def test_the_ladder_goes_from_schema_to_plain_text() -> None:
    assert [(response_format(rung, REPLY_SCHEMA) or {}).get("type") for rung in range(3)] == [
        "json_schema",
        "json_object",
        None,
    ]


def test_token_estimates_grow_with_the_text_and_count_other_scripts_in_full() -> None:
    def estimate(text: str) -> int:
        return estimate_tokens([{"role": "user", "content": text}]).prompt

    assert 100 <= estimate("word " * 80) <= 200
    assert estimate("字" * 100) > 3 * estimate("a" * 100)
