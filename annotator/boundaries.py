"""Where a phrase may begin or end in a text of any language, so that "5" is never found inside "58" or "2.5"."""

import re
import unicodedata

_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")
# What may stand before the point of a number written without its zero, as in "by .8" or "(.5".
_BEFORE_BARE_POINT = frozenset(" \t\r\n\u00a0([{<=+-*/×÷$€£~≈:")
# Scripts that put no space between words, or (Hangul) attach particles to them: any letter may end a phrase there.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul jamo
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x9FFF),  # CJK and kana
    (0xAC00, 0xD7AF),  # Hangul
    (0xF900, 0xFAFF),  # CJK compatibility
    (0xFF66, 0xFF9D),  # half-width kana
    (0x20000, 0x3FFFF),  # CJK extensions
)
_NUMBER = re.compile(r"(?:(?<![\w.,)\]])\.)?\d(?:[\d.,]*\d)?")
_NUMERALS = re.compile(r"[^\W\d_]*[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2080-\u2089\u2150-\u2189]+")


def is_boundary(text: str, at: int, *, loose: bool = False) -> bool:
    """Whether a phrase may begin or end between `text[at - 1]` and `text[at]`.

    Not inside a word, a number, a character with its combining marks, or a joined emoji. With `loose`, also between a
    number and the unit written onto it ("15|kg") and at a comma between digits that does not group thousands ("1,|2").
    """
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if not before.isascii() and before != _ZERO_WIDTH_JOINER:
        before = _base(text, at - 1)
    if before.isalnum() and after.isalnum():
        return _splits_word(before, after, loose=loose)
    if before.isdecimal() and after in ".,":
        return not _joins_number(text, at, loose=loose)
    if after.isdecimal() and before in ".,":
        return not _joins_number(text, at - 1, loose=loose)
    return after.isascii() or not (_extends(after) or before == _ZERO_WIDTH_JOINER)


def is_bounded(text: str, start: int, end: int, *, loose: bool = False) -> bool:
    """Whether [start, end) begins and ends at a boundary."""
    return is_boundary(text, start, loose=loose) and is_boundary(text, end, loose=loose)


def numbers_of(text: str) -> tuple[str, ...]:
    """Every number in `text`, in order, digits of any script written as ASCII: what grounding must never change."""
    found = [_ascii_digits(number) for number in _NUMBER.findall(text)]
    if not text.isascii():
        found += _NUMERALS.findall(text)
    return tuple(found)


def _splits_word(before: str, after: str, *, loose: bool) -> bool:
    if before.isnumeric() and after.isnumeric():  # also the ideographs of "fifteen"
        return False
    if _is_unspaced(before) or _is_unspaced(after):
        return not _extends(after)
    return loose and before.isdecimal()


def _joins_number(text: str, mark: int, *, loose: bool) -> bool:
    """Whether the point or comma at `mark` belongs to the number beside it."""
    if not text[mark + 1 : mark + 2].isdecimal():
        return False
    before = text[mark - 1 : mark]
    if text[mark] == ".":
        return before.isdecimal() or before == "" or before in _BEFORE_BARE_POINT
    if not before.isdecimal():
        return False
    after = text[mark + 1 : mark + 5]
    groups_thousands = len(after) >= 3 and after[:3].isdecimal() and not after[3:].isdecimal()
    return groups_thousands or not loose


def _base(text: str, at: int) -> str:
    """The character that the combining marks at `at` stand on."""
    while at > 0 and _extends(text[at]):
        at -= 1
    return text[at]


def _is_unspaced(character: str) -> bool:
    point = ord(character)
    return point >= 0x0E00 and any(low <= point <= high for low, high in _UNSPACED)


def _extends(character: str) -> bool:
    """Whether this character continues the one before it: a combining mark, a joiner, a skin tone."""
    return (
        character == _ZERO_WIDTH_JOINER
        or _SKIN_TONES[0] <= character <= _SKIN_TONES[1]
        or unicodedata.category(character).startswith("M")
    )


def _ascii_digits(number: str) -> str:
    if number.isascii():
        return number
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in number)
