"""Our configuration in the terms of transformers.Trainer."""

import os
from pathlib import Path

import torch
from transformers import TrainingArguments

from core.domain.training import TrainingConfig

_RATE_FLOOR = 0.05  # of the peak rate, so that the last steps still learn something


def trainer_arguments(config: TrainingConfig, folder: Path, *, bf16: bool) -> TrainingArguments:
    """Trainer's settings for a run. What Trainer would decide by a default of its own is said here."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # as torchrun says
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        # Several processes without a GPU are only noticed with a backend named.
        ddp_backend="gloo" if several and not torch.cuda.is_available() else None,
        activation_checkpointing=config.activation_checkpointing,
        # The reentrant kind keeps the attention loss's value and silently drops its gradient.
        activation_checkpointing_kwargs={"use_reentrant": False} if config.activation_checkpointing else None,
        logging_nan_inf_filter=False,  # it would hide a diverged run behind the average so far
        remove_unused_columns=False,  # our columns are not parameters of the model
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="no",  # trainer.pace decides when to log and save
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def relative_rate(step: int, *, steps: int, warmup_ratio: float) -> float:
    """The learning rate of a step (from 0) as a share of its peak: a linear rise, then a line down to a floor."""
    warmup = warmup_ratio * steps
    rising = min(1.0, (step + 1) / (warmup + 1))
    return rising * max(_RATE_FLOOR, 1 - step / steps)
