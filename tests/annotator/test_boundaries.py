import pytest

from annotator.boundaries import is_bounded, numbers_of


def bounded(text: str, phrase: str, *, loose: bool = False) -> list[bool]:
    starts = [i for i in range(len(text)) if text.startswith(phrase, i)]
    assert starts, f"{phrase!r} is not in {text!r}"
    return [is_bounded(text, start, start + len(phrase), loose=loose) for start in starts]


@pytest.mark.parametrize(
    ("text", "phrase", "expected"),
    [
        ("5 and 58 and 15", "5", [True, False, False]),
        ("2.5 kg, 5. And 5, then 5.", "5", [False, True, True, True]),
        ("by .8 or 0.8, 8", "8", [False, False, True]),
        ("apples.8 more", "8", [True]),
        ("1,500 coins", "500", [False]),
        ("1,500 coins", "1", [False]),
        ("$5 and 5%", "5", [True, True]),
        ("art of the start", "art", [True, False]),
        ("Plum's", "Plum", [True]),
        ("#### 8", "#### 8", [True]),
        ("10² m", "10", [False]),
        ("1½ cups", "1", [False]),
        ("cafe\u0301 e", "e", [False, True]),
        ("caf\u0301e", "e", [False]),
        ("黑猫坐", "猫", [True]),
        ("十五只, 五只", "五", [False, True]),
        ("사과를", "사과", [True]),
        ("5个苹果", "5", [True]),
        ("👍🏽 👍", "👍", [False, True]),
        ("👩\u200d🔬 👩", "👩", [False, True]),
        ("👩\u200d🔬 🔬", "🔬", [False, True]),
        ("مرحبا بكم", "مرحبا", [True]),
        ("شركة٥٨", "٥", [False]),
    ],
)
def test_phrases_begin_and_end_at_words_numbers_and_whole_characters(text, phrase, expected) -> None:
    assert bounded(text, phrase) == expected


@pytest.mark.parametrize(
    ("text", "phrase", "expected"),
    [
        ("15kg", "15", [True]),
        ("15kg", "kg", [True]),
        ("F1", "1", [False]),
        ("1,2,3", "2", [True]),
        ("1,500", "1", [False]),
        ("1,500", "500", [False]),
        ("158", "15", [False]),
    ],
)
def test_loose_boundaries_are_units_and_lists_never_parts_of_a_number(text, phrase, expected) -> None:
    assert bounded(text, phrase) != [True]
    assert bounded(text, phrase, loose=True) == expected


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("12 eggs, 3.5 kg; 1,500.", ("12", "3.5", "1,500")),
        ("by .8 and 0.8", (".8", "0.8")),
        ("apples.8", ("8",)),
        ("５８ and ٥", ("58", "5")),
        ("10² or 1½", ("10", "1", "²", "½")),
        ("none", ()),
    ],
)
def test_numbers_of(text, numbers) -> None:
    assert numbers_of(text) == numbers
