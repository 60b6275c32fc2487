"""The admission check, on families built from config alone: who is let in, who is refused, and why."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from core.errors import ModelNotSupported
from trainer import admission
from trainer.admission import check_attention

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
    config = GptOssConfig(
        **_SMALL, **_SLIDING, head_dim=8, num_local_experts=2, num_experts_per_tok=1,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    with pytest.raises(ModelNotSupported, match="does more than ours"):
        check_attention(build(config))


def test_mpt_is_refused_because_it_never_calls_us():
    config = MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=97, max_seq_len=128)
    with pytest.raises(ModelNotSupported, match="0 calls reached our attention"):
        check_attention(build(config))


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
    """Mutants of our own function: a scale off by 1 %, in the kernel's output alone or in one way of replacing rows."""
    right = admission.causeway_attention

    def wrong(*args, supervision=None, scaling=None, **kwargs):
        way = supervision.pairs_up_to if supervision else None
        return right(
            *args, supervision=supervision, scaling=scaling * 1.01 if way == pairs_up_to else scaling, **kwargs
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
