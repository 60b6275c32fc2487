"""The training loop: transformers.Trainer with our loss, our order of data, our checkpoints and our events.

Both methods run through it alike: sft only has no objective, and so no supervised rows. Shapes as in trainer.batching.
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerState

from core.domain.training import TrainingConfig
from core.errors import NotFinite
from trainer import state
from trainer.arguments import relative_rate, trainer_arguments
from trainer.attention import Supervision
from trainer.batching import NO_LOSS, Examples, LengthGrouped, collate
from trainer.best import Best
from trainer.checkpoints import save_checkpoint
from trainer.encoding import Encoded
from trainer.events import EventLog
from trainer.loss import attention_loss
from trainer.masses import mass_sums
from trainer.meter import Meter
from trainer.objective import gamma, is_guided, supervised_layers
from trainer.pace import Pace

_TRAINER_STATE = "trainer_state.json"  # the name that Trainer looks for
_MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


class Tuner(Trainer):
    """The training loop of one run.

    Parameters
    ----------
    model
        With the parameters to train marked, and for cat with our attention enabled.
    encoded
        The training split; its order is decided here.
    folder
        Where checkpoints go.
    fingerprint
        What they are marked with, see trainer.fingerprint.
    should_stop
        Asked after every step. Once it says yes, a checkpoint is saved and training ends.
    measure
        Called every `evaluate_every` steps with the step, in the leading process: split -> metric -> value.
    best
        Is offered what `measure` returned. Once it is settled, a checkpoint is saved and training ends.

    `train` raises NotFinite as soon as a loss or the gradient is NaN or infinite, before the weights change.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        encoded: Sequence[Encoded],
        *,
        config: TrainingConfig,
        folder: Path,
        events: EventLog,
        should_stop: Callable[[], bool],
        measure: Callable[[int], dict[str, dict[str, float]]] = lambda _step: {},
        best: Best | None = None,
        fingerprint: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=trainer_arguments(config, folder, bf16=model.dtype is torch.bfloat16),
            data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
            train_dataset=Examples(encoded),
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(Pace(config, self._is_to_stop))
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole accumulated batch
        self._trained: torch.nn.Module = model
        self._encoded = encoded
        self._config = config
        self._objective = config.attention
        self._folder = folder
        self._events = events
        self._should_stop = should_stop
        self._measure = measure
        self._best = best or Best(config)
        self._fingerprint = fingerprint
        self._meter = Meter(
            attention=self._objective is not None,
            gather=lambda sums: self.accelerator.reduce(sums.to(self.args.device)),
            processes=self.accelerator.num_processes,
        )
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        depth = base.config.get_text_config().num_hidden_layers
        self._layers = supervised_layers(self._objective, depth) if self._objective else range(depth)
        self._slices_logits = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._step = _Step()

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The micro-batches of one optimiser step, and how many target tokens they hold together.

        Supervised rows are counted over the whole step too: each micro-batch's losses are divided by these totals, so
        that accumulation equals one big batch. What the objective asks of the step is decided here as well.
        """
        batches = list(islice(epoch_iterator, num_batches))
        targets, rows, tokens = (sum(batch[name] for batch in batches) for name in ("targets", "rows", "tokens"))
        totals = self.accelerator.reduce(torch.tensor([targets, rows], device=device))  # over processes too
        self._step = _step_of(self.state, self._config, batches, targets=int(totals[0]), rows=int(totals[1]))
        self._meter.add(rows=rows, tokens=tokens, gamma=self._step.gamma, guided=float(self._step.guided))
        return batches, totals[0]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001 (Trainer's signature)
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:
        """This micro-batch's share of the step's loss: token loss + gamma x attention loss."""
        supervision = self._supervision(inputs)
        asked: dict[str, Any] = {name: inputs[name] for name in _MODEL_INPUTS if name in inputs}
        if supervision:
            asked |= {"supervision": supervision, "output_attentions": True}
        length, scored_from = inputs["input_ids"].shape[1], inputs["scored_from"]
        if self._slices_logits:
            asked["logits_to_keep"] = length - scored_from
        outputs = model(**asked, use_cache=False)
        logits = outputs.logits[:, scored_from - length : -1]  # (B, T - scored_from - 1, vocabulary)
        share = self.accelerator.num_processes  # gradients are averaged over processes, the totals are sums
        token_loss = share * _token_loss(logits, inputs["labels"][:, scored_from + 1 :], self._step.targets)
        loss = token_loss
        if supervision and self._objective:
            layers = [statistics for statistics in outputs.attentions if statistics is not None]
            with torch.set_grad_enabled(self._step.gamma > 0):  # at weight 0 its backward would be for nothing
                rows = attention_loss(layers, self._objective)  # (B, R)
                attention = share * rows.sum() / self._step.rows
            if self._step.gamma > 0:
                loss = token_loss + self._step.gamma * attention
            self._meter.add(attention_loss=attention, **mass_sums(layers)._asdict())
        if not torch.isfinite(loss):
            raise self._not_finite("the loss", inputs["example_ids"])
        self._meter.add(loss=loss, token_loss=token_loss)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # noqa: ARG002 (Trainer's signature)
        """Measure the model as it is, and keep its weights if they are the best so far. Draws nothing at random."""
        self.control.should_evaluate = False  # Trainer would ask again at the end of the epoch
        begun, leads = time.monotonic(), self.is_world_process_zero()
        metrics = self._measure(self.state.global_step) if leads else {}
        if self._best.is_sought:
            value = torch.tensor(self._best.value_in(metrics) if leads else 0.0, dtype=torch.float64)
            value = self.accelerator.reduce(value.to(self.args.device))  # the leader's, for all
            self._best.offer(value.item(), self.state.global_step, self._trained if leads else None)
            if self._best.is_settled:
                self.control.should_save = self.control.should_training_stop = True
        self._meter.leave_out(time.monotonic() - begun)
        return {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002
        """Write a `step` event. Trainer's closing summary, which has no learning rate, is left out."""
        if "learning_rate" in logs:
            now = self.state
            self._events.step(
                self._meter.read(
                    now.global_step, now.max_steps, epoch=now.epoch or 0.0, learning_rate=logs["learning_rate"]
                )
            )

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Linear warm-up, then a line down to a floor at the last step."""
        if self.lr_scheduler is None:
            rate = partial(relative_rate, steps=num_training_steps, warmup_ratio=self._config.warmup_ratio)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self._optimizer, rate)
            self._created_lr_scheduler = True
        self._meter.start(self.state.global_step)  # the first step comes next
        return self.lr_scheduler

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002
        """Not counted: the estimate walks all parameters at every step."""
        return 0

    # Trainer's own hooks.

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:  # noqa: ARG002
        processes = self.accelerator.num_processes
        together = self._config.batch_size * processes  # a micro-batch of every process
        return LengthGrouped(
            [len(e.ids) for e in self._encoded],
            together * self._config.gradient_accumulation,
            self._config.seed,
            self._epoch,
            multiple_of=together if processes > 1 else 1,
        )

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        if self.optimizer is None:
            raise RuntimeError("Trainer makes its optimizer before it asks for this")
        return self.optimizer

    def _is_to_stop(self) -> bool:
        """Whether any process was asked to stop: they have to leave after the same step."""
        asked = torch.tensor(float(self._should_stop()), device=self.args.device)
        return bool(self.accelerator.reduce(asked) > 0)

    def _epoch(self) -> int:
        return self.state.global_step * self._config.epochs // max(self.state.max_steps, 1)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        if not torch.isfinite(torch.as_tensor(norm)):
            raise self._not_finite("the gradient", self._step.example_ids)
        self._meter.add(grad_norm=norm)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ARG002
        if self.is_world_process_zero():
            save_checkpoint(self._folder, self.state.global_step, self._fill, self._fingerprint)
            self._events.checkpoint(self.state.global_step)
        self.accelerator.wait_for_everyone()

    def _fill(self, folder: Path) -> None:
        state.save_weights(self._trained, folder)
        state.save_optimizer(self._optimizer, self.lr_scheduler, folder)
        state.save_generators(folder)
        self._best.save(folder)
        self.state.save_to_json(str(folder / _TRAINER_STATE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state.load_weights(model or self._trained, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint:
            state.load_optimizer(self._optimizer, self.lr_scheduler, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint:
            state.load_generators(Path(checkpoint))

    def _supervision(self, inputs: dict[str, Any]) -> Supervision | None:
        if self._objective is None or inputs["row_index"].shape[1] == 0:
            return None
        return Supervision(
            inputs["row_index"],
            inputs["row_valid"],
            inputs["allowed"],
            guided=self._step.guided,
            layers=self._layers,
            exclude=self._objective.exclude,
        )

    def _not_finite(self, what: str, example_ids: Sequence[str]) -> NotFinite:
        step = self.state.global_step + 1
        return NotFinite(
            f"{what} of step {step} is not a finite number; a lower learning rate may help, or look at the examples",
            step=step,
            examples=list(example_ids),
        )


@dataclass(frozen=True, slots=True)
class _Step:
    """What is decided once an optimiser step, for all its micro-batches and processes."""

    targets: int = 1  # tokens with loss, at least 1
    rows: int = 1  # supervised rows, at least 1
    gamma: float = 0.0
    guided: bool = False
    example_ids: tuple[str, ...] = ()


def _step_of(
    now: TrainerState, config: TrainingConfig, batches: Sequence[dict[str, Any]], *, targets: int, rows: int
) -> _Step:
    example_ids = tuple(name for batch in batches for name in batch["example_ids"])
    step = _Step(max(targets, 1), max(rows, 1), example_ids=example_ids)
    if (objective := config.attention) is None:
        return step
    return _Step(
        step.targets,
        step.rows,
        gamma(now.global_step / now.max_steps, objective),
        is_guided(now.global_step, now.max_steps, objective, config.seed),
        example_ids,
    )


def _token_loss(logits: Tensor, labels: Tensor, targets: int) -> Tensor:
    """Sum of the next-token losses over `targets`. Logits (B, S, V) already stand one position before labels (B, S)."""
    total = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NO_LOSS, reduction="sum")
    return total / targets
