"""What one optimiser step is made of: what is decided once for it, and each micro-batch's share of its loss.

Shapes as in trainer.batching, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import TrainerState

from core.domain.training import TrainingConfig
from trainer.attention import RowStatistics, Supervision
from trainer.cells import Cells
from trainer.loss import attention_loss
from trainer.objective import gamma, is_guided, supervised_layers

_MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True, slots=True)
class Step:
    """What is decided once an optimiser step, for all its micro-batches and processes."""

    targets: int = 1  # tokens with loss, at least 1
    rows: int = 1  # supervised rows, at least 1
    gamma: float = 0.0
    guided: bool = False
    example_ids: tuple[str, ...] = ()


def step_of(
    now: TrainerState, config: TrainingConfig, batches: Sequence[dict[str, Any]], *, targets: int, rows: int
) -> Step:
    """The step that comes next; `targets` and `rows` are counted over all its micro-batches and processes."""
    example_ids = tuple(name for batch in batches for name in batch["example_ids"])
    step = Step(max(targets, 1), max(rows, 1), example_ids=example_ids)
    if (objective := config.attention) is None:
        return step
    return Step(
        step.targets,
        step.rows,
        gamma(now.global_step / now.max_steps, objective),
        is_guided(now.global_step, now.max_steps, objective, config.seed),
        example_ids,
    )


class Losses(NamedTuple):
    """A micro-batch's share of its step. The shares of all micro-batches add up to the step's value."""

    loss: Tensor  # () token loss + gamma x attention loss
    token_loss: Tensor  # ()
    attention_loss: Tensor | None  # () before gamma; None without supervised rows
    layers: list[RowStatistics]  # of the supervised layers, empty without supervised rows
    outputs: Any  # the model's


class MicroBatchLoss:
    """The loss of micro-batches, for one model and configuration.

    Parameters
    ----------
    base
        The model without an adapter around it; its shape is read, nothing else.
    processes
        That train together.
    """

    def __init__(self, base: Any, config: TrainingConfig, *, processes: int = 1) -> None:
        depth = base.config.get_text_config().num_hidden_layers
        self._objective = config.attention
        self._layers = supervised_layers(self._objective, depth) if self._objective else range(depth)
        self._share = processes  # gradients are averaged over processes, the step's totals are sums
        self._slices_logits = "logits_to_keep" in inspect.signature(base.forward).parameters

    def __call__(self, model: Any, inputs: dict[str, Any], step: Step) -> Losses:
        """Run the model on a collated micro-batch. Each part of the loss is divided by the step's total of it."""
        asked: dict[str, Any] = {name: inputs[name] for name in _MODEL_INPUTS if name in inputs}
        if supervision := self._supervision(inputs, step):
            asked |= {"supervision": supervision, "output_attentions": True}
        if self._slices_logits:
            asked["logits_to_keep"] = inputs["scored"]
        outputs = model(**asked, use_cache=False)
        logits = outputs.logits if self._slices_logits else outputs.logits[inputs["scored"]]  # (N, V)
        token_loss = self._share * cross_entropy(logits.float(), inputs["target_ids"], reduction="sum") / step.targets
        if supervision is None or self._objective is None:
            return Losses(token_loss, token_loss, None, [], outputs)
        layers = [statistics for statistics in outputs.attentions if statistics is not None]
        with torch.set_grad_enabled(step.gamma > 0):  # at weight 0 its backward would be for nothing
            attention = self._share * attention_loss(layers, self._objective).sum() / step.rows
        loss = token_loss + step.gamma * attention if step.gamma > 0 else token_loss
        return Losses(loss, token_loss, attention, layers, outputs)

    def _supervision(self, inputs: dict[str, Any], step: Step) -> Supervision | None:
        if self._objective is None or inputs["row_index"].shape[1] == 0:
            return None
        return Supervision(
            inputs["row_index"],
            Cells(inputs["allowed_slots"], inputs["allowed_columns"]),
            guided=step.guided,
            layers=self._layers,
            exclude=self._objective.exclude,
        )
