"""What a run's steps cost, measured: a few real ones on its own examples, thrown away."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.domain.training import TrainingConfig
from trainer.encoding import Encoded
from trainer.events import EventLog
from trainer.memory import peak_memory
from trainer.tuner import Tuner


@dataclass(frozen=True, slots=True)
class Cost:
    """What training takes on this machine. An estimate: other work on the machine changes it."""

    memory_bytes: int  # peak of this process, see trainer.memory
    seconds_per_step: float  # of an optimiser step, all its micro-batches together


def rehearse(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[Encoded],
    config: TrainingConfig,
    processes: int = 1,
) -> Cost:
    """Measure optimiser steps of the costliest kind: attention loss at work, and guided if the run ever is.

    Memory: the peak after two micro-batches, each a step, of the longest examples; at the second the optimiser has its
    state. Time: the quicker of two steps on examples about as long as the mean one, after one to warm up. The learning
    rate is 0, so the weights stay.

    Raises
    ------
    torch.OutOfMemoryError
        The accelerator does not hold such a step.
    """
    by_length = sorted(encoded, key=lambda e: len(e.ids))
    together = config.batch_size * processes
    _seconds(model, tokenizer, by_length[-together:], replace(config, gradient_accumulation=1), steps=2)
    memory = peak_memory()
    typical = _around_mean(by_length, together * config.gradient_accumulation)
    return Cost(memory, min(_seconds(model, tokenizer, typical, config, steps=3)))


def _around_mean(by_length: Sequence[Encoded], size: int) -> Sequence[Encoded]:
    """`size` neighbours in the order of length, the middle one about as long as the mean."""
    mean = sum(len(e.ids) for e in by_length) / len(by_length)
    middle = sum(len(e.ids) < mean for e in by_length)
    begin = max(min(middle - size // 2, len(by_length) - size), 0)
    return by_length[begin : begin + size]


def _seconds(
    model: Any, tokenizer: PreTrainedTokenizerBase, encoded: Sequence[Encoded], config: TrainingConfig, *, steps: int
) -> list[float]:
    """How long each of `steps` steps took but the first; `encoded` is one step's examples."""
    objective = config.attention
    if objective:
        guided = float(objective.guide_end > 0)
        objective = replace(objective, gamma_from=0.0, gamma_full=0.0, guide_until=guided, guide_end=guided)
    rehearsed = replace(
        config, objective=objective, epochs=steps, learning_rate=0.0, evaluate_every=0, best_metric="", patience=0
    )
    clock = _Clock()
    with TemporaryDirectory() as folder:  # for what a run says; nothing is saved
        tuner = Tuner(
            model,
            tokenizer,
            encoded,
            config=rehearsed,
            folder=Path(folder),
            events=EventLog(Path(folder) / "events.jsonl"),
            should_stop=lambda: False,
        )
        tuner.add_callback(clock)
        tuner.train()
    return [end - begin for begin, end in pairwise(clock.ends)]


class _Clock(TrainerCallback):
    """Notes when each step ends, and keeps it from being saved."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        control.should_save = False
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a step has ended when the device has done it
        self.ends.append(time.monotonic())
