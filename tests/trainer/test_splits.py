"""Evaluations that are interrupted, and those that memory does not hold at once."""

from dataclasses import replace

import pytest
import torch

from benchmarks.stg import generate
from core.domain.run_folder import RunConfig
from core.domain.training import TrainingConfig
from core.errors import InvalidInput, OutOfMemory
from tests.trainer.runs import SMALL, events_of, run_folder
from trainer import answers
from trainer.checkpoints import newest_checkpoint, step_of
from trainer.evaluate import evaluate
from trainer.events import EventLog
from trainer.train import train

CONFIG = TrainingConfig(
    epochs=2, batch_size=4, lora_rank=4, lora_dropout=0.2, log_every=1, evaluate_every=3, best_metric="ood.accuracy"
)
EXAMPLES, TESTS, STEPS = 26, 100, 14  # four batches of choices an evaluation


class Interrupt:
    """Says stop at its n-th question within evaluations, and from then on."""

    def __init__(self, monkeypatch, question):
        self.questions, self.question, self.inside = 0, question, False
        monkeypatch.setattr("trainer.splits.evaluate", self._evaluate)

    def _evaluate(self, *args, **kwargs):
        self.inside = True
        try:
            return evaluate(*args, **kwargs)
        finally:
            self.inside = False

    def __call__(self):
        self.questions += self.inside
        return self.questions >= self.question


def folder_of(path, config=CONFIG):
    return run_folder(path, config, train=EXAMPLES, test=TESTS)


def finish(folder, should_stop=lambda: False, config=CONFIG):
    run, events = RunConfig(SMALL, config), EventLog(folder / "events.jsonl")
    return train(run, folder, events, should_stop=should_stop, reload_check=False)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = folder_of(tmp_path_factory.mktemp("runs") / "whole")
    return finish(folder), measured(folder)


def measured(folder):
    """What was found at each step; the last one, after training, is of the best step."""
    return [(event["step"], event["metrics"]) for event in events_of(folder, "evaluation")]


@pytest.mark.parametrize(
    ("question", "saved"),
    [
        (1, 3),  # before the first batch of the first evaluation
        (6, 6),  # within the second
        (17, STEPS),  # the one after the last step
        (21, STEPS),  # the one after training
    ],
)
def test_an_evaluation_that_was_interrupted_is_made_up_for(tmp_path, monkeypatch, uninterrupted, question, saved):
    """A checkpoint is saved at once; going on, the run chooses among the same evaluations."""
    folder = folder_of(tmp_path / "run")
    assert finish(folder, Interrupt(monkeypatch, question)) is None
    assert step_of(newest_checkpoint(folder / "checkpoints")) == saved
    monkeypatch.undo()
    result = finish(folder)
    whole, found = uninterrupted
    assert (result.adapter_sha256, result.best_step) == (whole.adapter_sha256, whole.best_step)
    assert measured(folder) == found


def test_an_evaluation_that_is_owed_is_not_interrupted_again(tmp_path, monkeypatch, uninterrupted):
    """There would be nothing new to save: it is made, and then a step, after which the run is asked."""
    folder = folder_of(tmp_path / "run")
    assert finish(folder, Interrupt(monkeypatch, 2)) is None
    told = iter([False])  # at the start; then at every question
    assert finish(folder, lambda: next(told, True)) is None
    assert [step for step, _ in measured(folder)] == [3]
    assert step_of(newest_checkpoint(folder / "checkpoints")) == 4
    assert finish(folder).adapter_sha256 == uninterrupted[0].adapter_sha256


def limit(monkeypatch, texts):
    """Let a forward pass over more texts than these run out of memory; returns the sizes that were tried."""
    whole, tried = answers._log_likelihoods, []

    def limited(model, batch):
        tried.append(len(batch))
        if len(batch) > texts:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(model, batch)

    monkeypatch.setattr(answers, "_log_likelihoods", limited)
    return tried


def test_batches_are_halved_until_memory_holds_them(small, monkeypatch):
    examples = [*generate(20, seed=6)]
    whole = evaluate(small.model, small.tokenizer, examples)
    tried = limit(monkeypatch, texts=9)
    assert evaluate(small.model, small.tokenizer, examples) == whole
    assert tried == [40, 20, 10, *[5] * 8]


def test_a_text_too_large_ends_the_run_with_its_code_and_cuts_no_step(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "run")
    tried = limit(monkeypatch, texts=0)
    with pytest.raises(OutOfMemory, match="an evaluation of 1 texts of up to") as caught:
        finish(folder)
    assert caught.value.facts == {"batch_size": 1}
    assert tried == [64, 32, 16, 8, 4, 2, 1]
    assert not events_of(folder, "warning")
    assert events_of(folder, "step")[-1]["step"] == 3


@pytest.mark.parametrize(
    ("content", "told"), [("", r"eval/ood\.jsonl has no example"), ('{"input": 5}', "ood.jsonl, line 1")]
)
def test_a_split_that_cannot_be_read_is_refused_before_the_first_step(tmp_path, content, told):
    config = replace(CONFIG, evaluate_every=0, best_metric="")
    folder = folder_of(tmp_path / "run", config)
    (folder / "eval" / "ood.jsonl").write_text(content)
    with pytest.raises(InvalidInput, match=told):
        finish(folder, config=config)
    assert not events_of(folder)
