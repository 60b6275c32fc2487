"""Shards and wholes, in a process group of one. Several processes train in tests/trainer/test_processes.py."""

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from core.domain.training import Sharding, TrainingConfig, Tuning
from core.errors import InvalidInput
from tests.trainer.families import CONFIGS, model_of
from trainer import state
from trainer.sharding import is_sharded, shard, spread_as, whole


@pytest.fixture
def _group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("family", CONFIGS)
def test_every_weight_is_spread_and_each_block_is_a_unit_of_its_own(family):
    model, plain = model_of(family, "sdpa"), model_of(family, "sdpa")
    assert not is_sharded(model)
    shard(model)
    shard(model)
    assert is_sharded(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert sum(isinstance(module, FSDPModule) for module in model.modules()) == 1 + model.config.num_hidden_layers
    ids = torch.arange(2, 12)[None]
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)


@pytest.mark.usefixtures("_group")
def test_what_a_run_remembers_is_whole_and_comes_back_spread(tmp_path):
    model = model_of("llama_gqa", "sdpa")
    shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)
    model(input_ids=torch.arange(2, 12)[None]).logits.square().mean().backward()
    optimizer.step()
    weights = {name: weight.clone() for name, weight in state.trained_weights(model).items()}
    moments = {name: moment.clone() for name, moment in state.moments_of(optimizer).items()}
    assert not any(isinstance(tensor, DTensor) for tensor in (*weights.values(), *moments.values()))
    state.save_weights(weights, tmp_path)
    state.save_optimizer(moments, optimizer, scheduler, tmp_path)
    optimizer.step()
    state.load_weights(model, tmp_path)
    state.load_optimizer(optimizer, scheduler, tmp_path)
    for name, weight in state.trained_weights(model).items():
        assert torch.equal(weight, weights[name])
    for name, moment in state.moments_of(optimizer).items():
        assert torch.equal(moment, moments[name])
    assert isinstance(optimizer.state[next(model.parameters())]["exp_avg"], DTensor)
    optimizer.step()  # with what was loaded


def test_a_tensor_that_is_not_spread_is_left_alone():
    tensor = torch.ones(3)
    assert whole(tensor) is tensor
    assert spread_as(tensor, torch.zeros(3)) is tensor


def test_four_bit_weights_cannot_be_sharded():
    with pytest.raises(InvalidInput, match="sharding"):
        TrainingConfig(tuning=Tuning.QLORA, sharding=Sharding.FSDP)
