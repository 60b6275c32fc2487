"""From encoded examples to padded tensors, and in which order examples are met."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from trainer.encoding import Encoded
from trainer.packing import pack
from trainer.rows import ramp

Ints: TypeAlias = NDArray[np.int64]

NO_LOSS = -100  # the label that cross-entropy ignores

FILLER = -1  # index of an example that adds nothing to any loss

_POOL = 50  # groups among which examples of like length are brought together


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each of E examples stands in a batch."""

    row: Ints  # (E,) increasing
    begin: Ints  # (E,) position of its first token
    lengths: Ints  # (E,)
    shape: tuple[int, int]  # (B, T)

    def flat(self, owner: Ints, positions: Ints) -> Ints:
        """Indices into the flattened batch of positions within the examples `owner`."""
        indices: Ints = (self.row * self.shape[1] + self.begin)[owner] + positions
        return indices


def collate(
    encoded: Sequence[Encoded], *, pad_id: int, left: bool = False, pack_to: int | None = None
) -> dict[str, Any]:
    """One batch, a row for each example, padded to the longest; or with `pack_to` examples behind one another in rows.

    Shapes: B rows (examples, unless packed), T tokens, R supervised rows of the row with the most, N targets.

    Parameters
    ----------
    left
        Pad on the left; not where packed.
    pack_to
        Most tokens of a packed row, see trainer.packing. Its examples come in the order they are packed.

    Returns
    -------
    input_ids, labels
        (B, T) int64; labels are NO_LOSS on prompts, padding and examples' first tokens, and not shifted.
    attention_mask
        (B, T) int64, not where packed: there transformers tells from the positions which tokens belong together.
    position_ids
        (B, T) int64, where packed or padded on the left: elsewhere positions are the model's default. They start at 0
        with each example. The padding of a packed row counts from 0 too, as if it were another example.
    row_index
        (B, R) int64. Padding rows point to T - 1: that position predicts nothing and no other sees it.
    allowed_slots, allowed_columns
        (n,) int64: which columns each row may see, see trainer.cells. Padding rows may see none.
    scored, target_ids
        (B, T) bool, the positions whose logits predict a label; (N,) int64, those labels in the same order.
    targets, rows, tokens, positions
        int: N, supervised rows, tokens that are no padding, and B x T.
    example_ids
        list of strings, to name a batch in an error.
    """
    encoded, layout = _in_rows(encoded, left=left) if pack_to is None else _packed(encoded, pack_to)
    lengths, shape = layout.lengths, layout.shape
    owner, place = np.repeat(np.arange(len(encoded)), lengths), ramp(lengths)  # of each token
    at = layout.flat(owner, place)
    ids, labels = np.full(shape, pad_id, np.int64), np.full(shape, NO_LOSS, np.int64)
    ids.flat[at] = tokens = np.concatenate([e.ids for e in encoded])
    prompts = np.array([e.prompt_length for e in encoded])
    labelled = place >= np.maximum(prompts, 1)[owner]  # nothing of its own stands before an example's first token
    labels.flat[at[labelled]] = tokens[labelled]
    scored = np.zeros(shape, np.bool_)
    scored.flat[at[labelled] - 1] = True
    batch = {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        **_rows(encoded, layout),
        "scored": torch.from_numpy(scored),
        "target_ids": torch.from_numpy(tokens[labelled].astype(np.int64)),
        "targets": int(labelled.sum()),
        "rows": sum(len(e.row_positions) for e in encoded),
        "tokens": len(tokens),
        "positions": ids.size,
        "example_ids": [e.example_id for e in encoded],
    }
    if pack_to is None:
        real = np.zeros(shape, np.int64)
        real.flat[at] = 1
        batch["attention_mask"] = torch.from_numpy(real)
    if pack_to is not None or left:
        filled = np.zeros(shape[0], np.int64)
        np.maximum.at(filled, layout.row, layout.begin + lengths)
        positions = np.maximum(np.arange(shape[1]) - filled[:, None], 0)  # of padding after the tokens
        positions.flat[at] = place
        batch["position_ids"] = torch.from_numpy(positions)
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
    )


def _in_rows(encoded: Sequence[Encoded], *, left: bool) -> tuple[Sequence[Encoded], _Layout]:
    lengths = np.array([len(e.ids) for e in encoded])
    width = int(lengths.max())
    begin = width - lengths if left else np.zeros_like(lengths)
    return encoded, _Layout(np.arange(len(encoded)), begin, lengths, (len(encoded), width))


def _packed(encoded: Sequence[Encoded], capacity: int) -> tuple[Sequence[Encoded], _Layout]:
    """The examples in the order in which they are packed."""
    rows = pack([len(e.ids) for e in encoded], capacity)
    encoded = [encoded[index] for row in rows for index in row]
    lengths, counts = np.array([len(e.ids) for e in encoded]), np.array([len(row) for row in rows])
    row = np.repeat(np.arange(len(rows)), counts)
    before = np.cumsum(lengths) - lengths
    begin = before - before[np.cumsum(counts) - counts][row]
    return encoded, _Layout(row, begin, lengths, (len(rows), int((begin + lengths).max())))


def _rows(encoded: Sequence[Encoded], layout: _Layout) -> dict[str, torch.Tensor]:
    size, length = layout.shape
    counts = np.array([len(e.row_positions) for e in encoded])
    owner = np.repeat(np.arange(len(encoded)), counts)  # of each supervised row
    together = np.bincount(layout.row, counts, size).astype(np.int64)  # (B,)
    valid = np.arange(together.max()) < together[:, None]  # (B, R)
    index = np.full(valid.shape, length - 1, np.int64)
    index[valid] = np.concatenate([e.row_positions for e in encoded]) + layout.begin[owner]
    widths = np.concatenate([np.diff(e.column_starts) for e in encoded])  # columns of each supervised row
    columns = np.concatenate([e.columns for e in encoded]) + np.repeat(layout.begin[owner], widths)
    return {
        "row_index": torch.from_numpy(index),
        "allowed_slots": torch.from_numpy(np.repeat(np.flatnonzero(valid), widths)),
        "allowed_columns": torch.from_numpy(columns),
    }
