"""An example up to its answer, as words, and which tokens make up each."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from core.domain.annotation import Example
from core.domain.training import Rows
from trainer.answers import ANY_LENGTH
from trainer.encoding import Encoded, encode
from trainer.layout import layout_of

_ANY_TARGET = "a"  # stands for an unknown answer, as in trainer.encoding


@dataclass(frozen=True, slots=True)
class Words:
    """The tokens up to the row that predicts the answer's first token, grouped into words.

    Shapes: T tokens, W words. A special token is a word of its own.
    """

    ids: NDArray[np.int32]  # (T,)
    word_of_token: NDArray[np.int64]  # (T,) increasing
    labels: list[str]  # (W,)
    causes: NDArray[np.int64]  # tokens that the answer's row is annotated to attend to

    @property
    def is_cause(self) -> list[bool]:
        """(W,) whether a word holds a cause's token."""
        marked = set(self.word_of_token[self.causes].tolist())
        return [word in marked for word in range(len(self.labels))]


def words_of(tokenizer: PreTrainedTokenizerBase, example: Example, *, chat_template: bool = False) -> Words:
    """Split an example at white space; a token belongs to the word that its first visible character stands in."""
    if not example.target:
        example = Example(example.input, _ANY_TARGET, example.id)
    encoded = encode(tokenizer, example, max_length=ANY_LENGTH, rows=Rows.EFFECTS, chat_template=chat_template)
    layout = layout_of(example, tokenizer, chat_template=chat_template)
    batch = tokenizer(layout.text, add_special_tokens=not layout.is_chat, return_offsets_mapping=True, verbose=False)
    ids = encoded.ids[: encoded.prompt_length]
    found = list(re.finditer(r"\S+", layout.text[: layout.target_start]))
    starts = [match.start() for match in found]
    special = set(tokenizer.all_special_ids)
    keys: list[tuple[int, int]] = []  # one a token: (its word, -1), or (-1, its position) for a special token
    for position, (token, (start, end)) in enumerate(zip(ids.tolist(), batch["offset_mapping"], strict=False)):
        piece = layout.text[start:end]
        word = int(np.searchsorted(starts, end - len(piece.lstrip()), side="right")) - 1
        keys.append((-1, position) if token in special else (word, -1))
    distinct = list(dict.fromkeys(keys))
    labels = [
        found[word].group() if position < 0 else str(tokenizer.convert_ids_to_tokens(int(ids[position])))
        for word, position in distinct
    ]
    return Words(ids, np.array([distinct.index(key) for key in keys]), labels, _causes(encoded, len(ids) - 1))


def _causes(encoded: Encoded, row: int) -> NDArray[np.int64]:
    """The columns that row may see; none where it is not supervised."""
    at = np.flatnonzero(encoded.row_positions == row)
    if not at.size:
        return np.empty(0, np.int64)
    return encoded.columns[encoded.column_starts[at[0]] : encoded.column_starts[at[0] + 1]].astype(np.int64)
