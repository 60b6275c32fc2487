"""Evaluations while training, and the best weights instead of the last."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from core.domain.run_folder import RunConfig
from core.domain.training import TrainingConfig
from core.errors import InvalidInput
from tests.trainer.runs import SMALL, StopAfter, events_of, run_folder
from trainer.best import Best
from trainer.events import EventLog
from trainer.train import train

PLAIN = TrainingConfig(epochs=2, batch_size=2, gradient_accumulation=2, lora_rank=4, lora_dropout=0.2, log_every=1)
LOOKING = replace(PLAIN, evaluate_every=3)
CHOOSING = replace(LOOKING, best_metric="ood.accuracy")
PATIENT = replace(CHOOSING, patience=1)
STEPS = 14  # of 26 examples


def finish(folder, config, should_stop=lambda: False):
    events = EventLog(folder / "events.jsonl")
    return train(RunConfig(SMALL, config), folder, events, should_stop=should_stop, reload_check=False)


def folder_of(path, config):
    return run_folder(path, config, train=26)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folder and result of each config, uninterrupted."""
    path = tmp_path_factory.mktemp("runs")
    configs = {"plain": PLAIN, "looking": LOOKING, "choosing": CHOOSING, "patient": PATIENT}
    folders = {name: folder_of(path / name, config) for name, config in configs.items()}
    return {name: (folder, finish(folder, configs[name])) for name, folder in folders.items()}


def evaluations(folder):
    return [(event["step"], event["metrics"]["accuracy"]) for event in events_of(folder, "evaluation")]


def test_looking_changes_nothing(results):
    (_, plain), (folder, looking) = results["plain"], results["looking"]
    assert looking.adapter_sha256 == plain.adapter_sha256
    assert looking.best_step is None
    assert [step for step, _ in evaluations(folder)] == [3, 6, 9, 12, STEPS]


def test_the_best_is_exported_with_its_own_metrics(results):
    folder, result = results["choosing"]
    *seen, (final_step, final) = evaluations(folder)
    assert [step for step, _ in seen] == [3, 6, 9, 12, STEPS]
    best_step, best = max(seen, key=lambda one: one[1])  # the first of equals
    assert (result.steps, result.best_step) == (STEPS, best_step)
    assert (final_step, final, result.metrics["ood"]["accuracy"]) == (best_step, best, best)
    assert best_step < STEPS, "the last being the best, this test shows nothing"
    assert result.adapter_sha256 != results["plain"][1].adapter_sha256


def test_patience_ends_a_run(results):
    folder, result = results["patient"]
    values = [value for _, value in evaluations(folder)[:-1]]
    assert all(later > earlier for earlier, later in pairwise(values[:-1]))
    assert values[-1] <= values[-2]
    assert result.steps == 3 * len(values) < STEPS
    assert events_of(folder, "checkpoint")[-1]["step"] == result.steps


@pytest.mark.parametrize("name", ["choosing", "patient"])
@pytest.mark.parametrize("step", [2, 3, 4, 6])
def test_stopped_and_resumed_it_chooses_the_same(tmp_path, results, name, step):
    config = {"choosing": CHOOSING, "patient": PATIENT}[name]
    folder = folder_of(tmp_path / "run", config)
    assert finish(folder, config, StopAfter(step)) is None
    result, expected = finish(folder, config), results[name][1]
    assert (result.best_step, result.steps) == (expected.best_step, expected.steps)
    assert result.adapter_sha256 == expected.adapter_sha256
    assert result.metrics == expected.metrics


@pytest.mark.parametrize("asked", [1, 3], ids=["in the last evaluation", "between the stages"])
def test_cut_off_after_an_early_end_it_is_exported_without_another_step(tmp_path, results, asked):
    """It is asked before the first step, after every step, and once in each of the two evaluations."""
    expected = results["patient"][1]
    folder = folder_of(tmp_path / "run", PATIENT)
    assert finish(folder, PATIENT, StopAfter(expected.steps + asked)) is None
    steps = len(events_of(folder, "step"))
    assert steps == expected.steps
    assert finish(folder, PATIENT).adapter_sha256 == expected.adapter_sha256
    assert len(events_of(folder, "step")) == steps


def test_a_split_that_is_not_there_is_refused_before_the_first_step(tmp_path):
    config = replace(CHOOSING, best_metric="iid.accuracy")
    folder = folder_of(tmp_path / "run", config)
    with pytest.raises(InvalidInput, match="iid"):
        finish(folder, config)
    assert not events_of(folder, "step")


def test_the_first_of_equals_is_kept_and_comes_back(tmp_path):
    model = torch.nn.Linear(2, 2)
    best = Best(replace(PATIENT, patience=2))
    for step, value in enumerate([0.5, 0.7, 0.7, 0.6]):
        torch.nn.init.constant_(model.weight, step)
        assert not best.is_settled
        best.offer(value, step, model)
    assert (best.step, best.is_settled) == (1, True)
    best.save(tmp_path)
    again = Best(replace(PATIENT, patience=2))
    again.load(tmp_path)
    assert (again.step, again.is_settled) == (1, True)
    again.restore(model)
    assert torch.equal(model.weight, torch.ones(2, 2))
