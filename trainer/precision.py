"""A model in fp32 for a while, whatever its weights are held in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.memory import is_out_of_memory


@contextmanager
def in_fp32(model: PreTrainedModel) -> Iterator[None]:
    """Widen a model's weights, in place, and give them back to the bit.

    It stays as it is where memory does not hold it in fp32, or where its weights are quantised.
    """
    held = [] if getattr(model, "is_quantized", False) else _narrow_tensors(model)
    try:
        try:
            for tensor, _ in held:
                tensor.data = tensor.data.float()
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            _narrow_again(held)
        yield
    finally:
        _narrow_again(held)


def _narrow_tensors(model: PreTrainedModel) -> list[tuple[Tensor, torch.dtype]]:
    tensors = [*model.parameters(), *model.buffers()]
    return [(tensor, tensor.dtype) for tensor in tensors if tensor.dtype in (torch.bfloat16, torch.float16)]


def _narrow_again(held: Sequence[tuple[Tensor, torch.dtype]]) -> None:
    for tensor, dtype in held:
        tensor.data = tensor.data.to(dtype)
