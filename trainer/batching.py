"""From encoded examples to padded tensors, and in which order examples are met."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from trainer.encoding import Encoded

NO_LOSS = -100  # the label that cross-entropy ignores

FILLER = -1  # index of an example that adds nothing to any loss

_POOL = 50  # groups among which examples of like length are brought together


def collate(encoded: Sequence[Encoded], *, pad_id: int, left: bool = False) -> dict[str, Any]:
    """One batch, padded to its longest example.

    Shapes: B examples, T tokens, R supervised rows of the example with the most.

    Returns
    -------
    input_ids, attention_mask, labels
        (B, T) int64; labels are NO_LOSS on prompt and padding, and not shifted.
    position_ids
        (B, T) int64, present with left padding only: elsewhere positions are the model's default.
    row_index, row_valid, is_effect
        (B, R) int64, bool, bool. Padding rows point to T - 1: that position predicts nothing and no other sees it.
    allowed
        (B, R, T) bool: the columns each row may see. All False in padding rows.
    scored_from
        int, the first position whose logits predict a label.
    targets, rows, tokens
        int: labels that are predicted, supervised rows, and tokens that are no padding.
    example_ids
        list of B strings, to name a batch in an error.
    """
    lengths = np.array([len(e.ids) for e in encoded])
    shape = len(encoded), int(lengths.max())
    shift = shape[1] - lengths if left else np.zeros_like(lengths)  # (B,) where each example begins
    place = np.arange(shape[1]) - shift[:, None]  # (B, T) position within the example
    real = (place >= 0) & (place < lengths[:, None])
    ids = np.full(shape, pad_id, np.int64)
    ids[real] = np.concatenate([e.ids for e in encoded])
    prompts = np.array([e.prompt_length for e in encoded])
    labelled = real & (place >= prompts[:, None])
    batch = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(real.astype(np.int64)),
        "labels": torch.from_numpy(np.where(labelled, ids, NO_LOSS)),
        **_rows(encoded, shift, shape),
        "targets": int(labelled[:, 1:].sum()),
        "rows": sum(len(e.row_positions) for e in encoded),
        "tokens": int(lengths.sum()),
        "scored_from": max(int(labelled.any(0).argmax()) - 1, 0),
        "example_ids": [e.example_id for e in encoded],
    }
    if left:
        batch["position_ids"] = torch.from_numpy(np.maximum(place, 0))
    return batch


class LengthGrouped(Sampler[int]):
    """Every example once an epoch, in an order that is a function of seed and epoch alone.

    Examples are shuffled, sorted by length within pools of 50 groups, and the groups of a pool shuffled again: little
    padding, and each group still a chance sample. A group is one optimiser step, so that cutting a step into smaller
    micro-batches, for memory or over processes, leaves its examples the same.

    Parameters
    ----------
    multiple_of
        FILLER is appended until this divides the number of examples.
    """

    def __init__(
        self, lengths: Sequence[int], group_size: int, seed: int, epoch: Callable[[], int], *, multiple_of: int = 1
    ) -> None:
        self._lengths = np.array(lengths)
        self._group_size = group_size
        self._seed = seed
        self._epoch = epoch
        self._fillers = -len(self._lengths) % multiple_of

    def __len__(self) -> int:
        return len(self._lengths) + self._fillers

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self._seed, self._epoch()))
        order = generator.permutation(len(self._lengths))
        pool = _POOL * self._group_size
        for begin in range(0, len(order), pool):
            yield from self._grouped(order[begin : begin + pool], generator)
        yield from [FILLER] * self._fillers

    def _grouped(self, pool: NDArray[np.int64], generator: np.random.Generator) -> list[int]:
        by_length = pool[np.argsort(-self._lengths[pool], kind="stable")]
        whole = len(by_length) // self._group_size * self._group_size
        groups = by_length[:whole].reshape(-1, self._group_size)
        # An incomplete group stays last: moved forward, it would shift the bounds of all that follow.
        return [*generator.permutation(groups).ravel().tolist(), *by_length[whole:].tolist()]


class Examples(Dataset[Encoded]):
    """The training split by index. FILLER is the shortest example without loss and rows, to even out processes."""

    def __init__(self, encoded: Sequence[Encoded]) -> None:
        self._encoded = encoded

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> Encoded:
        return self._encoded[index] if index != FILLER else _without_loss(min(self._encoded, key=lambda e: len(e.ids)))


def _without_loss(example: Encoded) -> Encoded:
    nothing = np.zeros(0, np.int32)
    return replace(
        example,
        prompt_length=len(example.ids),
        row_positions=nothing,
        column_starts=np.zeros(1, np.int32),
        columns=nothing,
        is_effect_row=np.zeros(0, np.bool_),
    )


def _rows(encoded: Sequence[Encoded], shift: NDArray[np.int64], shape: tuple[int, int]) -> dict[str, torch.Tensor]:
    size, length = shape
    counts = np.array([len(e.row_positions) for e in encoded])
    most = int(counts.max())
    valid = np.arange(most) < counts[:, None]  # (B, R)
    index = np.full((size, most), length - 1, np.int64)
    index[valid] = np.concatenate([e.row_positions for e in encoded]) + np.repeat(shift, counts)
    is_effect = np.zeros((size, most), np.bool_)
    is_effect[valid] = np.concatenate([e.is_effect_row for e in encoded])
    widths = np.concatenate([np.diff(e.column_starts) for e in encoded])  # columns of each row of the batch
    columns = np.concatenate([e.columns for e in encoded])
    columns = columns + np.repeat(np.repeat(shift, counts), widths)
    allowed = np.zeros((size, most, length), np.bool_)
    allowed.reshape(-1, length)[np.repeat(np.flatnonzero(valid), widths), columns] = True
    return {
        "row_index": torch.from_numpy(index),
        "row_valid": torch.from_numpy(valid),
        "is_effect": torch.from_numpy(is_effect),
        "allowed": torch.from_numpy(allowed),
    }
