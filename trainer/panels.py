"""What rows of a text look at, in numbers: attention summed over the tokens of each word, per layer and head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import InvalidInput
from trainer.answers import Model
from trainer.maps import attention_of_rows, stock_attention
from trainer.words import Words


@dataclass(frozen=True, slots=True)
class Panel:
    """One row as one model sees it.

    `attention` (W,) sums to 1; `mass` is its share on the row's annotated causes, None where it has none.
    """

    name: str
    attention: list[float]
    mass: float | None


@dataclass(frozen=True, slots=True)
class Heads:
    """Chosen rows as one model sees them. Shapes: R rows, L layers, H heads, T tokens, W words."""

    name: str
    attention: NDArray[np.float64]  # (R, L, H, W), sums to 1 over W
    masses: list[NDArray[np.float64] | None]  # R of (L, H): on the row's annotated causes, None where it has none

    def panel(self, *, row: int = -1, layer: int | None = None, head: int | None = None) -> Panel:
        """One row in a layer and head; None for the mean over all of them.

        Raises
        ------
        InvalidInput
            There is no such layer or head.
        """
        _, layers, heads, _ = self.attention.shape
        chosen = []
        for what, number, there_are in (("layer", layer, layers), ("head", head, heads)):
            if number is not None and not 0 <= number < there_are:
                raise InvalidInput(f"there is no {what} {number}: the model's are 0 to {there_are - 1}", field=what)
            chosen.append(slice(None) if number is None else slice(number, number + 1))
        attention, mass = self.attention[row][chosen[0], chosen[1]].mean((0, 1)), self.masses[row]  # (W,), (L, H)
        on_causes = None if mass is None else float(mass[chosen[0], chosen[1]].mean())
        return Panel(self.name, attention.tolist(), on_causes)


def look_at(name: str, model: Model, words: Words, rows: Sequence[int]) -> Heads:
    """The attention of the rows at token positions `rows`, in stock attention."""
    with stock_attention(model):
        maps = attention_of_rows(model, torch.from_numpy(words.ids).long(), torch.tensor(rows))  # (L, H, R, T)
    of_token = maps.double().numpy().transpose(2, 0, 1, 3)  # (R, L, H, T)
    first_tokens = np.flatnonzero(np.diff(words.word_of_token, prepend=-1))
    of_word = np.add.reduceat(of_token, first_tokens, axis=-1)
    masses = [
        of_row[..., causes].sum(-1) if (causes := words.causes_of(row)).size else None  # (L, H)
        for row, of_row in zip(rows, of_token, strict=True)
    ]
    return Heads(name, of_word, masses)


def look(name: str, model: Model, words: Words) -> Panel:
    """The row that predicts the answer's first token, mean over layers and heads."""
    return look_at(name, model, words, [len(words.ids) - 1]).panel()
