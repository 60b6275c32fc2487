"""The training loop: transformers.Trainer with our loss, our order of data, our checkpoints and our events.

Both methods run through it alike: sft only has no objective, and so no supervised rows. Shapes as in trainer.batching.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer

from core.domain.training import Sharding, TrainingConfig, Tuning
from core.errors import NotFinite
from trainer import state
from trainer.answers import never
from trainer.arguments import relative_rate, trainer_arguments
from trainer.batching import Examples, LengthGrouped, collate
from trainer.best import Best
from trainer.checkpoints import save_checkpoint
from trainer.checkpoints import step_of as step_of_checkpoint
from trainer.encoding import Encoded
from trainer.events import EventLog
from trainer.masses import mass_sums
from trainer.meter import Meter
from trainer.model import dtype_of
from trainer.pace import Pace
from trainer.sharding import shard, whole
from trainer.splits import Measured
from trainer.step import MicroBatchLoss, Step, step_of

_TRAINER_STATE = "trainer_state.json"  # the name that Trainer looks for
_OWED = "evaluation_owed"  # a mark in a checkpoint


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
        Called every `evaluate_every` steps with the step and a `should_stop`, in the leading process: split -> metric
        -> value, or None where that said yes. Then a checkpoint is saved and training ends; see catch_up.
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
        measure: Callable[[int, Callable[[], bool]], Measured | None] = lambda _step, _should_stop: {},
        best: Best | None = None,
        fingerprint: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=trainer_arguments(config, folder, bf16=_in_bf16(model, config)),
            data_collator=partial(
                collate, pad_id=tokenizer.pad_token_id, pack_to=config.max_length if config.packing else None
            ),
            train_dataset=Examples(encoded),
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(Pace(config, self._is_to_stop))
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole accumulated batch
        self._trained: torch.nn.Module = model
        self._encoded = encoded
        self._config = config
        self._folder = folder
        self._events = events
        self._should_stop = should_stop
        self._measure = measure
        self._best = best or Best(config)
        self._fingerprint = fingerprint
        self._owes_evaluation = False  # of the step that was made last
        self._meter = Meter(
            attention=config.attention is not None,
            gather=lambda sums: self.accelerator.reduce(sums.to(self.args.device)),
            processes=self.accelerator.num_processes,
        )
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        # Of a model that is sharded by the time it trains Trainer must not keep a copy in every process.
        self._shards = config.sharding is Sharding.FSDP and self.accelerator.num_processes > 1
        if self._shards:
            shard(model)
            self.is_distributed_loading_by_transformers = True
        self._losses = MicroBatchLoss(base, config, processes=self.accelerator.num_processes)
        self._step = Step()

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The micro-batches of one optimiser step, and how many target tokens they hold together.

        Supervised rows are counted over the whole step too: each micro-batch's losses are divided by these totals, so
        that accumulation equals one big batch. What the objective asks of the step is decided here as well.
        """
        batches = list(islice(epoch_iterator, num_batches))
        targets, rows, tokens, positions = (
            sum(batch[name] for batch in batches) for name in ("targets", "rows", "tokens", "positions")
        )
        totals = self.accelerator.reduce(torch.tensor([targets, rows], device=device))  # over processes too
        self._step = step_of(self.state, self._config, batches, targets=int(totals[0]), rows=int(totals[1]))
        self._meter.add(rows=rows, tokens=tokens, positions=positions)
        self._meter.add(gamma=self._step.gamma, guided=float(self._step.guided))
        return batches, totals[0]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001 (Trainer's signature)
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:
        """This micro-batch's share of the step's loss: token loss + gamma x attention loss."""
        losses = self._losses(model, inputs, self._step)
        if not torch.isfinite(losses.loss):
            raise self._not_finite("the loss", inputs["example_ids"])
        self._meter.add(loss=losses.loss, token_loss=losses.token_loss)
        if losses.attention_loss is not None:
            self._meter.add(attention_loss=losses.attention_loss, **mass_sums(losses.layers)._asdict())
        return (losses.loss, losses.outputs) if return_outputs else losses.loss

    def catch_up(self, checkpoint: Path) -> None:
        """Make the evaluation within which a checkpoint was saved, if it was, before training goes on from there."""
        if not (checkpoint / _OWED).exists():
            return
        state.load_weights(self._trained, checkpoint)
        self.state.global_step = step_of_checkpoint(checkpoint)
        self._owes_evaluation = True
        with self.accelerator.autocast():  # as training will be in
            self.evaluate()

    def release(self) -> None:
        """Give up what only training needs. Without its autocast the model computes as its weights are."""
        self.accelerator.unwrap_model(self._trained, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        self.optimizer = self.lr_scheduler = None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # noqa: ARG002 (Trainer's signature)
        """Measure the model as it is, and keep its weights if they are the best so far. Draws nothing at random."""
        self.control.should_evaluate = False  # Trainer would ask again at the end of the epoch
        begun, leads = time.monotonic(), self.is_world_process_zero()
        takes_part = leads or self._shards  # a forward pass through shards takes all processes
        # Which they cannot leave one by one. And within one that was owed there is nothing new to save.
        should_stop = never if self._shards or self._owes_evaluation else self._should_stop
        metrics = self._measure(self.state.global_step, should_stop) if takes_part else {}
        self._owes_evaluation = self._is_any(metrics is None)
        if metrics is None or self._owes_evaluation:
            self.control.should_save = self.control.should_training_stop = True
            return {}
        if self._best.is_sought:
            value = torch.tensor(self._best.value_in(metrics) if leads else 0.0, dtype=torch.float64)
            value = self.accelerator.reduce(value.to(self.args.device))  # the leader's, for all
            self._best.offer(value.item(), self.state.global_step, self._trained if takes_part else None)
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
        return self._is_any(self._should_stop())

    def _is_any(self, true: bool) -> bool:  # noqa: FBT001 (its one argument is what it asks about)
        """Whether it is so in any process."""
        return bool(self.accelerator.reduce(torch.tensor(float(true), device=self.args.device)) > 0)

    def _epoch(self) -> int:
        return self.state.global_step * self._config.epochs // max(self.state.max_steps, 1)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        norm = whole(norm) if isinstance(norm, Tensor) else norm
        if not torch.isfinite(torch.as_tensor(norm)):
            raise self._not_finite("the gradient", self._step.example_ids)
        self._meter.add(grad_norm=norm)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ARG002
        # Of shards the wholes take all processes.
        weights = state.trained_weights(self._trained) if self.is_world_process_zero() or self._shards else {}
        moments = state.moments_of(self._optimizer) if self.is_world_process_zero() or self._shards else {}
        generators = state.all_generators()
        if self.is_world_process_zero():
            fill = partial(self._fill, weights=weights, moments=moments, generators=generators)
            save_checkpoint(self._folder, self.state.global_step, fill, self._fingerprint)
            self._events.checkpoint(self.state.global_step)
        self.accelerator.wait_for_everyone()

    def _fill(
        self,
        folder: Path,
        *,
        weights: dict[str, Tensor],
        moments: dict[str, Tensor],
        generators: list[state.Generators],
    ) -> None:
        state.save_weights(weights, folder)
        state.save_optimizer(moments, self._optimizer, self.lr_scheduler, folder)
        state.save_generators(generators, folder)
        self._best.save(folder)
        if self._owes_evaluation:
            (folder / _OWED).touch()
        self.state.save_to_json(str(folder / _TRAINER_STATE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state.load_weights(model or self._trained, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint:
            state.load_optimizer(self._optimizer, self.lr_scheduler, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint:
            state.load_generators(Path(checkpoint), self.args.process_index)

    def _not_finite(self, what: str, example_ids: Sequence[str]) -> NotFinite:
        step = self.state.global_step + 1
        return NotFinite(
            f"{what} of step {step} is not a finite number; a lower learning rate may help, or look at the examples",
            step=step,
            examples=list(example_ids),
        )


def _in_bf16(model: Any, config: TrainingConfig) -> bool:
    """Whether to compute in bf16, of weights that are bf16 or, where all are trained, fp32."""
    held: torch.dtype = dtype_of(config.precision) if config.tuning is Tuning.FULL else model.dtype
    return held is torch.bfloat16
