"""What a run leaves for each way of tuning, and that none of it stays if the gate refuses it."""

import errno
import json
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from core.domain.run_folder import BaseModelSpec, RunConfig
from core.domain.training import Method, TrainingConfig, Tuning
from core.errors import (
    DiskFull,
    ExtraMissing,
    InvalidInput,
    NotFinite,
    NothingLearned,
    OutOfMemory,
    ReloadDiffers,
    ReloadFailed,
)
from tests.trainer.memory_errors import OUT_OF_MEMORY
from tests.trainer.runs import SMALL, events_of, run_folder
from trainer.adapter import load_adapter, verify_folder
from trainer.attention import NAME
from trainer.events import EventLog
from trainer.export import ORIGIN, _pass_gate, export
from trainer.model import load_base, make_trainable
from trainer.sealed import MANIFEST, sealed_folder, sha256_of
from trainer.train import train

CONFIG = TrainingConfig(epochs=1, batch_size=8, lora_rank=4, learning_rate=5e-3, checkpoint_every=2, log_every=1)
IDS = torch.arange(2, 30)[None]


def finish(folder, config, **options):
    return train(RunConfig(SMALL, config), folder, EventLog(folder / "events.jsonl"), **options)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def _tuned(config):
    """A base and, on it, what the config trains: if that is an adapter, one that has learned something."""
    base = load_base(SMALL)
    model = make_trainable(base.model, config)
    for name, parameter in model.named_parameters():
        torch.nn.init.ones_(parameter) if "lora_B" in name else None
    return base, model


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    config = replace(CONFIG, merge=True)
    folder = run_folder(tmp_path_factory.mktemp("runs") / "merged", config)
    return finish(folder, config), folder


def test_a_merged_model_answers_as_base_and_adapter_do(merged):
    result, folder = merged
    whole = load_base(BaseModelSpec("merged", str(folder / "merged"))).model
    adapted = load_adapter(load_base(SMALL).model, folder / "adapter")
    torch.testing.assert_close(logits(whole), logits(adapted), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(whole), logits(load_base(SMALL).model), atol=1e-2)
    assert result.adapter_sha256 == sha256_of(folder / "adapter" / "adapter_model.safetensors")
    assert events_of(folder, "finished")[0]["model_sha256"] == result.model_sha256


def test_a_whole_model_explains_itself_and_names_no_attention_of_ours(merged):
    result, folder = merged
    files = verify_folder(folder / "merged")
    assert {"model.safetensors", "config.json", "tokenizer.json", ORIGIN} <= files
    assert sha256_of(folder / "merged" / MANIFEST) == result.model_sha256
    origin = json.loads((folder / "merged" / ORIGIN).read_text())
    assert origin["run"]["training"]["merge"] is True
    assert origin["metrics"]["ood"] == result.metrics["ood"]
    assert NAME not in (folder / "merged" / "config.json").read_text()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    config = replace(CONFIG, tuning=Tuning.FULL, learning_rate=1e-3)
    folder = run_folder(tmp_path_factory.mktemp("runs") / "full", config)
    return finish(folder, config), folder, config


def test_full_tuning_ends_in_a_model_and_no_adapter(full):
    result, folder, _ = full
    assert result.adapter_sha256 == ""
    assert not (folder / "adapter").exists()
    before = dict(load_base(SMALL).model.named_parameters())
    after = dict(load_base(BaseModelSpec("full", str(folder / "model"))).model.named_parameters())
    assert before.keys() == after.keys()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == set(after)  # embeddings, norms and head too


def test_full_tuning_goes_on_as_if_it_had_never_stopped(full, tmp_path):
    result, _, config = full
    folder = run_folder(tmp_path / "run", config)
    asked = iter([False, False, True])
    assert finish(folder, config, should_stop=lambda: next(asked, True)) is None
    assert finish(folder, config).model_sha256 == result.model_sha256


