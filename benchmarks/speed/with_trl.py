"""TRL's SFTTrainer on the same model and tokens. Needs the extra `benchmarks`."""

from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from huggingface_hub import constants
from peft import PeftModel
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, PrinterCallback, Trainer
from trl import SFTConfig, SFTTrainer

from core.domain.training import TrainingConfig
from trainer.batching import NO_LOSS
from trainer.encoding import Encoded


def trl_trainer(
    model: PeftModel, encoded: Sequence[Encoded], *, config: TrainingConfig, pad: int, folder: Path
) -> Trainer:
    """TRL as its users run it, apart from logging: its own loss, collator and loop."""
    constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL would tell its makers that it was used
    trainer: Trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            max_grad_norm=config.max_grad_norm,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},  # tokens and labels are there already
            bf16=model.dtype is torch.bfloat16,
            gradient_checkpointing=config.activation_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if config.activation_checkpointing else None,
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=_dataset(encoded),
        processing_class=_tokenizer(pad),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _dataset(encoded: Sequence[Encoded]) -> Dataset:
    columns = {"input_ids": [e.ids.tolist() for e in encoded], "labels": [_labels(e) for e in encoded]}
    # A fingerprint of our own: datasets would pickle parts of pyarrow for one, which not every version of it allows.
    return Dataset(InMemoryTable.from_pydict(columns), fingerprint="training_speed")


def _labels(encoded: Encoded) -> list[int]:
    return [*[NO_LOSS] * encoded.prompt_length, *encoded.ids[encoded.prompt_length :].tolist()]


def _tokenizer(pad: int) -> PreTrainedTokenizerFast:
    """The data is tokenised already, so this one only names the padding."""
    vocabulary = {"<pad>": pad, "<eos>": 1}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>")),  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
    )
