"""What a run must remember to go on as if it had never stopped. Tensors in safetensors, the rest in JSON: no pickle.

The order of the data and the draws of guided masking are functions of seed and step, so they are not state.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, distributed

from trainer.sharding import spread_as, whole
from trainer.tensors import save_tensors

WEIGHTS = "weights.safetensors"  # trained parameters
OPTIMIZER = "optimizer.safetensors"
SCALARS = "state.json"
GENERATORS = "generators.safetensors"

# The states of a process's generators by name, the only ones that a training step draws from (dropout).
Generators = dict[str, Tensor]


def save_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """What trained_weights returned."""
    save_tensors(weights, folder / WEIGHTS)


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Inverse of save_weights, in place. KeyError when the model trains a parameter that was not saved."""
    put_weights(model, load_file(folder / WEIGHTS))


def trained_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Every trained parameter by its name, whole: of a sharded model every process has to ask. Not copied otherwise."""
    return {name: whole(p.detach()).contiguous() for name, p in model.named_parameters() if p.requires_grad}


def put_weights(model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Inverse of trained_weights, in place. KeyError when the model trains a parameter that is missing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(spread_as(weights[name], parameter))


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state of every parameter, "index.name" to a whole tensor, as trained_weights."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": whole(value) for index, values in state.items() for name, value in values.items()}


def save_optimizer(moments: dict[str, Tensor], optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> None:
    """What moments_of returned, parameter groups, and where the learning rate stands."""
    save_tensors(moments, folder / OPTIMIZER)
    groups = optimizer.state_dict()["param_groups"]
    (folder / SCALARS).write_text(json.dumps({"groups": groups, "scheduler": scheduler.state_dict()}))


def load_optimizer(optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path) -> None:
    """Inverse of save_optimizer, in place."""
    scalars = json.loads((folder / SCALARS).read_text())
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / OPTIMIZER).items():
        index, name = key.split(".")
        like = parameters[int(index)]
        state.setdefault(int(index), {})[name] = spread_as(value, like) if value.shape == like.shape else value
    groups = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in scalars["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(scalars["scheduler"])


def all_generators() -> list[Generators]:
    """Those of every process, by its rank: each has drawn for other examples. Every process has to ask."""
    own = {"cpu": torch.get_rng_state()}
    own |= {f"cuda.{place}": torch.cuda.get_rng_state(device) for place, device in enumerate(_own_devices())}
    if not _are_several():
        return [own]
    every: list[Generators] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(every, own)
    return every


def save_generators(every: list[Generators], folder: Path) -> None:
    """What all_generators returned. Those of the first process have the names that a trainer alone gave them before."""
    named = {_of_rank(rank, name): state for rank, own in enumerate(every) for name, state in own.items()}
    save_tensors(named, folder / GENERATORS)


def load_generators(folder: Path, rank: int) -> None:
    """Set this process's generators as they were. A checkpoint from a machine with other devices sets what is there.

    One of the version that saved the first process's alone sets those, in every process.
    """
    saved = load_file(folder / GENERATORS)
    if _of_rank(rank, "cpu") not in saved:
        rank = 0
    torch.set_rng_state(saved[_of_rank(rank, "cpu")])
    for place, device in enumerate(_own_devices()):
        if (state := saved.get(_of_rank(rank, f"cuda.{place}"))) is not None:
            torch.cuda.set_rng_state(state, device)


def _of_rank(rank: int, name: str) -> str:
    return f"{rank}.{name}" if rank else name


def _own_devices() -> list[int]:
    """The accelerators that this process draws on. Of several processes each has one, and stays off the others'."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.current_device()] if _are_several() else [*range(torch.cuda.device_count())]


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
