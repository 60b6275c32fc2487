"""Folding: two phrases are the same if they differ only in case, Unicode form, white space, quotes or dashes.

A folded text remembers where each of its characters came from, so that a match leads back to exact offsets.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_SINGLE = "'‘’‚‛ʼʹ′´`＇"
_DOUBLE = '"“”„‟«»″〝〞＂'
_DASHES = "-‐‑‒–—―−﹘﹣－"
_PLAIN = str.maketrans(dict.fromkeys(_SINGLE, "'") | dict.fromkeys(_DOUBLE, '"') | dict.fromkeys(_DASHES, "-"))
_ASCII_SPACES = str.maketrans(dict.fromkeys("\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f", " ") | {"`": "'"})
# ASCII that folding leaves alone but for its case, and that no combining mark follows: most of most texts.
_PLAIN_RUN = re.compile(r"(?:(?: (?![\s])|[!-_a-~])(?![^\x00-\x7f]))+")
_CONJOINING_JAMO = ("\u1160", "\u11ff")


@dataclass(frozen=True, slots=True)
class Folded:
    """Folded text; character i of it came from source[starts[i]:ends[i]] (several may share one source)."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def source(self, start: int, end: int) -> tuple[int, int] | None:
        """Source offsets of folded [start, end), or None where it would cut through one source character."""
        cuts_left = start > 0 and self.starts[start - 1] == self.starts[start]
        cuts_right = end < len(self.text) and self.starts[end] == self.starts[end - 1]
        if cuts_left or cuts_right:
            return None
        return self.starts[start], self.ends[end - 1]

    def before(self, offset: int) -> int:
        """How many folded characters end at or before a source offset."""
        return bisect_left(self.ends, offset + 1)


def fold(text: str) -> Folded:
    """Fold a text, white space at either end included, keeping the way back."""
    if text.isascii():
        plain = text.lower().translate(_ASCII_SPACES)
        if "  " not in plain:
            return Folded(plain, range(len(text)), range(1, len(text) + 1))
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    position = 0
    while position < len(text):
        if run := _PLAIN_RUN.match(text, position):
            end = run.end()
            pieces.append(run[0].lower())
            starts += range(position, end)
            ends += range(position + 1, end + 1)
        else:
            end = _cluster_end(text, position)
            piece = _fold_cluster(text[position:end])
            pieces.append(piece)
            starts += [position] * len(piece)
            ends += [end] * len(piece)
        position = end
    return Folded("".join(pieces), starts, ends)


def fold_phrase(phrase: str) -> str:
    """Fold a phrase that will be looked for in a folded text: as `fold`, without white space at the ends."""
    return fold(phrase).text.strip()


def _cluster_end(text: str, start: int) -> int:
    """The end of the white-space run, or of the character with its combining marks, that begins at `start`."""
    end = start + 1
    if text[start].isspace():
        while end < len(text) and text[end].isspace():
            end += 1
        return end
    while end < len(text) and _combines(text[end]):
        end += 1
    return end


def _combines(character: str) -> bool:
    return not character.isascii() and (
        unicodedata.combining(character) != 0 or _CONJOINING_JAMO[0] <= character <= _CONJOINING_JAMO[1]
    )


@lru_cache(maxsize=8192)
def _fold_cluster(cluster: str) -> str:
    if cluster.isspace():
        return " "
    if unicodedata.category(cluster[0]) == "Cf":
        return ""  # soft hyphens, direction marks: nobody quotes what they cannot see
    plain = cluster.translate(_PLAIN)
    normal = unicodedata.normalize("NFKC", plain)
    if _invents_digits(plain, normal):
        normal = unicodedata.normalize("NFC", plain)
    # Case folding can leave NFKC (and some NFKC forms begin with a space), hence the second pass.
    folded = unicodedata.normalize("NFKC", normal.casefold()) if normal.isalpha() else normal.casefold()
    return folded.translate(_PLAIN)


def _invents_digits(plain: str, normal: str) -> bool:
    """Whether normalising would turn "10²" into "102" or "1½" into "11/2"."""
    return not plain[0].isdecimal() and any(c.isdecimal() for c in normal)
