"""The admission check, on families built from config alone: who is let in, who is refused, and why."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    DiffLlamaConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    StableLmConfig,
)

from core.errors import ModelNotSupported
from tests.trainer.memory_errors import OUT_OF_MEMORY
from trainer import admission
from trainer.admission import check_attention, check_packing
from trainer.precision import in_fp32

_SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # large enough for attention to matter
}
_NEOX = {name: value for name, value in _SMALL.items() if name != "num_key_value_heads"}
_SLIDING = {"sliding_window": 8}

ADMITTED = {
    "llama": LlamaConfig(**_SMALL),
    "qwen2": Qwen2Config(**_SMALL),
    "qwen3": Qwen3Config(**_SMALL, head_dim=8),
    "mistral": MistralConfig(**_SMALL, **_SLIDING),
    "gemma3": Gemma3TextConfig(**_SMALL, **_SLIDING, head_dim=8, layer_types=["sliding_attention", "full_attention"]),
    "gpt_neox": GPTNeoXConfig(**_NEOX),
    "phi3": Phi3Config(**_SMALL),
    "olmo2": Olmo2Config(**_SMALL),
}


GPT_OSS = GptOssConfig(
    **_SMALL, **_SLIDING, head_dim=8, num_local_experts=2, num_experts_per_tok=1,
    layer_types=["sliding_attention", "full_attention"],
)  # fmt: skip


def build(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("config", ADMITTED.values(), ids=ADMITTED)
def test_families_that_are_admitted(config):
    model = build(config)
    before = model.config._attn_implementation
    check_attention(model)
    assert model.config._attn_implementation == before
    assert not model.training


def test_builtin_small_is_admitted(small):
    check_attention(small.model)


def test_gpt_oss_is_refused_for_its_sinks():
    with pytest.raises(ModelNotSupported, match="does more than ours"):
        check_attention(build(GPT_OSS))


def test_mpt_is_refused_because_it_never_calls_us():
    config = MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=97, max_seq_len=128)
    with pytest.raises(ModelNotSupported, match="0 calls reached our attention"):
        check_attention(build(config))


def test_a_model_that_looks_ahead_is_refused():
    """Of an encoder's family, made a decoder in name alone."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = RobertaConfig(**{name: _SMALL[name] for name in names}, pad_token_id=0, initializer_range=0.3)
    with pytest.raises(ModelNotSupported, match="its attention looks ahead"):
        check_attention(build(config))


def test_of_a_model_that_mixes_only_the_layers_that_attend_are_counted():
    check_attention(build(Lfm2Config(**_SMALL, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)))


def test_a_layer_that_attends_more_than_once_is_refused():
    with pytest.raises(ModelNotSupported, match="4 calls reached our attention, one in each of 2"):
        check_attention(build(DiffLlamaConfig(**_SMALL)))


def test_a_model_that_hands_nothing_on_to_its_attention_is_refused():
    with pytest.raises(ModelNotSupported, match="it does not hand on to its attention what it is called with"):
        check_attention(build(StableLmConfig(**_SMALL)))


def test_values_may_be_of_another_width_than_keys():
    config = DeepseekV3Config(
        **_SMALL | {"num_key_value_heads": 4}, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        n_shared_experts=1, first_k_dense_replace=2, kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=4, v_head_dim=16,
    )  # fmt: skip
    check_attention(build(config))


def held(model):
    return {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def assert_same(found, wanted):
    for name, tensor in wanted.items():
        assert found[name].dtype is tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
def test_in_bf16_a_right_model_is_admitted_however_deep_and_comes_back_to_the_bit(family):
    """Its own two attentions differ by more than a gpt_oss's with and without sinks: only fp32 tells them apart."""
    config = copy.deepcopy(ADMITTED[family])
    config.hidden_size, config.num_hidden_layers, config.layer_types = 128, 12, ["full_attention"] * 12
    model = build(config).bfloat16()
    before = held(model)
    check_attention(model)
    check_packing(model, supervised=False)
    after = held(model)
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype is tensor.dtype for name, tensor in before.items()
    )
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_gpt_oss_is_refused_in_bf16_too():
    with pytest.raises(ModelNotSupported, match="does more than ours"):
        check_attention(build(GPT_OSS).bfloat16())


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_what_fp32_does_not_fit_is_checked_as_it_is(monkeypatch, error):
    model = build(ADMITTED["llama"]).bfloat16()
    before, widened = held(model), []

    def out_of_memory(tensor):
        widened.append(tensor)
        if len(widened) == 3:
            raise error
        return tensor.to(torch.float32)

    monkeypatch.setattr(torch.Tensor, "float", out_of_memory)
    with in_fp32(model):
        inside = held(model)
    assert len(widened) == 3
    assert_same(inside, before)
    assert_same(held(model), before)


def test_gemma2_is_refused_for_its_softcap():
    config = Gemma2Config(**_SMALL, head_dim=8)
    with pytest.raises(ModelNotSupported, match="softcap"):
        check_attention(build(config))


def test_attention_dropout_is_refused():
    with pytest.raises(ModelNotSupported, match=r"attention dropout is 0\.1"):
        check_attention(build(LlamaConfig(**_SMALL, attention_dropout=0.1)))


@pytest.mark.parametrize(
    ("pairs_up_to", "where"),
    [(None, "its output"), (0.0, "recomputed rows"), (1.0, "rows summed pair by pair")],
    ids=["output", "recomputed rows", "pairs"],
)
def test_a_wrong_attention_would_be_noticed(monkeypatch, pairs_up_to, where):
    """Mutants of our own function: a scale off by 0.1 %, in the kernel's output alone or in one way to replace rows."""
    right = admission.causeway_attention

    def wrong(*args, supervision=None, scaling=None, **kwargs):
        way = supervision.pairs_up_to if supervision else None
        return right(
            *args, supervision=supervision, scaling=scaling * 1.001 if way == pairs_up_to else scaling, **kwargs
        )

    monkeypatch.setattr(admission, "causeway_attention", wrong)
    with pytest.raises(ModelNotSupported, match=where):
        check_attention(build(ADMITTED["llama"]))


def test_a_lost_padding_mask_would_be_noticed(monkeypatch):
    """What happens when only the attention function is registered: the mask arrives as None."""
    right = admission.causeway_attention
    monkeypatch.setattr(admission, "causeway_attention", lambda m, q, k, v, mask, **kw: right(m, q, k, v, None, **kw))
    with pytest.raises(ModelNotSupported, match="does more than ours"):
        check_attention(build(ADMITTED["llama"]))


def test_the_global_generator_is_left_alone():
    model = build(ADMITTED["llama"])
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    check_attention(model)
    assert torch.equal(torch.rand(4), expected)
