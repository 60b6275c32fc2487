"""The published way: eager attention that keeps every layers x heads x T x T map, and a loss on the maps' mean.

Two contestants differ in how they read the rows: as tensor operations, or one row after the other in Python as the
published code does. Everything else is as good as ours: batches, sliced logits, optimiser.

Shapes: B batch, H heads, T tokens, R supervised rows an example.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer

from core.domain.training import ObjectiveConfig, TrainingConfig
from trainer.arguments import trainer_arguments
from trainer.batching import collate
from trainer.encoding import Encoded

Batch: TypeAlias = dict[str, Any]
MapLoss: TypeAlias = Callable[[Tensor, Batch, float], Tensor]


def vectorised_hinge(attention: Tensor, batch: Batch, alpha: float) -> Tensor:
    """Sum over rows of max(0, alpha - a1 / a0), from the mean map (B, T, T)."""
    index = batch["row_index"]
    example = torch.arange(len(index), device=index.device)[:, None]
    rows = attention[example, index]  # (B, R, T)
    visible = torch.arange(rows.shape[-1], device=index.device) <= index[..., None]
    inside = _allowed(batch, rows)
    n1 = inside.sum(-1).clamp(min=1)  # (B, R)
    n0 = (visible.sum(-1) - n1).clamp(min=1)
    mass = (rows * inside).sum(-1)
    others = (rows * (visible & ~inside)).sum(-1)
    ratio = (mass / n1) / (others / n0).clamp(min=1e-9)
    losses: Tensor = (alpha - ratio).clamp(min=0) * inside.any(-1)  # not of padding rows
    return losses.sum()


def looped_hinge(attention: Tensor, batch: Batch, alpha: float) -> Tensor:
    """The same, a row at a time."""
    total = attention.new_zeros(())
    allowed = _allowed(batch, batch["row_index"][..., None].expand(-1, -1, attention.shape[2]))
    for example, rows in enumerate(batch["row_index"].tolist()):
        for place, row in enumerate(rows):
            inside = allowed[example, place, : row + 1]
            if not inside.any():
                continue
            seen = attention[example, row, : row + 1]
            ratio = seen[inside].mean() / seen[~inside].mean().clamp(min=1e-9)
            total = total + (alpha - ratio).clamp(min=0)
    return total


def _allowed(batch: Batch, like: Tensor) -> Tensor:
    """(B, R, T) bool, as `like`: the columns that labels allow each row; none to padding rows."""
    allowed = torch.zeros_like(like, dtype=torch.bool)
    allowed.flatten(0, 1)[batch["allowed_slots"], batch["allowed_columns"]] = True
    return allowed


class FullMaps(Trainer):
    """A training loop whose attention loss is `loss` of the mean map over layers and heads."""

    def __init__(
        self,
        model: PeftModel,
        encoded: Sequence[Encoded],
        *,
        config: TrainingConfig,
        objective: ObjectiveConfig,
        loss: MapLoss,
        pad: int,
        folder: Path,
    ) -> None:
        super().__init__(
            model=model,
            args=trainer_arguments(config, folder, bf16=model.dtype is torch.bfloat16),
            data_collator=partial(collate, pad_id=pad),
            train_dataset=encoded,
        )
        self.remove_callback(PrinterCallback)
        self._objective = objective
        self._map_loss = loss

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,  # noqa: FBT001 (Trainer's signature)
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:
        """Mean token loss + gamma x mean of the rows' losses."""
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=inputs["scored"],
            output_attentions=True,
            use_cache=False,
        )
        token_loss = cross_entropy(outputs.logits.float(), inputs["target_ids"])
        layers = [layer.float().mean(1) for layer in outputs.attentions]  # each (B, T, T)
        attention = torch.stack(layers).mean(0)
        rows = self._map_loss(attention, inputs, self._objective.alpha) / max(inputs["rows"], 1)
        loss = token_loss + self._objective.gamma * rows
        return (loss, outputs) if return_outputs else loss
