"""Tokens, prompts and rows from spans: planted spans against a search over every token."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.spans import Span
from core.domain.training import Rows
from core.errors import InvalidInput
from tests.trainer.tokenizers_for_tests import KINDS, tokenizer_of
from trainer.encoding import encode, encode_all, encode_prompt
from trainer.layout import layout_of

WORDS = [
    "20",
    "gulls",
    "5",
    "58",
    "tide",
    "crème",
    "b",
    "🦅",
    "鷗",
    "e\u0301",
    "?",
    ", ",
    " ",
    "\n",
    "\r\n",
    "  ",
    "שלום",
    "x",
]


def spans_in(text: str, phrase: str) -> Span:
    start = text.index(phrase)
    return Span(start, start + len(phrase))


def rows_of(encoded) -> dict[int, list[int]]:
    bounds = zip(encoded.column_starts[:-1], encoded.column_starts[1:], strict=True)
    return {int(row): encoded.columns[a:b].tolist() for row, (a, b) in zip(encoded.row_positions, bounds, strict=True)}


def overlapping(text: str, offsets, span: Span) -> list[int]:
    """From the first to the last token that shares a character with the span, white space at its ends left out."""
    inside = list(range(span.start, span.end))
    while inside and text[inside[0]].isspace():
        inside.pop(0)
    while inside and text[inside[-1]].isspace():
        inside.pop()
    tokens = [t for t, (start, end) in enumerate(offsets) if set(range(start, end)) & set(inside)]
    return [*range(tokens[0], tokens[-1] + 1)] if tokens else []


def expected_rows(text: str, offsets, relations, kind: Rows, target_start: int) -> dict[int, set[int]]:
    edges = expected_edges(text, offsets, relations)
    rows: dict[int, set[int]] = {}
    for effect, cause in edges:
        for token in effect:
            if kind is Rows.ANSWER and offsets[token][1] <= target_start:
                continue
            rows.setdefault(token - 1, set()).update(c for c in cause if c < token)
    for _, phrase in edges if kind is Rows.CLOSURE else []:
        for token in phrase:
            rows.setdefault(token, set()).update(t for t in phrase if t <= token)
            own_causes = [cause for effect, cause in edges if token in effect]
            rows[token].update(c for cause in own_causes for c in cause if c <= token)
    return {row: columns for row, columns in rows.items() if columns and row >= 0}


def expected_edges(text: str, offsets, relations) -> list[tuple[list[int], list[int]]]:
    edges = []
    for relation in relations:
        effect = overlapping(text, offsets, relation.effect)
        causes = [overlapping(text, offsets, cause) for cause in relation.causes]
        edges += [(effect, [t for t in cause if t < effect[0]]) for cause in causes if effect]
    return edges


@st.composite
def examples(draw):
    text = "".join(draw(st.lists(st.sampled_from(WORDS), min_size=3, max_size=14)))
    cut = draw(st.integers(1, len(text) - 1))
    relations = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(1, len(text) - 1))
        effect = Span(start, draw(st.integers(start + 1, len(text))))
        causes = []
        for _ in range(draw(st.integers(1, 3))):
            begin = draw(st.integers(0, start - 1))
            causes.append(Span(begin, draw(st.integers(begin + 1, start))))
        relations.append(Relation(effect, tuple(causes)))
    return Example(text[:cut], text[cut:], "x", relations=tuple(relations))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(example=examples(), rows=st.sampled_from(Rows))
def test_rows_are_exactly_the_tokens_of_the_spans(kind, example, rows):
    tokenizer = tokenizer_of(kind)
    raw = tokenizer(example.text, return_offsets_mapping=True)
    offsets = raw["offset_mapping"]
    if not target_has_a_token(tokenizer, example):
        with pytest.raises(InvalidInput, match="no token"):
            encode(tokenizer, example, max_length=100, rows=rows)
        return
    encoded = encode(tokenizer, example, max_length=100, rows=rows)
    expected = expected_rows(example.text, offsets, example.relations, rows, len(example.input))
    assert {row: set(columns) for row, columns in rows_of(encoded).items()} == expected
    assert encoded.ids.tolist() == [*raw["input_ids"], tokenizer.eos_token_id]
    assert encoded.prompt_length == sum(end <= len(example.input) for _, end in offsets)
    for row, columns in rows_of(encoded).items():
        assert columns == sorted(set(columns))
        assert 0 <= min(columns) <= max(columns) <= row < len(encoded.ids) - 1


@settings(max_examples=50, deadline=None)
@given(st.lists(examples(), min_size=1, max_size=6), st.sampled_from(KINDS))
def test_examples_do_not_touch_each_other(drawn, kind):
    tokenizer = tokenizer_of(kind)
    usable = [e for e in drawn if target_has_a_token(tokenizer, e)]
    alone = [encode(tokenizer, e, max_length=100, rows=Rows.CLOSURE) for e in usable]
    together = encode_all(tokenizer, usable, max_length=100, rows=Rows.CLOSURE)
    for one, other in zip(alone, together, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert rows_of(one) == rows_of(other)


def target_has_a_token(tokenizer, example: Example) -> bool:
    """Not where the target is white space to the tokenizer, or a mark that it composes with the input's last letter."""
    offsets = tokenizer(example.text, return_offsets_mapping=True)["offset_mapping"]
    return any(end > len(example.input) for _, end in offsets)


