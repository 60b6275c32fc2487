"""The labelled examples that resemble one best, as demonstrations: TF-IDF and the cosine over a pool held in memory.

A few milliseconds an item for 2,000 examples, less than rapidfuzz takes on texts of some length; see
benchmarks.demonstrations.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from annotator.grounding import ground
from annotator.prompts import quoted
from annotator.segments import segments_of
from core.domain.annotation import Demonstration, Example
from core.domain.relations import Relation
from core.domain.spans import Span

# Words and numbers; letter by letter where a script puts no space between words (CJK, kana, Hangul).
_UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_DIGITS = 9  # of a similarity that count, so that equal ones tie whatever the order of their sums


class Pool:
    """Labelled examples, ready to be searched; the order in which they are given decides between equals."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = tuple(examples)
        self._texts = [_folded(example.text) for example in examples]
        counts = [Counter(_words(text)) for text in self._texts]
        documents = Counter(word for count in counts for word in count)
        # Smoothed, so that in a small pool a word that all texts have still counts for something.
        self._idf = {word: math.log((1 + len(counts)) / (1 + found)) + 1 for word, found in documents.items()}
        postings: dict[str, tuple[list[int], list[float]]] = {word: ([], []) for word in documents}
        for row, count in enumerate(counts):
            weights = {word: times * self._idf[word] for word, times in count.items()}
            norm = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
            for word, weight in weights.items():
                rows, shares = postings[word]
                rows.append(row)
                shares.append(weight / norm)
        self._postings = {word: (np.array(rows), np.array(shares)) for word, (rows, shares) in postings.items()}
        self._quoted: dict[int, Demonstration | None] = {}

    def __len__(self) -> int:
        return len(self._examples)

    def draw(self, example: Example, k: int) -> tuple[Demonstration, ...]:
        """The k most similar examples of the pool, fewer when it has no more, the most similar last.

        Never the example itself, nor one with the same words in another case or with other white space; no two that
        are the same so; none that cannot be quoted, see demonstration_of.
        """
        if not self._examples:
            return ()  # as in most jobs, where not even the words need be counted
        taken: list[Demonstration] = []
        seen = {_folded(example.text)}
        for row in self._ranked(example):
            if len(taken) == k:
                break
            if self._texts[row] in seen or (example.id and self._examples[row].id == example.id):
                continue
            shown = self._demonstration(row)
            if shown is not None:
                seen.add(self._texts[row])
                taken.append(shown)
        return tuple(reversed(taken))

    def _demonstration(self, row: int) -> Demonstration | None:
        if row not in self._quoted:
            self._quoted[row] = demonstration_of(self._examples[row])
        return self._quoted[row]

    def _ranked(self, example: Example) -> Iterator[int]:
        """The rows of the pool by falling similarity, equals in their order."""
        scores: npt.NDArray[np.float64] = np.zeros(len(self._examples))
        for word, times in Counter(_words(_folded(example.text))).items():
            if word in self._postings:
                rows, shares = self._postings[word]
                scores[rows] += times * self._idf[word] * shares
        # The example's own norm is the same for all, so it is left out of the cosine.
        yield from np.argsort(-np.round(scores, _DIGITS), kind="stable").tolist()


def demonstration_of(example: Example) -> Demonstration | None:
    """An example with its relations in words, as a teacher would have to write them.

    None when no quotes say what its spans do, as for a phrase inside a word: what would be learned is not what holds.
    """
    text = example.text
    segments = segments_of(text, len(example.input))
    relations = tuple(quoted(relation, text, segments) for relation in example.relations)
    found, _ = ground(text, len(example.input), relations)
    if _edges(grounded.relation for grounded in found) != _edges(example.relations):
        return None
    return Demonstration(example.input, example.target, relations)


def _edges(relations: Iterable[Relation]) -> set[tuple[Span, Span]]:
    return {(relation.effect, cause) for relation in relations for cause in relation.causes}


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _words(folded: str) -> list[str]:
    return _WORD.findall(folded)
