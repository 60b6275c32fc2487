"""Weights spread over processes (FSDP, arXiv 2304.11277), by torch's fully_shard: each holds a share of every tensor.

Not through accelerate, which shards on accelerators alone: on a CPU its plugin silently does nothing, and so nothing of
it could be tested here.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: Any) -> None:
    """Spread the model's weights over all processes, in place, a unit for each block and one for the rest.

    A unit's weights are gathered for its forward and backward pass and dropped again. Gradients are averaged over
    processes, as by DDP. Doing it twice is harmless.
    """
    if is_sharded(model):
        return
    for block in _blocks(model):
        fully_shard(block)
    fully_shard(model)
    register_fsdp_forward_method(model, "generate")


def is_sharded(model: Any) -> bool:
    """Whether `shard` was called on it."""
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be spread. Of one that is, every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_as(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in all processes, spread as another one is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def _blocks(model: Any) -> Iterator[torch.nn.Module]:
    depth = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            yield from module
