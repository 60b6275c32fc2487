"""The words under a picture of attention: which tokens stand in each, and which are causes."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.run_folder import BaseModelSpec
from core.domain.spans import Span
from core.errors import InvalidInput
from tests.trainer.tokenizers_for_tests import KINDS, tokenizer_of
from trainer.layout import layout_of
from trainer.model import load_base
from trainer.panels import look
from trainer.words import words_of

SMALL = BaseModelSpec("builtin:small", "builtin:small")
INPUT = "Yellow fingers: 3, Smoking: 10 日本 $x^$ Answer: "
_AT = INPUT.index("Smoking")
# One target token, so that the answer's row is the only effect row.
EXAMPLE = Example(
    INPUT, "High", "e1", relations=(Relation(Span(len(INPUT), len(INPUT) + 4), (Span(_AT, _AT + len("Smoking: 10")),)),)
)


def test_words_are_split_at_white_space_and_causes_marked(small):
    words = words_of(small.tokenizer, EXAMPLE)
    assert words.labels == ["Yellow", "fingers:", "3,", "Smoking:", "10", "日本", "$x^$", "Answer:"]
    assert words.is_cause == [False, False, False, True, True, False, False, False]
    assert [words.word_of_token.tolist().count(word) for word in range(8)] == [1, 2, 2, 2, 1, 7, 4, 2]


def test_an_example_without_relations_has_no_causes(small):
    words = words_of(small.tokenizer, Example(INPUT, "High"))
    assert not any(words.is_cause)
    assert look("base", small.model, words).mass is None


def test_a_token_a_tokenizer_adds_is_a_word_of_its_own(small):
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_base(SMALL).tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", tokenizer.pad_token_id)]
    )
    words = words_of(tokenizer, EXAMPLE)
    assert words.labels[:2] == ["<|pad|>", "Yellow"]
    assert words.word_of_token[:2].tolist() == [0, 1]
    assert words.is_cause[4:6] == [True, True]


def _grouped(words) -> list[tuple[str, int]]:
    """Each label with the number of its tokens."""
    return [(label, words.word_of_token.tolist().count(word)) for word, label in enumerate(words.labels)]


@pytest.mark.parametrize("special", ["</s>", "<unk>"])
def test_a_special_token_within_a_word_parts_it(special):
    words = words_of(tokenizer_of("byte_level"), Example(f"20 gulls{special}15 Answer: ", "5"))
    assert _grouped(words) == [("20", 1), ("gulls", 1), (special, 1), ("15", 2), ("Answer:", 2)]


def test_an_unknown_word_keeps_its_letters():
    words = words_of(tokenizer_of("whole_words"), Example("Smoking: gulls<unk> Answer: ", "5"))
    assert _grouped(words) == [("Smoking:", 2), ("gulls", 1), ("<unk>", 1), ("Answer:", 2)]


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("byte_level", ["␣␣↵", "tide:", "3", "↵", "5", "Answer:"]),
        ("metaspace_with_bos", ["<s>", "␣␣↵", "tide:", "3", "↵", "5", "Answer:"]),
        ("whole_words", ["tide:", "3", "5", "Answer:"]),
    ],
)
def test_white_space_belongs_to_the_word_right_after_it_or_to_none(kind, labels):
    words = words_of(tokenizer_of(kind), Example("  \n tide: 3\n 5 Answer:", "5"))
    assert words.labels == labels
    assert sorted(set(words.word_of_token.tolist())) == list(range(len(labels)))


def test_words_that_share_a_token_are_one():
    # An unknown token of this kind takes in a space that is unknown too.
    words = words_of(tokenizer_of("metaspace_with_bos"), Example("gulls 日\u2003本 Answer: ", "5"))
    assert words.labels == ["<s>", "gulls", "日 本", "Answer:"]


PIECES = ["20", "gulls", "日本", "e\u0301", "🦅", "\u200b", "</s>", "<unk>", "<s>", "<pad>", "Answer:"]
SPACES = ["", " ", " ", "  ", "\n", "\r\n", "\t", "\u2003", "\x1c", "       "]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.tuples(st.sampled_from(SPACES), st.sampled_from(PIECES)), min_size=1, max_size=7),
    end=st.sampled_from(SPACES),
    chat_template=st.booleans(),
)
def test_every_token_stands_in_its_own_word(kind, parts, end, chat_template):
    tokenizer = tokenizer_of(kind)
    example = Example("".join(map("".join, parts)) + end, "5")
    try:
        words = words_of(tokenizer, example, chat_template=chat_template)
    except InvalidInput:  # no token before the answer, or a chat template that rewrites the text
        assume(False)
    steps = np.diff(words.word_of_token, prepend=-1, append=len(words.labels))
    assert set(steps.tolist()) <= {0, 1}
    assert steps[0] == steps[-1] == 1  # every bar has a label
    layout = layout_of(example, tokenizer, chat_template=chat_template)
    batch = tokenizer(layout.text, add_special_tokens=not chat_template, return_offsets_mapping=True)
    for token, word, (start, end) in zip(
        words.ids.tolist(), words.word_of_token, batch["offset_mapping"], strict=False
    ):
        label, piece = words.labels[word], "".join(layout.text[start:end].split())
        if piece:
            assert piece in "".join(label.split())
            if token in tokenizer.all_special_ids and token != tokenizer.unk_token_id:
                assert label == piece
        elif label != tokenizer.convert_ids_to_tokens(token) and not set(label) <= set("␣↵⇥…"):
            assert layout.text[end:].startswith(label.split()[0])
