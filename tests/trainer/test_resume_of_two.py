"""Two processes that drop out at random, each by its own generator, go on exactly as one does."""

import pytest
import torch

from core.domain.run_folder import EXIT_FINISHED, EXIT_INTERRUPTED
from core.domain.training import TrainingConfig
from tests.trainer.runs import events_of, in_two_processes, run_folder, uneven
from trainer.state import all_generators, load_generators, save_generators
from trainer.tensors import save_tensors

# The processes' rows are of unlike lengths, so that one draws more than the other.
CONFIG = TrainingConfig(epochs=2, batch_size=4, lora_rank=4, lora_dropout=0.2, checkpoint_every=1, log_every=1)


@pytest.fixture
def _own_generator():
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def drawn_from(state):
    torch.set_rng_state(state)
    return torch.rand(4)


def states():
    return [torch.Generator().manual_seed(seed).get_state() for seed in (1, 2)]


@pytest.mark.usefixtures("_own_generator")
@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_loads_its_own_generators(tmp_path, rank):
    save_generators([{"cpu": state} for state in states()], tmp_path)
    load_generators(tmp_path, rank)
    drawn = torch.rand(4)
    assert torch.equal(drawn, drawn_from(states()[rank]))


@pytest.mark.usefixtures("_own_generator")
@pytest.mark.parametrize("rank", [0, 1])
def test_generators_of_the_version_that_saved_one_set_still_load(tmp_path, rank):
    save_tensors({"cpu": states()[0]}, tmp_path / "generators.safetensors")
    load_generators(tmp_path, rank)
    drawn = torch.rand(4)
    assert torch.equal(drawn, drawn_from(states()[0]))


def test_a_process_alone_has_one_set():
    [own] = all_generators()
    assert torch.equal(own["cpu"], torch.get_rng_state())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_with_dropout_go_on_exactly(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, stopped = (run_folder(tmp_path / name, CONFIG, train=uneven(26)) for name in ("whole", "stopped"))
    code, log = in_two_processes(whole)
    assert code == EXIT_FINISHED, log
    code, log = in_two_processes(stopped, stop_at=2)
    assert code == EXIT_INTERRUPTED, log
    code, log = in_two_processes(stopped)
    assert code == EXIT_FINISHED, log
    [ours], [theirs] = (events_of(folder, "finished") for folder in (stopped, whole))
    assert (ours["steps"], ours["adapter_sha256"]) == (theirs["steps"], theirs["adapter_sha256"])
