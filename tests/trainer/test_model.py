"""Loading: what is found, what is refused and with which advice. LoRA: what is trained, and from which start."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from core.domain.run_folder import BaseModelSpec
from core.domain.training import TrainingConfig
from core.errors import BaseModelUnavailable, InvalidInput
from tests.trainer.families import CONFIGS, VOCABULARY
from trainer.base import WEIGHTS, export_small, small_revision
from trainer.model import a_few, add_lora, load_base

ROOT = Path(__file__).parents[2]
COMMIT = "c0ffee" + "0" * 34


def _spec(source: str, revision: str | None = None) -> BaseModelSpec:
    return BaseModelSpec("mine", source, revision)


@pytest.fixture
def exported(tmp_path) -> Path:
    export_small(tmp_path / "small")
    return tmp_path / "small"


def _edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_builtin_and_its_export_are_the_same_model(small, exported):
    assert small.revision == small_revision()
    assert not small.model.training
    assert small.model.dtype is torch.float32
    local = load_base(_spec(str(exported)))
    assert local.revision is None
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        assert torch.equal(local.model(input_ids=ids).logits, small.model(input_ids=ids).logits)


def test_precision_is_obeyed(exported):
    assert load_base(_spec(str(exported)), precision="bf16").model.dtype is torch.bfloat16


def test_without_a_pad_token_eos_pads_and_no_embedding_is_added(exported):
    tokenizer_config = json.loads((exported / "tokenizer_config.json").read_text())
    del tokenizer_config["pad_token"]
    (exported / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    base = load_base(_spec(str(exported)))
    assert base.tokenizer.pad_token_id == base.tokenizer.eos_token_id
    assert base.model.get_input_embeddings().num_embeddings == base.model.config.vocab_size == len(base.tokenizer)


def test_neither_pad_nor_eos_is_refused(exported):
    tokenizer_config = json.loads((exported / "tokenizer_config.json").read_text())
    del tokenizer_config["pad_token"], tokenizer_config["eos_token"]
    (exported / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    with pytest.raises(BaseModelUnavailable, match="neither a pad nor an EOS"):
        load_base(_spec(str(exported)))


def test_a_slow_tokenizer_is_refused(exported):
    (exported / "tokenizer.json").unlink()
    (exported / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(BaseModelUnavailable, match="slow one, without offsets"):
        load_base(_spec(str(exported)))


def test_pickled_weights_are_never_read(exported, small):
    (exported / "model.safetensors").unlink()
    torch.save(small.model.state_dict(), exported / "pytorch_model.bin")
    with pytest.raises(BaseModelUnavailable, match="cannot be loaded"):
        load_base(_spec(str(exported)))


def test_code_that_comes_with_a_model_is_never_run(exported, tmp_path):
    witness = tmp_path / "ran"
    (exported / "evil.py").write_text(
        f"open({str(witness)!r}, 'w').close()\nclass Evil: pass\nclass EvilConfig: pass\n"
    )
    _edit(
        exported / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"},
    )
    with pytest.raises(BaseModelUnavailable):
        load_base(_spec(str(exported)))
    assert not witness.exists()


def test_torn_weights_are_refused(exported):
    weights = exported / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BaseModelUnavailable, match="cannot be loaded"):
        load_base(_spec(str(exported)))


def _rewrite(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def _cut(weights: dict[str, torch.Tensor], name: str) -> None:
    weights[name] = weights[name][:-1].contiguous()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.pop("model.norm.weight"), r"lack weights of the model: model\.norm\.weight$"),
        (
            lambda weights: [weights.pop(name) for name in list(weights) if ".layers.1." in name],
            r"lack .*: model\.layers\.1\.input_layernorm\.weight, .* and 6 more$",
        ),
        (lambda weights: _cut(weights, "lm_head.weight"), r"another shape .*: lm_head\.weight$"),
    ],
    ids=["one", "a layer", "another shape"],
)
def test_weights_that_would_be_drawn_at_random_are_refused(exported, change, told):
    _rewrite(exported, change)
    with pytest.raises(BaseModelUnavailable, match=told):
        load_base(_spec(str(exported)))


@pytest.mark.parametrize(
    ("change", "told"),
    [(dict.pop, r"another shape .*experts\.down_proj$"), (_cut, "cannot be loaded .*conversion")],
    ids=["missing", "another shape"],
)
def test_an_expert_that_is_not_whole_is_refused(exported, change, told):
    """Experts are stacked while they are loaded, so that what is wrong with one is told of the stack."""
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        moe_intermediate_size=8,
        num_experts=4,
        num_experts_per_tok=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(exported)
    load_base(_spec(str(exported)))
    _rewrite(exported, lambda weights: change(weights, "model.layers.0.mlp.experts.1.down_proj.weight"))
    with pytest.raises(BaseModelUnavailable, match=told):
        load_base(_spec(str(exported)))


def test_a_weight_without_a_place_is_told_and_no_hindrance(exported, small):
    assert not small.unexpected
    _rewrite(exported, lambda weights: weights.update({"score.weight": torch.ones(2, 64)}))
    assert load_base(_spec(str(exported))).unexpected == {"score.weight"}


def test_a_weight_that_is_tied_is_not_missing(exported):
    _edit(exported / "config.json", tie_word_embeddings=True)
    _rewrite(exported, lambda weights: weights.pop("lm_head.weight"))
    model = load_base(_spec(str(exported))).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    _rewrite(exported, lambda weights: weights.pop("model.embed_tokens.weight"))
    with pytest.raises(BaseModelUnavailable, match=r"lack .*model\.embed_tokens\.weight"):
        load_base(_spec(str(exported)))


@pytest.mark.parametrize("family", CONFIGS)
def test_what_a_family_saves_is_what_it_loads(exported, family):
    AutoModelForCausalLM.from_config(CONFIGS[family]).save_pretrained(exported)
    assert not load_base(_spec(str(exported))).unexpected


def test_names_are_few():
    assert a_few({"b", "a"}) == "a, b"
    assert a_few({*"edcba"}) == "a, b, c and 2 more"


def test_lora_trains_its_own_weights_alone(exported):
    model = add_lora(load_base(_spec(str(exported))).model, TrainingConfig(lora_rank=4))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * 14
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert not any("lm_head" in name or "embed" in name for name in trained)


def test_lora_starts_as_the_base_and_from_its_seed_alone(exported):
    def started(seed: int, noise: int) -> dict[str, torch.Tensor]:
        model = load_base(_spec(str(exported))).model
        torch.manual_seed(noise)
        expected = torch.rand(1)
        torch.manual_seed(noise)
        adapted = add_lora(model, TrainingConfig(seed=seed))
        assert torch.equal(torch.rand(1), expected), "the global generator was touched"
        ids = torch.arange(20, 40)[None]
        with torch.no_grad(), adapted.disable_adapter():
            base_logits = adapted(input_ids=ids).logits
        with torch.no_grad():
            assert torch.equal(adapted(input_ids=ids).logits, base_logits)
        return {name: weight for name, weight in adapted.named_parameters() if ".lora_A." in name}

    first, same, other = started(0, noise=1), started(0, noise=2), started(1, noise=1)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_lora_targets_by_name(exported):
    model = add_lora(load_base(_spec(str(exported))).model, TrainingConfig(lora_targets="q_proj, v_proj"))
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, w in model.named_parameters() if w.requires_grad}
    assert adapted == {"q_proj", "v_proj"}


def test_an_unknown_lora_target_is_named(exported):
    with pytest.raises(InvalidInput, match="no module named 'q_poj'"):
        add_lora(load_base(_spec(str(exported))).model, TrainingConfig(lora_targets="q_poj,v_proj"))


@pytest.mark.parametrize(("rslora", "scale"), [(False, 12 / 4), (True, 12 / 2)])
def test_lora_has_its_rank_and_is_scaled_by_it_or_by_the_root_of_it(exported, rslora, scale):
    """alpha / r, or with rsLoRA alpha / sqrt(r) (arXiv 2312.03732): what is added is that times B A."""
    config = TrainingConfig(lora_rank=4, lora_alpha=12, lora_rslora=rslora, lora_targets="q_proj")
    model = add_lora(load_base(_spec(str(exported))).model, config)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (down.shape[0], up.shape[1]) == (4, 4)
    with torch.no_grad():
        torch.nn.init.normal_(up)
        states = torch.randn(3, down.shape[1])
        torch.testing.assert_close(layer(states), layer.base_layer(states) + scale * states @ down.T @ up.T)
