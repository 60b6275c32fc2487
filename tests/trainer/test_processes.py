"""Several processes, and steps that do not fit: the same training."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.domain.run_folder import EXIT_FINISHED, EXIT_INTERRUPTED, RunConfig
from core.domain.training import ObjectiveConfig, Sharding, TrainingConfig
from core.errors import OutOfMemory
from tests.trainer.runs import SMALL, TWO, events_of, in_two_processes, run_folder, uneven
from trainer.events import EventLog
from trainer.process import sole_trainer
from trainer.train import train

CONFIG = TrainingConfig(
    epochs=2,
    batch_size=8,
    lora_rank=4,
    log_every=1,
    evaluate_every=4,
    best_metric="ood.accuracy",
    patience=3,
    objective=ObjectiveConfig(gamma_from=0, gamma_full=0.2),
)
EXAMPLES = 26  # the last step of an epoch has 2
METRICS = ("loss", "token_loss", "attention_loss", "mass", "ratio", "grad_norm", "supervised_rows", "gamma", "guided")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = run_folder(tmp_path_factory.mktemp("runs") / "alone", CONFIG, train=uneven(EXAMPLES))
    return train(RunConfig(SMALL, CONFIG), folder, EventLog(folder / "events.jsonl"), reload_check=False), folder


def assert_same_steps(folder, alone):
    ours, theirs = events_of(folder, "step"), events_of(alone[1], "step")
    assert [event["step"] for event in ours] == [event["step"] for event in theirs] == list(range(1, 9))
    for mine, wanted in zip(ours, theirs, strict=True):
        for metric in METRICS:
            assert mine[metric] == pytest.approx(wanted[metric], rel=2e-3, abs=1e-6), (metric, mine["step"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sharding", Sharding)
def test_two_processes_stopped_and_started_again_equal_one(tmp_path, alone, monkeypatch, sharding):
    """Packed, which the one process is not. torchrun exits with 1 when it is stopped, and still the worker is told."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = replace(CONFIG, batch_size=4, packing=True, checkpoint_every=1, sharding=sharding)
    folder = run_folder(tmp_path / "run", config, train=uneven(EXAMPLES))
    code, log = in_two_processes(folder, stop_at=2)
    assert code == EXIT_INTERRUPTED, log
    assert [event["type"] for event in events_of(folder)[-2:]] == ["checkpoint", "stopped"]
    code, log = in_two_processes(folder)
    assert code == EXIT_FINISHED, log
    assert_same_steps(folder, alone)
    [finished] = events_of(folder, "finished")
    assert (finished["metrics"], finished["best_step"]) == (alone[0].metrics, alone[0].best_step)
    ours, theirs = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (folder, alone[1]))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_processes_of_a_torchrun_that_is_killed_go_with_it(tmp_path, monkeypatch):
    """They are in sessions of their own. Left behind they would go on writing where the next trainer begins."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = TrainingConfig(batch_size=4, checkpoint_every=1, epochs=1000)  # far longer than we wait
    folder = run_folder(tmp_path / "run", config)
    torchrun = subprocess.Popen([*TWO, str(folder)], stderr=subprocess.DEVNULL)
    while not events_of(folder, "checkpoint"):
        assert torchrun.poll() is None
        time.sleep(0.1)
    processes = children_of(torchrun.pid)
    torchrun.kill()
    torchrun.wait()
    assert len(processes) == 2
    wait_until(lambda: not any(map(is_alive, processes)))
    with sole_trainer(folder):
        assert not events_of(folder, "failed")


def children_of(parent):
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def is_alive(process):
    """Whether it still runs: a zombie has ended."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(true):
    deadline = time.monotonic() + 60  # a bound on hanging
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_plan_together(tmp_path, monkeypatch):
    """Both measure, for a step is of both; one reports."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = run_folder(tmp_path / "run", replace(CONFIG, batch_size=4), train=uneven(EXAMPLES))
    code, log = in_two_processes(folder, "--plan")
    assert code == EXIT_FINISHED, log
    [planned] = events_of(folder)
    assert (planned["type"], planned["steps"]) == ("plan", 8)
    assert planned["seconds_per_step"] > 0
    assert log.count('"seconds_per_step"') == 1


def test_of_several_processes_none_cuts_its_steps_alone(tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "run", CONFIG, train=uneven(EXAMPLES))
    monkeypatch.setattr("trainer.train._processes", lambda: 2)
    limit_memory(monkeypatch, examples=2)
    with pytest.raises(OutOfMemory, match="batch_size"):
        train(RunConfig(SMALL, CONFIG), folder, EventLog(folder / "events.jsonl"), reload_check=False)
    assert not events_of(folder, "warning")


@pytest.mark.parametrize("packing", [False, True])
def test_a_step_that_does_not_fit_is_cut_into_smaller_ones(tmp_path, alone, monkeypatch, packing):
    config = replace(CONFIG, packing=packing)
    folder = run_folder(tmp_path / "run", config, train=uneven(EXAMPLES))
    limit_memory(monkeypatch, examples=2)
    run, events = RunConfig(SMALL, config), EventLog(folder / "events.jsonl")
    result = train(run, folder, events, reload_check=False)
    assert [event["facts"]["batch_size"] for event in events_of(folder, "warning")] == [4, 2]
    assert_same_steps(folder, alone)
    assert result.metrics == alone[0].metrics


def test_one_example_too_large_has_its_own_code(tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "run", CONFIG, train=uneven(EXAMPLES))
    limit_memory(monkeypatch, examples=0)
    with pytest.raises(OutOfMemory) as caught:
        train(RunConfig(SMALL, CONFIG), folder, EventLog(folder / "events.jsonl"), reload_check=False)
    assert caught.value.facts == {"batch_size": 1}


def limit_memory(monkeypatch, *, examples):
    """Let backward passes over more examples than this run out of memory, as CUDA says it."""
    whole = torch.nn.functional.cross_entropy

    def limited(logits, labels, **options):
        if len(labels) > examples * 4:  # at most four scored positions an example
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(logits, labels, **options)

    monkeypatch.setattr("trainer.step.cross_entropy", limited)
