"""Attention as the model's own eager code computes it: slow, and independent of our attention code on purpose."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.domain.annotation import Example
from core.domain.training import Rows
from core.errors import ModelNotSupported, NoUsableRelations
from trainer.answers import ANY_LENGTH, Model
from trainer.encoding import encode_all


def attention_mass(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    chat_template: bool = False,
) -> float:
    """Mean, over effect rows, layers and heads, of the attention that falls on the row's annotated causes; in [0, 1].

    Raises
    ------
    NoUsableRelations
        When no example has a relation with a token of its own.
    """
    encoded = encode_all(tokenizer, examples, max_length=ANY_LENGTH, rows=Rows.EFFECTS, chat_template=chat_template)
    masses: list[Tensor] = []
    with stock_attention(model):
        for example in encoded:
            if not example.row_positions.size:
                continue
            rows = torch.from_numpy(example.row_positions).long()
            attention = attention_of_rows(model, torch.from_numpy(example.ids).long(), rows)  # (L, H, R, T)
            allowed = torch.zeros(attention.shape[2:], dtype=torch.bool)  # (R, T)
            of_row = torch.repeat_interleave(torch.from_numpy(example.column_starts).diff())
            allowed[of_row, torch.from_numpy(example.columns).long()] = True
            masses.append((attention * allowed).sum(-1).mean((0, 1)))  # (R,)
    if not masses:
        raise NoUsableRelations("no example has a relation to measure attention on")
    return float(torch.cat(masses).mean())


@contextmanager
def stock_attention(model: Model) -> Iterator[None]:
    """The model's own eager attention, in evaluation mode without gradients, for the time of the block."""
    inner = cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)
    before, training = inner.config._attn_implementation, model.training  # noqa: SLF001 - there is no getter
    inner.set_attn_implementation("eager")
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
        inner.set_attn_implementation(before)


def attention_of_rows(model: Model, ids: Tensor, rows: Tensor) -> Tensor:
    """Post-softmax attention of some rows of one text, in fp32 on the CPU. Call it within `stock_attention`.

    Shapes: ids (T,), rows (R,), result (L, H, R, T).
    """
    outputs = model(input_ids=ids[None].to(model.device), output_attentions=True, use_cache=False)
    maps = outputs.attentions
    if not maps or any(layer is None for layer in maps):
        raise ModelNotSupported("this model does not return its attention maps")
    return torch.stack([layer[0, :, rows.to(layer.device)].float().cpu() for layer in maps])