def birds() -> Example:
    text_in = "The harbour has 20 gulls, 15 terns and 30 herons. How many birds are there? "
    target = "65 birds in all."
    text = text_in + target
    effect = Span(text.index("65"), text.index("65") + len("65 birds"))
    causes = tuple(spans_in(text, phrase) for phrase in ("20 gulls", "15 terns", "30 herons"))
    return Example(text_in, target, "birds", relations=(Relation(effect, causes),))


def test_the_row_before_an_effect_token_sees_the_causes():
    tokenizer = tokenizer_of("whole_words")
    encoded = encode(tokenizer, birds(), max_length=64, rows=Rows.EFFECTS)
    words = tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    seen = {words[row + 1]: [words[c] for c in columns] for row, columns in rows_of(encoded).items()}
    assert seen == {word: ["20", "gulls", "15", "terns", "30", "herons"] for word in ("65", "birds")}


def test_closure_lets_a_cause_see_its_phrase_so_far_and_its_own_causes():
    tokenizer = tokenizer_of("whole_words")
    text = "20 gulls 15 terns birds: 35 all: 35"
    total, end = Span(text.index("35"), text.index("35") + 2), Span(len(text) - 2, len(text))
    relations = (
        Relation(total, (spans_in(text, "20 gulls"), spans_in(text, "15 terns"))),
        Relation(end, (total,)),
    )
    encoded = encode(tokenizer, Example(text[:-2], "35", relations=relations), max_length=64, rows=Rows.CLOSURE)
    # tokens: 20 gulls 15 terns birds : 35 all : 35 </s>
    assert rows_of(encoded) == {
        0: [0], 1: [0, 1], 2: [2], 3: [2, 3],  # each cause its own phrase so far
        5: [0, 1, 2, 3],  # predicts the first 35
        6: [0, 1, 2, 3, 6],  # the first 35 is a cause that has causes
        8: [6],  # predicts the last 35
    }  # fmt: skip


def test_a_phrase_inside_a_number_is_not_taken_for_it():
    text = "x 58 y 5 z: 5"
    relation = Relation(Span(len(text) - 1, len(text)), (Span(text.index(" 5 ") + 1, text.index(" 5 ") + 2),))
    encoded = encode(
        tokenizer_of("whole_words"), Example(text[:-1], "5", relations=(relation,)), max_length=20, rows=Rows.EFFECTS
    )
    assert rows_of(encoded) == {5: [3]}


def test_a_token_that_straddles_belongs_to_the_target():
    tokenizer = tokenizer_of("byte_level")
    example = Example("low tide at 13:58. Answer: ", "cheap")
    encoded = encode(tokenizer, example, max_length=64, rows=None)
    assert tokenizer.decode(encoded.ids[encoded.prompt_length :]) == " cheap</s>"
    prompt = encode_prompt(tokenizer, example)
    assert prompt.ids.tolist() == encoded.ids[: encoded.prompt_length].tolist()
    assert prompt.pending == " "
    assert encode_prompt(tokenizer, Example(example.input, "")).ids.tolist() == prompt.ids.tolist()


def test_a_prompt_without_a_straddling_token_is_the_input():
    prompt = encode_prompt(tokenizer_of("characters"), Example("Answer: ", "cheap"))
    assert (len(prompt.ids), prompt.pending) == (8, "")


def test_a_cause_that_reaches_into_the_effects_token_is_dropped_and_counted():
    tokenizer = tokenizer_of("whole_words")
    text = "20 gulls there terns"
    at = text.index("there")
    relation = Relation(Span(at + 2, at + 5), (Span(0, 2), Span(at, at + 2)))  # "ere" <- "20", "th"
    encoded = encode(
        tokenizer, Example("20 gulls there ", "terns", relations=(relation,)), max_length=20, rows=Rows.CLOSURE
    )
    assert rows_of(encoded) == {0: [0], 1: [0]}
    assert encoded.straddling_causes == 1


def test_no_row_predicts_the_very_first_token():
    relation = Relation(Span(1, 2), (Span(0, 1),))
    example = Example("x", "y", relations=(relation,))
    encoded = encode(
        tokenizer_of("byte_level"), Example("xy", " z", relations=(relation,)), max_length=20, rows=Rows.EFFECTS
    )
    assert all(row >= 0 for row in rows_of(encoded))
    assert rows_of(encode(tokenizer_of("characters"), example, max_length=20, rows=Rows.EFFECTS)) == {0: [0]}


