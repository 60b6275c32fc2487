"""Whatever stops a run, it goes on as if nothing had happened: the adapter's bytes are the same."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.stg import generate
from core.domain.run_folder import EXIT_FINISHED, EXIT_INTERRUPTED, RunConfig
from core.domain.training import TrainingConfig
from core.errors import CheckpointMismatch
from tests.trainer.runs import SMALL, StopAfter, events_of, run_folder, start, uneven, write_examples
from trainer import batching
from trainer.checkpoints import MANIFEST, newest_checkpoint, save_checkpoint, step_of
from trainer.events import EventLog
from trainer.fingerprint import _LATER, _PACE, fingerprint_of, require_same
from trainer.packing import pack
from trainer.train import train

# 7 steps an epoch, the last a short one; dropout, so that generators matter; rows guided and not.
CONFIG = TrainingConfig(
    epochs=2, batch_size=2, gradient_accumulation=2, lora_rank=4, lora_dropout=0.2, checkpoint_every=3, log_every=1
)
EXAMPLES = 26
ROOT = Path(__file__).parents[2]


def finish(folder, should_stop=lambda: False, config=CONFIG):
    run, events = RunConfig(SMALL, config), EventLog(folder / "events.jsonl")
    return train(run, folder, events, should_stop=should_stop, reload_check=False)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return finish(run_folder(tmp_path_factory.mktemp("runs") / "whole", CONFIG, train=EXAMPLES))


@pytest.mark.parametrize("step", [1, 3, 6, 7, 8, 14])
def test_stopped_after_any_step_it_ends_the_same(tmp_path, uninterrupted, step):
    folder = run_folder(tmp_path / "run", CONFIG, train=EXAMPLES)
    assert finish(folder, StopAfter(step)) is None
    assert events_of(folder, "checkpoint")[-1]["step"] == step
    assert not (folder / "adapter").exists()
    result = finish(folder)
    assert result.steps == uninterrupted.steps == 14
    assert result.adapter_sha256 == uninterrupted.adapter_sha256
    assert result.metrics == uninterrupted.metrics
    assert events_of(folder, "step")[-1]["step"] == 14


def test_stopped_in_the_middle_of_packed_epochs_it_ends_the_same(tmp_path, monkeypatch):
    fullest = []
    monkeypatch.setattr(batching, "pack", lambda *asked: fullest.append(max(map(len, pack(*asked)))) or pack(*asked))
    config = replace(CONFIG, packing=True, batch_size=4, gradient_accumulation=1)
    whole = run_folder(tmp_path / "whole", config, train=uneven(EXAMPLES))
    uninterrupted = finish(whole, config=config)
    assert max(fullest) > 1
    folder = run_folder(tmp_path / "run", config, train=uneven(EXAMPLES))
    for step in (3, 6):  # in either epoch
        assert finish(folder, StopAfter(step), config) is None
    result = finish(folder, config=config)
    assert (result.steps, result.adapter_sha256) == (14, uninterrupted.adapter_sha256)


def shorten(checkpoint):
    weights = checkpoint / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def belie(checkpoint):
    """Another fingerprint by one bit."""
    manifest = checkpoint / MANIFEST
    content = manifest.read_bytes()
    at = content.index(b'"config": "') + len(b'"config": "')
    manifest.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


@pytest.mark.parametrize("harm", [shorten, belie])
def test_a_torn_checkpoint_costs_an_interval_not_the_run(tmp_path, uninterrupted, harm):
    folder = run_folder(tmp_path / "run", CONFIG, train=EXAMPLES)
    assert finish(folder, StopAfter(8)) is None
    harm(newest_checkpoint(folder / "checkpoints"))
    assert newest_checkpoint(folder / "checkpoints").name == "step-00000006"
    assert finish(folder).adapter_sha256 == uninterrupted.adapter_sha256


def test_a_run_whose_checkpoints_are_all_torn_begins_anew_and_keeps_the_new_ones(tmp_path, uninterrupted):
    folder = run_folder(tmp_path / "run", CONFIG, train=EXAMPLES)
    assert finish(folder, StopAfter(8)) is None
    for checkpoint in (folder / "checkpoints").iterdir():  # of steps 6 and 8
        shorten(checkpoint)
    assert finish(folder, StopAfter(1)) is None
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000001"]
    assert finish(folder).adapter_sha256 == uninterrupted.adapter_sha256


def test_a_checkpoint_is_whole_before_it_is_told_of(tmp_path):
    class Watched(EventLog):
        def checkpoint(self, step):
            told.append(step)
            newest.append(step_of(newest_checkpoint(folder / "checkpoints")))

    told, newest = [], []
    folder = run_folder(tmp_path / "run", CONFIG, train=EXAMPLES)
    train(RunConfig(SMALL, CONFIG), folder, Watched(folder / "events.jsonl"), reload_check=False)
    assert told == newest == [3, 6, 9, 12, 14]


@pytest.mark.parametrize(
    ("change", "examples", "differs"),
    [
        ({"learning_rate": 1e-4}, EXAMPLES, ["config"]),
        ({"batch_size": 4, "gradient_accumulation": 1}, EXAMPLES, ["config"]),
        ({}, EXAMPLES + 2, ["data"]),
        ({"seed": 1}, EXAMPLES + 2, ["config", "data"]),
    ],
)
def test_another_runs_checkpoints_are_refused(tmp_path, change, examples, differs):
    folder = run_folder(tmp_path / "run", CONFIG, train=EXAMPLES)
    assert finish(folder, StopAfter(1)) is None
    write_examples(folder / "train.jsonl", [*generate(examples, seed=5)])
    run = RunConfig(SMALL, replace(CONFIG, **change))
    with pytest.raises(CheckpointMismatch) as caught:
        train(run, folder, EventLog(folder / "events.jsonl"), reload_check=False)
    assert caught.value.facts == {"checkpoint": "step-00000001", "differs": differs}


def test_another_base_is_refused(tmp_path):
    run = RunConfig(SMALL, CONFIG)
    (tmp_path / "train.jsonl").write_text("")
    path = save_checkpoint(tmp_path / "c", 1, lambda folder: None, fingerprint_of(run, tmp_path, "a"))
    require_same(path, fingerprint_of(run, tmp_path, "a"))
    with pytest.raises(CheckpointMismatch, match="another base;"):
        require_same(path, fingerprint_of(run, tmp_path, "b"))
    with pytest.raises(CheckpointMismatch, match="another number of processes;"):
        require_same(path, fingerprint_of(run, tmp_path, "a", processes=2))
    with pytest.raises(CheckpointMismatch, match="config and base and data"):
        require_same(save_checkpoint(tmp_path / "d", 1, lambda folder: None), fingerprint_of(run, tmp_path, "a"))


def test_a_run_outlives_an_upgrade_that_brings_a_setting(tmp_path):
    """As long as it is at what was done before."""
    (tmp_path / "train.jsonl").write_text("")
    old = {name: value for name, value in asdict(CONFIG).items() if name not in _PACE | _LATER.keys()}
    then = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    assert fingerprint_of(RunConfig(SMALL, CONFIG), tmp_path, "a")["config"] == then
    changed = replace(CONFIG, lora_rslora=True)
    assert fingerprint_of(RunConfig(SMALL, changed), tmp_path, "a")["config"] != then


def test_the_pace_may_change_between_attempts(tmp_path, uninterrupted):
    folder = run_folder(tmp_path / "run", CONFIG, train=EXAMPLES)
    assert finish(folder, StopAfter(4)) is None
    run = RunConfig(SMALL, replace(CONFIG, log_every=5, checkpoint_every=100))
    result = train(run, folder, EventLog(folder / "events.jsonl"), reload_check=False)
    assert result.adapter_sha256 == uninterrupted.adapter_sha256


def test_seeds_matter(tmp_path, uninterrupted):
    config = replace(CONFIG, seed=1)
    folder = run_folder(tmp_path / "run", config, train=EXAMPLES)
    other = train(RunConfig(SMALL, config), folder, EventLog(folder / "events.jsonl"), reload_check=False)
    assert other.adapter_sha256 != uninterrupted.adapter_sha256


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_killed_can_be_started_again(tmp_path, uninterrupted, how):
    folder = run_folder(tmp_path / "run", CONFIG, train=EXAMPLES)
    process = start(folder)
    while not events_of(folder, "checkpoint"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.send_signal(how)
    _, errors = process.communicate()
    assert process.returncode == (-how if how is signal.SIGKILL else EXIT_INTERRUPTED), errors
    assert ("Ctrl-C again" in errors) == (how is signal.SIGINT)
    assert not events_of(folder, "finished")
    again = start(folder)
    _, errors = again.communicate()
    assert again.returncode == EXIT_FINISHED, errors
    assert events_of(folder, "finished")[0]["adapter_sha256"] == uninterrupted.adapter_sha256


@pytest.mark.slow
def test_killed_at_ten_random_steps_of_one_run_it_ends_the_same(tmp_path):
    """Guarantee 14. CAUSEWAY_TEST_SEED draws the same steps again."""
    seed = int(os.environ.get("CAUSEWAY_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    config = replace(CONFIG, epochs=4)  # 28 steps
    steps = sorted(random.Random(seed).sample(range(1, 26), 10))
    sys.stdout.write(f"CAUSEWAY_TEST_SEED={seed}: killed at {steps}\n")  # shown when it fails
    whole, killed = (run_folder(tmp_path / name, config, train=EXAMPLES) for name in ("whole", "killed"))
    argv = [sys.executable, "-m", "tests.trainer.killed_runs", str(whole), str(killed), *map(str, steps)]
    subprocess.run(argv, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    made = [event["step"] for event in events_of(killed, "step")]
    assert any(later <= earlier for earlier, later in pairwise(made)), "it was killed in no middle of an interval"
    ours, theirs = (events_of(folder, "finished") for folder in (killed, whole))
    assert [event["adapter_sha256"] for event in ours] == [event["adapter_sha256"] for event in theirs]
    assert len(ours) == 1
    assert ours[0]["steps"] == 28
