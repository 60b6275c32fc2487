"""Tiny models of several families, made from their configs with random weights, and examples for them."""

from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from trainer.cells import Cells
from trainer.encoding import Encoded

VOCABULARY = 50
WINDOW = 5  # of the sliding-window families: shorter than the test texts

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
_GROUPED = {**_SHAPE, "num_key_value_heads": 2}

CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SHAPE),
    "llama_gqa": LlamaConfig(**_GROUPED),
    "llama_mqa": LlamaConfig(**{**_SHAPE, "num_key_value_heads": 1}),
    "qwen2": Qwen2Config(**_GROUPED),
    "qwen3": Qwen3Config(**_GROUPED, head_dim=8),
    "mistral": MistralConfig(**_GROUPED, sliding_window=WINDOW),
    "gemma3": Gemma3TextConfig(
        **_GROUPED, head_dim=8, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt_neox": GPTNeoXConfig(**_SHAPE),
    "phi3": Phi3Config(**_GROUPED),
    "olmo2": Olmo2Config(**_GROUPED),
}


def model_of(family: str, attention: str) -> PreTrainedModel:
    """The family's tiny model; the same weights whatever the attention."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation=attention)
    for parameter in model.parameters():  # scores far from 0, so that mistakes show
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
    return model.train()


def allowed_in(batch: dict[str, Any]) -> Cells:
    """What labels allow the rows of a collated batch."""
    return Cells(batch["allowed_slots"], batch["allowed_columns"])


def as_cells(allowed: Tensor) -> Cells:
    """The same from a map (B, R, T)."""
    example, row, column = allowed.nonzero(as_tuple=True)
    return Cells(example * allowed.shape[1] + row, column)


def as_map(cells: Cells, rows: Tensor, length: int) -> Tensor:
    """And back: (B, R, T) of cells of `rows` (B, R)."""
    allowed = torch.zeros(*rows.shape, length, dtype=torch.bool)
    allowed.flatten(0, 1)[cells.slot, cells.column] = True
    return allowed


def encoded(length: int, rows: dict[int, list[int]], *, prompt_length: int | None = None, name: str = "") -> Encoded:
    """An example of `length` pseudo-random tokens with the given rows: position -> columns."""
    columns = [sorted(rows[row]) for row in sorted(rows)]
    return Encoded(
        example_id=name or f"length {length}",
        ids=np.random.default_rng(length).integers(2, VOCABULARY, length).astype(np.int32),
        prompt_length=length - 3 if prompt_length is None else prompt_length,
        row_positions=np.array(sorted(rows), np.int32),
        column_starts=np.cumsum([0, *map(len, columns)]).astype(np.int32),
        columns=np.array([*chain.from_iterable(columns)], np.int32),
    )