@pytest.mark.parametrize("kind", KINDS)
def test_eos_follows_the_target_once(kind):
    tokenizer = tokenizer_of(kind)
    for target in ("65 birds", "65 birds</s>"):
        ids = encode(tokenizer, Example("How many birds? ", target), max_length=64, rows=None).ids.tolist()
        assert ids.count(tokenizer.eos_token_id) == 1
        assert ids[-1] == tokenizer.eos_token_id


def test_bos_is_the_tokenizers_own():
    ids = encode(tokenizer_of("metaspace_with_bos"), birds(), max_length=64, rows=None).ids
    assert ids[0] == tokenizer_of("metaspace_with_bos").bos_token_id
    assert tokenizer_of("byte_level").bos_token_id is None


def test_the_chat_template_moves_the_spans():
    tokenizer = tokenizer_of("whole_words")
    encoded = encode(tokenizer, birds(), max_length=64, rows=Rows.EFFECTS, chat_template=True)
    words = tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    seen = {words[row + 1]: [words[c] for c in columns] for row, columns in rows_of(encoded).items()}
    assert seen == {word: ["20", "gulls", "15", "terns", "30", "herons"] for word in ("65", "birds")}
    assert words[encoded.prompt_length :] == ["65", "birds", "in", "all", ".", "</s>"]
    assert words[0] == "<s>"
    prompt = encode_prompt(tokenizer, birds(), chat_template=True)
    assert prompt.ids.tolist() == encoded.ids[: encoded.prompt_length].tolist()


@settings(max_examples=60, deadline=None)
@given(example=examples())
def test_spans_in_a_chat_are_the_same_characters(example):
    """Even where the target's characters occur in the template, or the input ends as the template goes on."""
    tokenizer = tokenizer_of("characters")
    if not example.input.strip() or not example.target.strip():
        return
    layout = layout_of(example, tokenizer, chat_template=True)
    assert layout.text[layout.target_start : layout.target_end] == example.target.strip()
    for relation in example.relations:
        for span in (relation.effect, *relation.causes):
            placed = "".join(layout.text[start:end] for start, end in layout.place(span))
            assert "".join(placed.split()) == "".join(span.of(example.text).split())


@pytest.mark.parametrize("target", ["s", "user", "</s>", "assistant"])
def test_a_target_that_the_template_also_says_is_found_in_its_turn(target):
    layout = layout_of(Example("user: assistant ", target), tokenizer_of("characters"), chat_template=True)
    assert layout.text == f"<s>user\nuser: assistant</s>\n<s>assistant\n{target}</s>\n"
    assert layout.target_start == len("<s>user\nuser: assistant</s>\n<s>assistant\n")


def test_a_template_that_rewrites_the_text_is_refused():
    tokenizer = tokenizer_of.__wrapped__("characters")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}|{% endfor %}"
    with pytest.raises(InvalidInput, match="rewrites"):
        encode(tokenizer, birds(), max_length=64, rows=None, chat_template=True)


def test_a_tokenizer_without_chat_template_is_refused():
    tokenizer = tokenizer_of.__wrapped__("whole_words")
    tokenizer.chat_template = None
    with pytest.raises(InvalidInput, match="has none"):
        encode(tokenizer, birds(), max_length=64, rows=None, chat_template=True)


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(InvalidInput, match="slow tokenizer"):
        encode(Slow(), birds(), max_length=64, rows=None)


def test_what_max_length_would_cut_is_counted_and_nothing_is_cut():
    tokenizer = tokenizer_of("whole_words")
    whole = encode(tokenizer, birds(), max_length=64, rows=Rows.EFFECTS)
    first_effect_token = int(whole.row_positions[0]) + 1
    over = encode(tokenizer, birds(), max_length=first_effect_token + 1, rows=Rows.EFFECTS)
    assert (over.over, over.cut_effects, over.cut_causes) == (True, 1, 0)
    assert over.ids.tolist() == whole.ids.tolist()
    deep = encode(tokenizer, birds(), max_length=5, rows=None)
    assert (deep.cut_effects, deep.cut_causes) == (1, 2)
    exact = encode(tokenizer, birds(), max_length=len(whole.ids), rows=None)
    assert not exact.over


def test_no_rows_are_made_when_none_are_asked_for():
    encoded = encode(tokenizer_of("whole_words"), birds(), max_length=64, rows=None)
    assert encoded.row_positions.size == encoded.columns.size == 0
    assert encoded.column_starts.tolist() == [0]
    assert encoded.ids.dtype == np.int32