@pytest.mark.parametrize("method", Method)
def test_full_tuning_in_bf16_loses_no_small_step(tmp_path, monkeypatch, method):
    """A step of 1e-5 of weights near 1 is nothing to a bf16 weight, and all of it to its fp32 master."""
    computed, right = set(), torch.nn.functional.scaled_dot_product_attention

    def watched(query, *args, **kwargs):
        output = right(query, *args, **kwargs)
        if torch.is_grad_enabled():
            computed.add(output.dtype)
        return output

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    config = replace(CONFIG, tuning=Tuning.FULL, method=method, precision="bf16", learning_rate=1e-5)
    folder = run_folder(tmp_path / "run", config)
    assert finish(folder, config).model_sha256  # through the gate
    assert computed == {torch.bfloat16}
    before = dict(load_base(SMALL).model.named_parameters())
    after = load_file(folder / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    for name, weight in before.items():
        moved = (after[name] - weight).abs().max()
        assert 0 < moved < 1e-3, name


def test_plain_full_tuning_needs_no_objective(tmp_path):
    config = replace(CONFIG, tuning=Tuning.FULL, method=Method.SFT, learning_rate=1e-3)
    folder = run_folder(tmp_path / "run", config)
    assert finish(folder, config, reload_check=False).model_sha256


def test_what_the_gate_refuses_does_not_stay(full, tmp_path):
    _, _, config = full
    run = RunConfig(SMALL, config)
    base = load_base(SMALL)
    with pytest.raises(NothingLearned):
        export(make_trainable(base.model, config), base, tmp_path, run=run, metrics={})
    assert not (tmp_path / "model").exists()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        *((error, OutOfMemory) for error in OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
        (AttributeError("a bug"), AttributeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_what_did_not_pass_the_gate_does_not_stay_whatever_ended_it(tmp_path, monkeypatch, raised, error):
    base, model = _tuned(CONFIG)

    def refuse(*args, **kwargs):
        assert (tmp_path / "adapter").exists()
        raise raised

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(error):
        export(model, base, tmp_path, run=RunConfig(SMALL, CONFIG), metrics={})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("raised", "error"),
    [*((error, OutOfMemory) for error in OUT_OF_MEMORY), (AttributeError("a bug"), AttributeError)],
)
def test_what_cannot_be_merged_does_not_stay_as_an_adapter(tmp_path, monkeypatch, raised, error):
    config = replace(CONFIG, merge=True)
    base, model = _tuned(config)

    def refuse(*args, **kwargs):
        raise raised

    monkeypatch.setattr(model, "merge_and_unload", refuse)
    with pytest.raises(error):
        export(model, base, tmp_path, run=RunConfig(SMALL, config), metrics={}, reload_check=False)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_whole_model_must_be_the_trained_one(full, tmp_path):
    _, _, config = full
    run, base = RunConfig(SMALL, config), load_base(SMALL)
    export(base.model, base, tmp_path, run=run, metrics={}, reload_check=False)
    with torch.no_grad():
        base.model.lm_head.weight.mul_(1.1)
    with pytest.raises(ReloadDiffers):
        _pass_gate(base.model, tmp_path / "model", run)
    export(base.model, base, tmp_path, run=run, metrics={}, reload_check=False)
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ReloadFailed):
        _pass_gate(base.model, tmp_path / "model", run)


def test_a_merged_weight_that_is_no_number_is_refused(tmp_path):
    base = load_base(SMALL)
    model = make_trainable(base.model, replace(CONFIG, merge=True))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.fill_(1e30)  # finite, but their product is not
    run = RunConfig(SMALL, replace(CONFIG, merge=True))
    with pytest.raises(NotFinite, match="merged"):
        export(model, base, tmp_path, run=run, metrics={}, reload_check=False)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("tuning", [Tuning.FULL, Tuning.QLORA])
def test_only_lora_can_be_merged(tuning):
    with pytest.raises(InvalidInput, match="merge"):
        TrainingConfig(tuning=tuning, merge=True)


def test_a_folder_is_whole_or_absent(tmp_path):
    with suppress(ZeroDivisionError), sealed_folder(tmp_path / "x") as staging:
        (staging / "a").write_text("half")
        raise ZeroDivisionError
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="the extra qlora is installed")
def test_qlora_without_its_extra_says_which(tmp_path):
    config = replace(CONFIG, tuning=Tuning.QLORA)
    with pytest.raises(ExtraMissing, match="qlora"):
        finish(run_folder(tmp_path / "run", config), config)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra qlora")
def test_qlora_trains_an_adapter_over_four_bits(tmp_path):
    config = replace(CONFIG, tuning=Tuning.QLORA)
    folder = run_folder(tmp_path / "run", config)
    result = finish(folder, config)
    assert result.adapter_sha256
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all(weight.any() for weight in weights.values())  # the gradient reached every layer
    base = load_base(SMALL, four_bit=True).model
    assert type(base.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    plain = logits(base)
    assert not torch.allclose(logits(load_adapter(base, folder / "adapter")), plain, atol=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),  # as tokenizers say it
    ],
    ids=["python", "safetensors", "tokenizers"],
)
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, tuning=Tuning.FULL)], ids=["adapter", "model"])
def test_no_space_for_what_is_exported_has_its_own_code(tmp_path, monkeypatch, config, error):
    base, model = _tuned(config)

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(base.tokenizer, "save_pretrained", refuse)  # after the weights: what is there must go
    with pytest.raises(DiskFull, match="No space left"):
        export(model, base, tmp_path, run=RunConfig(SMALL, config), metrics={}, reload_check=False)
    assert not [*tmp_path.iterdir()]


def test_weights_that_do_not_fit_on_the_disk_have_their_own_code(tmp_path, monkeypatch):
    base = load_base(SMALL)

    def refuse(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", refuse)
    config = replace(CONFIG, tuning=Tuning.FULL)
    with pytest.raises(DiskFull):
        export(base.model, base, tmp_path, run=RunConfig(SMALL, config), metrics={}, reload_check=False)


def test_another_error_of_a_library_stays_what_it_is(tmp_path, monkeypatch):
    base = load_base(SMALL)

    def refuse(*args, **kwargs):
        raise SafetensorError("invalid dtype")

    monkeypatch.setattr(base.tokenizer, "save_pretrained", refuse)
    with pytest.raises(SafetensorError):
        export(base.model, base, tmp_path, run=RunConfig(SMALL, CONFIG), metrics={}, reload_check=False)
