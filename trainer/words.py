"""An example up to its answer, as words, and which tokens make up each."""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from core.domain.annotation import Example
from core.domain.training import Rows
from core.errors import InvalidInput
from trainer.answers import ANY_LENGTH
from trainer.encoding import Encoded, encode
from trainer.layout import layout_of

_ANY_TARGET = "a"  # stands for an unknown answer, as in trainer.encoding
_SIGNS = {"\n": "↵", "\t": "⇥"}  # what other white space looks like: ␣
_MOST_SIGNS = 6

_Key = tuple[str, int]  # what a token belongs to: ("word", its start), ("white space", 0) or ("special", the token)


@dataclass(frozen=True, slots=True)
class Words:
    """The tokens up to the row that predicts the answer's first token, grouped into words.

    Shapes: T tokens, W words. A special token is a word of its own, and so is white space that no word follows at once.
    """

    ids: NDArray[np.int32]  # (T,)
    word_of_token: NDArray[np.int64]  # (T,) from 0 to W - 1, never decreasing
    labels: list[str]  # (W,)
    causes: NDArray[np.int64]  # tokens that the answer's row is annotated to attend to

    @property
    def answer_row(self) -> int:
        """The position of the row that predicts the answer's first token."""
        return len(self.ids) - 1

    def causes_of(self, row: int) -> NDArray[np.int64]:
        """The tokens that a row is annotated to attend to: none, unless it is the answer's."""
        return self.causes if row == self.answer_row else self.causes[:0]

    @property
    def is_cause(self) -> list[bool]:
        """(W,) whether a word holds a cause's token."""
        marked = set(self.word_of_token[self.causes].tolist())
        return [word in marked for word in range(len(self.labels))]


def words_of(tokenizer: PreTrainedTokenizerBase, example: Example, *, chat_template: bool = False) -> Words:
    """Split an example at white space and at special tokens; words that share a token are one.

    A token belongs to the word that its visible characters stand in, one of white space alone to the word that begins
    where it ends. Tokenizers differ in what they leave of white space, so that is all that is asked of them.

    Raises
    ------
    InvalidInput
        The text is white space alone, or no token stands before the answer; or as trainer.encoding.encode.
    """
    if not example.input.strip():
        raise InvalidInput("there are no words in the text", field="input")
    if not example.target:
        example = Example(example.input, _ANY_TARGET, example.id)
    encoded = encode(tokenizer, example, max_length=ANY_LENGTH, rows=Rows.EFFECTS, chat_template=chat_template)
    ids = encoded.ids[: encoded.prompt_length]
    if not ids.size:
        raise InvalidInput("no token stands before the answer: the text is too short", field="input")
    layout = layout_of(example, tokenizer, chat_template=chat_template)
    batch = tokenizer(layout.text, add_special_tokens=not layout.is_chat, return_offsets_mapping=True, verbose=False)
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(ids.tolist())]
    places: list[tuple[int, int]] = batch["offset_mapping"][: len(ids)]
    special = [
        _is_special(tokenizer, token, name, layout.text[start:end])
        for token, name, (start, end) in zip(ids.tolist(), names, places, strict=True)
    ]
    text = layout.text[: layout.target_start]
    words = _words(text, places, special)
    keys = [("special", token) if special[token] else _key(text, words, *place) for token, place in enumerate(places)]
    labels: list[str] = []
    word_of_token: list[int] = []
    # Words are runs of tokens: whatever a tokenizer's offsets are, numbers go up, and each has its label.
    for (kind, which), run in groupby(range(len(keys)), key=keys.__getitem__):
        tokens = list(run)
        word_of_token += [len(labels)] * len(tokens)
        labels.append(
            names[which] if kind == "special"
            else " ".join(text[which : words[which]].split()) if kind == "word"
            else _signs(text[places[tokens[0]][0] : places[tokens[-1]][1]])
        )  # fmt: skip
    return Words(ids, np.array(word_of_token), labels, _causes(encoded, len(ids) - 1))


def shortened(text: str, most: int) -> str:
    """A text in one line, of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _is_special(tokenizer: PreTrainedTokenizerBase, token: int, name: str, piece: str) -> bool:
    """Whether a token is one that the tokenizer added, or that stands in the text by its name.

    The unknown token in the place of a word is not: the word says more.
    """
    if token == tokenizer.unk_token_id:
        return piece == "" or piece.strip() == name
    return token in tokenizer.all_special_ids


def _words(text: str, places: list[tuple[int, int]], special: list[bool]) -> dict[int, int]:
    """Where each word starts to where it ends, in order."""
    outline = list(text)
    ranges = [_visible(text, *place) for place in places]
    for specials, stands_for in ((True, " "), (False, "x")):  # a special token ends a word, any other holds it together
        for (start, end), is_special in zip(ranges, special, strict=True):
            if is_special == specials:
                outline[start:end] = stands_for * (end - start)
    return {match.start(): match.end() for match in re.finditer(r"\S+", "".join(outline))}


def _key(text: str, words: dict[int, int], start: int, end: int) -> _Key:
    """What a token belongs to that is not special."""
    first, last = _visible(text, start, end)
    if first == last:
        return ("word", end) if end in words else ("white space", 0)
    starts = list(words)
    return "word", starts[bisect_right(starts, first) - 1]


def _visible(text: str, start: int, end: int) -> tuple[int, int]:
    """A range without the white space at its ends."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def _signs(white_space: str) -> str:
    signs = "".join(_SIGNS.get(character, "␣") for character in white_space) or "␣"
    return signs if len(signs) <= _MOST_SIGNS else signs[: _MOST_SIGNS - 1] + "…"


def _causes(encoded: Encoded, row: int) -> NDArray[np.int64]:
    """The columns that row may see; none where it is not supervised."""
    at = np.flatnonzero(encoded.row_positions == row)
    if not at.size:
        return np.empty(0, np.int64)
    return encoded.columns[encoded.column_starts[at[0]] : encoded.column_starts[at[0] + 1]].astype(np.int64)
