import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.example_lines import LineReader, ReadLine
from core.domain.annotation import Reason
from core.errors import InvalidInput, PayloadTooLarge

READER = LineReader("train", most_relations=5, loose=False)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda text: not text.isspace()
)
# What no one would send on purpose, and some would.
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["id", "input", "target", "choices", "relations", "important", "other"])


def read(reader: LineReader = READER, **fields: Any) -> ReadLine:
    return reader.read(7, json.dumps({"input": "a b ", "target": "c"} | fields).encode())


@given(sent=st.dictionaries(names, anything, max_size=6) | anything)
def test_every_json_is_an_example_or_an_error_with_its_line(sent: Any) -> None:
    refused: InvalidInput | None = None
    try:
        assert READER.read(7, json.dumps(sent).encode()).example.line == 7
    except InvalidInput as error:
        refused = error
    assert refused is None or (refused.facts["line"] == 7 and "line 7" in refused.message)


@given(input_=texts, target=texts, key=texts)
def test_texts_are_kept_as_they_are(input_: str, target: str, key: str) -> None:
    example = read(input=input_, target=target, id=key[:200]).example
    assert (example.input, example.target, example.key) == (input_, target, key[:200])


@given(start=st.integers(0, 3), length=st.integers(1, 3), input_=texts, target=texts)
def test_spans_are_kept_and_stand_for_code_points(start: int, length: int, input_: str, target: str) -> None:
    text = input_ + target
    relation = {
        "effect": {"start": len(input_), "end": len(text)},
        "causes": [{"start": start, "end": start + length}],
    }
    if start + length > len(input_):
        with pytest.raises(InvalidInput):
            read(input=input_, target=target, relations=[relation])
        return
    found = read(input=input_, target=target, relations=[relation])
    assert json.loads(found.example.relations) == [relation]
    assert found.relations == 1


def test_an_id_is_made_when_there_is_none_and_a_number_is_a_fine_one() -> None:
    assert read().example.key != read().example.key
    assert read(id=17).example.key == "17"


@pytest.mark.parametrize(
    "change",
    [
        {"input": "a c "},
        {"target": "d"},
        {"choices": ["c", "d"]},
        {"relations": [{"effect": {"start": 4, "end": 5}, "causes": [{"start": 0, "end": 1}]}]},
        {"important": [{"c": ["a"]}]},
    ],
)
def test_the_digest_is_of_all_that_was_sent(change: dict[str, Any]) -> None:
    same = read(id="x")
    assert read(id="x").example.digest == same.example.digest
    assert read(id="x", **change).example.digest != same.example.digest
    other_split = LineReader("iid", most_relations=5, loose=False)
    assert read(other_split, id="x").example.digest != same.example.digest


def test_important_is_looked_for_in_the_text_and_what_is_not_there_stays_visible() -> None:
    found = read(important=[{"c": ["a", "zebra"]}, {"c": "b"}, "nonsense", {"c": [None]}])
    spans = json.loads(found.example.relations)
    assert spans == [
        {"effect": {"start": 4, "end": 5}, "causes": [{"start": 0, "end": 1}]},
        {"effect": {"start": 4, "end": 5}, "causes": [{"start": 2, "end": 3}]},
    ]
    [edge] = json.loads(found.example.unresolved)
    assert (edge["effect"], edge["cause"], edge["reason"]) == ("c", "zebra", "not_found")
    assert [one.reason for one in found.unresolved] == [Reason.NOT_FOUND]
    assert found.malformed == 2


def test_more_relations_than_are_allowed_are_refused() -> None:
    relation = {"effect": {"start": 4, "end": 5}, "causes": [{"start": 0, "end": 1}]}
    assert read(relations=[relation] * 5).relations == 5
    with pytest.raises(PayloadTooLarge):
        read(relations=[relation] * 6)


def test_other_fields_are_ignored_on_request_only() -> None:
    loose = LineReader("train", most_relations=5, loose=True)
    assert read(loose, Question="?", idx=5, id="x").example == read(id="x").example
    with pytest.raises(InvalidInput, match="Question"):
        read(Question="?")


def test_gold_needs_relations_and_all_of_them() -> None:
    spans = [{"effect": {"start": 4, "end": 5}, "causes": [{"start": 0, "end": 1}]}]
    for relations in (spans, []):
        assert read(gold=True, relations=relations).example.gold
        assert not read(relations=relations).example.gold
    assert read(gold=True, important=[{"c": ["a", "b"]}]).relations == 1
    with pytest.raises(InvalidInput) as nothing:
        read(gold=True)
    assert nothing.value.facts["field"] == "relations"
    with pytest.raises(InvalidInput, match="not_found") as lacking:
        read(gold=True, important=[{"c": ["a", "zebra"]}])
    assert (lacking.value.facts["field"], lacking.value.facts["line"]) == ("important", 7)


def test_gold_counts_as_content() -> None:
    digests = {read(relations=[], gold=gold).example.digest for gold in (True, False)}
    assert len(digests) == 2
    assert read(relations=[], gold=False).example.digest == read(relations=[]).example.digest
