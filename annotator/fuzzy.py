"""The last rung of grounding: a phrase misquoted by a letter, an ending or an article, never by a number or a word."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rapidfuzz import fuzz
from rapidfuzz.distance import Indel, Levenshtein

from annotator.boundaries import numbers_of

MIN_SCORE = 90.0  # of 100, rapidfuzz ratio of the folded phrases
MAX_PHRASE = 400  # characters
MAX_TEXT = 20_000  # characters
_MIN_WORDS = 2  # of one word, a slip is too much
_UNSPACED = 0x0E00  # from Thai on, a "word" is a whole clause, and one character of it a word
_MAX_CANDIDATES = 16
_TOKEN = re.compile(r"\w+(?:'\w+)*|[^\w\s]")

# English words that carry no content: a quote may leave them out, or exchange one for another of its kind. Other
# languages have none here, so there every word counts; so does every negation, preposition and pronoun.
_ARTICLES = frozenset(("a", "an", "the"))
_AUXILIARIES = frozenset(("is", "are", "was", "were", "be", "been", "will", "would", "has", "have", "had"))
_FUNCTION_WORDS = _ARTICLES | _AUXILIARIES | {"of", "that", "to"}
_ENDINGS = frozenset(("", "s", "es", "d", "ed", "ing", "ly"))
# One letter apart, and yet another number.
_NUMBER_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion
        first second third fourth fifth sixth seventh eighth ninth tenth half twice thrice double triple
        """,
    )
)


@dataclass(frozen=True, slots=True)
class Near:
    """A part of a folded text, [start, end), that resembles a phrase with `score` of 100."""

    start: int
    end: int
    score: float


def nearly(phrase: str, text: str) -> list[Near]:
    """Parts of `text` (both folded) that are `phrase` but for a slip, in order; at most 16, never overlapping.

    Every number is identical and in the same order; every content word has its counterpart, equal or with a slip of
    one letter or an ending; so no part is ever shorter than the phrase by a word that matters.
    """
    words = _TOKEN.findall(phrase)
    if len(words) < _MIN_WORDS or len(phrase) > min(MAX_PHRASE, len(text)) or len(text) > MAX_TEXT:
        return []
    return sorted(_search(phrase, words, text), key=lambda near: near.start)


def _search(phrase: str, words: list[str], text: str) -> Iterator[Near]:
    tokens = [(m.start(), m.end()) for m in _TOKEN.finditer(text)]
    numbers = numbers_of(phrase)
    todo, found = [(0, len(text))], 0
    while todo and found < _MAX_CANDIDATES:
        low, high = todo.pop()
        # The window found here is cut at characters; the whole phrase must still fit it at word ends.
        best = fuzz.partial_ratio_alignment(phrase, text[low:high], score_cutoff=MIN_SCORE - 8)
        if best is None or high - low < len(phrase):
            continue
        start, end = low + best.dest_start, low + best.dest_end
        near = _snap(phrase, text, tokens, start, end)
        if near is not None and _agrees(words, numbers, text[near.start : near.end]):
            found += 1
            yield near
        todo += [(low, start), (end, high)]


def _snap(phrase: str, text: str, tokens: list[tuple[int, int]], start: int, end: int) -> Near | None:
    """The best-scoring run of whole tokens around a window cut at characters."""
    inside = [i for i, (a, b) in enumerate(tokens) if a < end and b > start]
    if not inside:
        return None
    first, last = inside[0], inside[-1]
    best: Near | None = None
    for i in range(max(first - 1, 0), min(first + 2, last + 1)):
        for j in range(max(last - 1, i), min(last + 2, len(tokens))):
            a, b = tokens[i][0], tokens[j][1]
            score = fuzz.ratio(phrase, text[a:b], score_cutoff=MIN_SCORE)
            if score and (best is None or score > best.score):
                best = Near(a, b, score)
    return best


def _agrees(words: list[str], numbers: tuple[str, ...], window: str) -> bool:
    """Whether the window has the phrase's numbers and its words, but for slips and function words."""
    if numbers_of(window) != numbers:
        return False
    there = _TOKEN.findall(window)
    missing: list[str] = []
    extra: list[str] = []
    for step in Indel.opcodes(words, there):
        if step.tag == "equal":
            if not _is_bridged(missing, extra):
                return False
            missing, extra = [], []
        elif step.tag == "delete":
            missing += filter(_matters, words[step.src_start : step.src_end])
        else:
            extra += filter(_matters, there[step.dest_start : step.dest_end])
    return _is_bridged(missing, extra)


def _is_bridged(missing: list[str], extra: list[str]) -> bool:
    """Whether words that only the phrase has, and words that only the text has, may stand for one another."""
    if not extra:
        return _ARTICLES.issuperset(missing)
    if not missing:
        return _FUNCTION_WORDS.issuperset(extra)
    return len(missing) == len(extra) and all(map(_may_stand_for, missing, extra))


def _may_stand_for(word: str, other: str) -> bool:
    kinds = (_ARTICLES, _AUXILIARIES)
    return any(word in kind and other in kind for kind in kinds) or _is_slip(word, other)


def _matters(word: str) -> bool:
    """Whether a token is more than punctuation."""
    return word[0].isalnum() or word in "%$€£<>=+-*/^"


def _is_slip(word: str, other: str) -> bool:
    """Whether two different words differ by an ending or by one letter of a long word."""
    word, other = word.replace("'", ""), other.replace("'", "")
    if not (word.isalpha() and other.isalpha()) or word[0] != other[0] or {word, other} & _NUMBER_WORDS:
        return False
    if ord(max(word)) >= _UNSPACED:
        return False
    short, long = sorted((word, other), key=len)
    if len(short) >= 3 and long.startswith(short) and long[len(short) :] in _ENDINGS:
        return True
    return len(short) >= 5 and Levenshtein.distance(word, other) == 1
