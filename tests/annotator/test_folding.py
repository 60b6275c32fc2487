import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.folding import fold, fold_phrase


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("High  Risk\n", "high risk"),
        ("“it’s”", '"IT\'S"'),
        ("a – b — c", "a - b - c"),
        ("cafe\u0301", "CAFÉ"),
        ("５８", "58"),
        ("ﬁne", "FINE"),
        ("Straße", "STRASSE"),
        ("\u1112\u1161\u11ab", "한"),
        ("so\u00adft \u200fhyphen", "soft hyphen"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
    ],
)
def test_these_fold_to_the_same(one: str, other: str) -> None:
    assert fold_phrase(one) == fold_phrase(other)


@pytest.mark.parametrize(("one", "other"), [("10²", "102"), ("1½", "11/2"), ("①", "1"), ("58", "5 8"), ("no", "not")])
def test_these_do_not(one: str, other: str) -> None:
    assert fold_phrase(one) != fold_phrase(other)


@given(st.text(max_size=60))
def test_every_folded_character_knows_its_source(text: str) -> None:
    folded = fold(text)
    assert len(folded.text) == len(folded.starts) == len(folded.ends)
    assert all(0 <= a < b <= len(text) for a, b in zip(folded.starts, folded.ends, strict=True))
    assert list(folded.starts) == sorted(folded.starts)


def test_a_match_never_cuts_through_one_source_character() -> None:
    folded = fold("Straße")
    assert folded.text == "strasse"
    assert [folded.source(0, end) for end in (4, 5, 6, 7)] == [(0, 4), None, (0, 5), (0, 6)]
    assert folded.source(5, 7) is None


@given(st.text(max_size=60), st.data())
def test_a_source_span_folds_back_to_what_was_matched(text: str, data: st.DataObject) -> None:
    folded = fold(text)
    if not folded.text:
        return
    start = data.draw(st.integers(0, len(folded.text) - 1))
    end = data.draw(st.integers(start + 1, len(folded.text)))
    source = folded.source(start, end)
    if source is not None:
        assert fold(text[slice(*source)]).text == folded.text[start:end]


@given(st.text(alphabet="aB \t\n'\"-5.", max_size=40))
def test_plain_ascii_takes_the_same_way_as_everything_else(text: str) -> None:
    # A trailing non-ASCII letter turns the fast path off.
    assert fold(text + "é").text == fold(text).text + "é"


@given(st.text(max_size=40))
def test_folding_does_not_depend_on_unicode_form(text: str) -> None:
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    if unicodedata.normalize("NFC", decomposed) == composed:
        assert fold_phrase(composed) == fold_phrase(decomposed)
