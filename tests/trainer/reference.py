"""The mathematics of the trainer, written to be read: full attention maps, plain loops, no regard for speed.

`REFERENCE` is an attention implementation that returns whole maps, and lets guided rows see only their columns. Nothing
here uses the code under test.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from core.domain.training import Aggregate, Exclude, Form, ObjectiveConfig

REFERENCE = "slow_maps"

T = TypeVar("T")
Rows = list[dict[int, list[int]]]  # for each example of a batch: row -> columns it may see, both as padded positions


def register() -> None:
    AttentionInterface.register(REFERENCE, _attention)
    AttentionMaskInterface.register(REFERENCE, eager_mask)


def attention_loss(maps: list[Tensor], rows: Rows, objective: ObjectiveConfig) -> Tensor:
    """Sum over all rows of the loss of each; `maps` holds one (B, H, T, T) per layer."""
    total = maps[0].new_zeros(())
    for example, columns_of in enumerate(rows):
        for row, columns in columns_of.items():
            seen = [
                torch.stack([_without_excluded(head[example, row], row, objective.exclude) for head in layer.unbind(1)])
                for layer in supervised(maps, objective)
            ]  # each (H, T)
            total = total + (_each if objective.aggregate is Aggregate.EACH else _mean)(seen, columns, objective)
    return total


def supervised(layers: list[T], objective: ObjectiveConfig) -> list[T]:
    """Those of all layers that share more than a point with the range, or hold it where it is one."""
    chosen, low, high = [], objective.layers_from, objective.layers_to
    for number, layer in enumerate(layers):
        begin, end = number / len(layers), (number + 1) / len(layers)
        holds = begin <= low < end or (low == 1 and end == 1)
        if (begin < high and low < end) if low < high else holds:
            chosen.append(layer)
    return chosen


def _without_excluded(head: Tensor, row: int, exclude: Exclude) -> Tensor:
    """One row (T,) of a map with the excluded column at 0, brought back to a sum of 1."""
    visible = [k for k in range(len(head)) if head[k] > 0]
    out = {Exclude.NONE: [], Exclude.SINK: visible[:1], Exclude.SELF: [row]}[exclude]
    left = torch.stack([head[k] if k not in out else head[k] * 0 for k in range(len(head))])
    return left / left.sum() if left.sum() > 0 else left


def _each(seen: list[Tensor], columns: list[int], objective: ObjectiveConfig) -> Tensor:
    """Mean over layers and heads of the form of each one's mass."""
    losses = []
    for layer in seen:
        for head in layer:
            visible = [k for k in range(len(head)) if head[k] > 0]
            inside = [k for k in columns if k in visible]
            if inside:
                losses.append(_form(sum(head[k] for k in inside), len(inside), len(visible), objective))
            else:
                losses.append(head.new_zeros(()))
    return sum(losses) / len(losses)


def _mean(seen: list[Tensor], columns: list[int], objective: ObjectiveConfig) -> Tensor:
    """The form of the mass of the mean map over layers and heads."""
    mean = torch.stack(seen).mean((0, 1))  # (T,)
    visible = [k for k in range(len(mean)) if mean[k] > 0]
    inside = [k for k in columns if k in visible]
    if not inside:
        return mean.new_zeros(())
    return _form(sum(mean[k] for k in inside), len(inside), len(visible), objective)


def _form(mass: Tensor, n1: int, visible: int, objective: ObjectiveConfig) -> Tensor:
    if objective.form is Form.LOG_MASS:
        return -torch.log(mass)
    n0 = visible - n1
    if n0 == 0:
        return mass * 0
    a1, a0 = mass / n1, (1 - mass) / n0
    if a1 / a0 >= objective.alpha:
        return mass * 0
    return {
        Form.HINGE: lambda: objective.alpha - a1 / a0,
        Form.DIV: lambda: -torch.log(1 + a1) / torch.log(1 + a0),
        Form.DIV2: lambda: -torch.log(1 + a1 / (1 + a0)),
        Form.NLL: lambda: -a1 / (a1 + a0),
    }[objective.form]()


def _attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, guide=None, guided_layers=None, **kwargs
):
    """Plain attention, (output (B, T, H, D), map (B, H, T, T)). `guide` holds the rows that see only their columns.

    `guided_layers` are the indices of the layers where they do; None for all.
    """
    if guided_layers is not None and module.layer_idx not in guided_layers:
        guide = None
    _, heads, length, width = query.shape
    copies = heads // key.shape[1]
    key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    scores = query @ key.transpose(2, 3) * (scaling or 1 / math.sqrt(width)) + attention_mask
    maps = scores.softmax(-1)
    used = maps.clone()
    for example, columns_of in enumerate(guide or []):
        for row, columns in columns_of.items():
            visible = [k for k in columns if attention_mask[example, 0, row, k] == 0]
            if visible:
                kept = scores[example, :, row, visible].softmax(-1)
                used[example, :, row] = kept.new_zeros(heads, length).index_copy(1, torch.tensor(visible), kept)
    return (used @ value).transpose(1, 2).contiguous(), maps
