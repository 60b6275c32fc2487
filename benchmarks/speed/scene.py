"""The model, the data and the batch that every contestant is measured on."""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from trainer.encoding import Encoded

BATCH = 2
PAD = 0

_PHRASES, _PHRASE = 3, 5  # causes of a supervised row, and tokens of each
_PROMPT = 0.75  # share of the tokens without token loss


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the model is. The defaults are the reference; tests use a smaller one."""

    layers: int = 8
    width: int = 512
    heads: int = 8
    vocabulary: int = 4096
    lora_rank: int = 16


@dataclass(frozen=True, slots=True)
class Scene:
    """One point of the grid: every example has `length` tokens, of which `rows` are supervised."""

    length: int
    share: float  # of rows in length
    checkpointing: bool
    scale: Scale = Scale()

    @property
    def rows(self) -> int:
        """Supervised rows of an example, at least 1."""
        return max(1, round(self.share * self.length))


def base_model(scale: Scale, *, attention: str, device: torch.device) -> PreTrainedModel:
    """A Llama with random weights, the same for every attention: bf16 on a GPU, fp32 on the CPU."""
    config = LlamaConfig(
        vocab_size=scale.vocabulary,
        hidden_size=scale.width,
        intermediate_size=2 * scale.width + scale.width // 2 + scale.width // 4,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.heads,
        max_position_embeddings=8192,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation=attention
        )
    loaded: PreTrainedModel = model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    return loaded


def examples(scene: Scene, count: int) -> list[Encoded]:
    """Pseudo-random examples, all of one shape: whichever two meet in a batch cost the same."""
    return [_example(scene, seed) for seed in range(count)]


def without_rows(encoded: Encoded) -> Encoded:
    """The same tokens for plain fine-tuning."""
    none = np.empty(0, np.int32)
    return Encoded(encoded.example_id, encoded.ids, encoded.prompt_length, none, np.zeros(1, np.int32), none)


def _example(scene: Scene, seed: int) -> Encoded:
    tokens = np.random.default_rng(seed).integers(2, scene.scale.vocabulary, scene.length).astype(np.int32)
    generator = np.random.default_rng((seed, scene.rows))
    first = _PHRASE  # so that every row has a whole phrase before it
    positions = first + np.sort(generator.choice(scene.length - 1 - first, scene.rows, replace=False))
    columns = [_columns(int(row), generator) for row in positions]
    return Encoded(
        example_id=f"example {seed}",
        ids=tokens,
        prompt_length=int(_PROMPT * scene.length),
        row_positions=positions.astype(np.int32),
        column_starts=np.cumsum([0, *map(len, columns)]).astype(np.int32),
        columns=np.array([*chain.from_iterable(columns)], np.int32),
    )


def _columns(row: int, generator: np.random.Generator) -> list[int]:
    starts = generator.integers(0, row - _PHRASE + 1, _PHRASES)
    return sorted({int(start) + offset for start in starts for offset in range(_PHRASE)})
