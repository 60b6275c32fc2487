import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.parsing import MAX_QUOTE, MAX_RELATIONS, MAX_REPLY, parse_reply, render_reply
from core.domain.annotation import Quote, QuotedRelation
from core.errors import ReplyUnreadable

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
quotes = st.builds(Quote, texts, st.none() | st.integers(1, 1000))
relations = st.lists(st.builds(QuotedRelation, quotes, st.lists(quotes, max_size=4).map(tuple)), max_size=5).map(tuple)
GOOD = '{"relations": [{"effect": {"quote": "High", "segment": 2}, "causes": [{"quote": "5", "segment": 1}]}]}'
PARSED = (QuotedRelation(Quote("High", 2), (Quote("5", 1),)),)


@given(relations)
def test_what_is_rendered_is_parsed_back(said: tuple[QuotedRelation, ...]) -> None:
    assert parse_reply(render_reply(said)) == said
    assert parse_reply(f"Here you are:\n```json\n{render_reply(said)}\n```\n") == said


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        (GOOD, PARSED),
        (f"\n  {GOOD}\n", PARSED),
        (f"```\n{GOOD}\n```", PARSED),
        ('{"relations": []}', ()),
        ('{"relations": [{"effect": "High", "causes": ["5"]}]}', (QuotedRelation(Quote("High"), (Quote("5"),)),)),
        (GOOD.replace("2", "-2").replace("1", '"1"'), (QuotedRelation(Quote("High"), (Quote("5"),)),)),
        (GOOD.replace("2", "true"), (QuotedRelation(Quote("High"), (Quote("5", 1),)),)),
    ],
)
def test_replies_that_can_be_read(reply: str, parsed: tuple[QuotedRelation, ...]) -> None:
    assert parse_reply(reply) == parsed


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "prose"),
        ("The answer is high because 5.", "prose"),
        ("Die Antwort ist hoch, weil 5.", "prose"),
        ("<html><script>alert(1)</script></html>", "prose"),
        ("[]", "prose"),
        ("null", "prose"),
        (GOOD[:-5], "broken_json"),
        (GOOD + " I hope this helps!", "broken_json"),
        ('{"relations": ' + "[" * 100_000, "broken_json"),
        ('{"relations": ' + "9" * 10_000 + "}", "broken_json"),
        ("{}", "wrong_shape"),
        ('{"relations": {}}', "wrong_shape"),
        ('{"relations": [5]}', "wrong_shape"),
        ('{"relations": [{"effect": "a"}]}', "wrong_shape"),
        ('{"relations": [{"effect": "a", "causes": "b"}]}', "wrong_shape"),
        ('{"relations": [{"effect": {"text": "a"}, "causes": []}]}', "wrong_shape"),
        ('{"relations": [{"effect": "a", "causes": [null]}]}', "wrong_shape"),
        (json.dumps({"relations": [{"effect": "a", "causes": []}] * (MAX_RELATIONS + 1)}), "too_many"),
        (json.dumps({"relations": [{"effect": "a", "causes": ["b"] * 101}]}), "too_many"),
        (json.dumps({"relations": [{"effect": "a", "causes": ["b"] * 100}] * 11}), "too_many"),
        (json.dumps({"relations": [{"effect": "a" * (MAX_QUOTE + 1), "causes": []}]}), "too_long"),
        ("x" * (MAX_REPLY + 1), "too_long"),
    ],
)
def test_replies_that_cannot_say_why(reply: str, reason: str) -> None:
    with pytest.raises(ReplyUnreadable) as caught:
        parse_reply(reply)
    assert caught.value.facts["reason"] == reason


@given(st.text(max_size=200) | st.recursive(st.none() | st.text(max_size=5), st.lists).map(json.dumps))
def test_no_text_raises_anything_else(reply: str) -> None:
    with contextlib.suppress(ReplyUnreadable):
        parse_reply(reply)


def test_quotes_that_no_database_can_hold_are_mended() -> None:
    (relation,) = parse_reply('{"relations": [{"effect": "a\\u0000b", "causes": ["\\ud800"]}]}')
    assert relation.effect.quote == "a\ufffdb"
    relation.causes[0].quote.encode("utf-8")
