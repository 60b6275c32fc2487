"""May a base model be tuned with our attention, and packed? Decided by what the model does, never by its name.

Registering an attention function is not enough to be right: a model may never call it, or may hand it only part of its
arithmetic (gpt_oss loses its sinks so, silently). So the model answers one left-padded batch with its own eager
attention and with ours, and is refused unless both agree.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from core.errors import ModelNotSupported
from trainer.attention import RowStatistics, Supervision, causeway_attention
from trainer.cells import Cells
from trainer.memory import is_out_of_memory
from trainer.precision import in_fp32

_NAME = "causeway_admission"
_LENGTH = 24  # tokens of the longer text
_PADDING = 5  # tokens to the left of the shorter one
_LONGEST_WINDOW = 512  # a sliding window up to here is made to slide

# Largest difference of two logits, as a share of the largest logit.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-3}


def check_attention(model: PreTrainedModel) -> None:
    """Refuse a model that `trainer.attention` would be wrong on. The model comes back as it was.

    It is checked in fp32 where it fits so, whatever its weights are held in: in bf16, right ones differ by a tenth too.

    Raises
    ------
    ModelNotSupported
        What stands later changes what the model makes of what stands before. Our function did not run exactly once per
        attention layer, its logits differ from those of eager attention (for the kernel's output or for rows that are
        replaced; padded and not), the model raised with it, or attention dropout is above 0.
    """
    before = model.config._attn_implementation  # noqa: SLF001 - there is no getter
    AttentionInterface.register(_NAME, _witnessed)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    try:
        with in_fp32(model), _trial(model, "it does not run with replaced attention", "cat"):
            ids, seen = _left_padded(model)
            _require_causal(model, ids)
            for mask in (seen, None):
                _compare(model, ids, mask)
            _require_no_dropout(model, ids)
    finally:
        model.set_attn_implementation(before)


def check_packing(model: PreTrainedModel, *, supervised: bool) -> None:
    """Refuse a model in which examples that share a row would not be on their own. The model comes back as it was.

    Two texts of different lengths, longer than a sliding window where that can be, go through it one by one and, in
    both orders, behind one another in a row of which only the positions tell where the second begins.

    Parameters
    ----------
    supervised
        Compare rows that are recomputed too; the model's attention has to be ours.

    Raises
    ------
    ModelNotSupported
        Logits differ, or the model raised.
    """
    with in_fp32(model), _trial(model, "it does not run with several examples in a row", "packing"):
        model.train(mode=False)
        ids = _ids(model, 2)
        first, second = ids[:1], ids[1:, _PADDING:]
        alone = [model(input_ids=ids, use_cache=False).logits[0].float() for ids in (first, second)]
        packed = torch.cat([torch.cat([first, second], 1), torch.cat([second, first], 1)])  # (2, T)
        wanted = torch.stack([torch.cat(alone), torch.cat(alone[::-1])])  # (2, T, V)
        steps = [torch.arange(ids.shape[1], device=model.device) for ids in (first, second)]
        positions = torch.stack([torch.cat(steps), torch.cat(steps[::-1])])
        trials: list[tuple[str, dict[str, Any]]] = [("its output", {})]
        if supervised:
            trials += [(how, {"supervision": rows}) for how, rows in _everything(torch.ones_like(packed)).items()]
        for how, asked in trials:
            logits = model(input_ids=packed, position_ids=positions, use_cache=False, **asked).logits.float()
            told = f"examples that share a row are not on their own: for {how}"
            _require_equal(model, wanted, logits, told, "packing")


@contextmanager
def _trial(model: PreTrainedModel, failure: str, what: str) -> Iterator[None]:
    """Run the model for `what` without a trace: no gradients or draws, its mode restored. `failure`: that it raised."""
    training = model.training
    try:
        with torch.inference_mode(), torch.random.fork_rng():
            yield
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError) as exc:
        if is_out_of_memory(exc):
            raise
        raise _refused(model, f"{failure} ({exc})", what) from exc
    finally:
        model.train(training)


@dataclass(slots=True)
class _Witness:
    """Which attention modules called our function, in order, and the dropout they asked for."""

    callers: list[int] = field(default_factory=list)
    dropout: float = 0.0


def _require_causal(model: PreTrainedModel, ids: Tensor) -> None:
    model.train(mode=False)
    model.set_attn_implementation("eager")
    other = torch.cat([ids[:, :-1], ids[:, -1:].roll(1, 0)], 1)  # the texts with one another's last tokens
    before, after = (_logits(model, texts, None)[:, :-1] for texts in (ids, other))
    _require_equal(model, before, after, "its attention looks ahead, as no decoder's does: with another last token")


def _compare(model: PreTrainedModel, ids: Tensor, mask: Tensor | None) -> None:
    layers = _attention_layers(model)
    seen = torch.ones_like(ids) if mask is None else mask
    model.train(mode=False)
    model.set_attn_implementation("eager")
    native = _logits(model, ids, mask)
    model.set_attn_implementation(_NAME)
    for how, supervision in (("its output", None), *_everything(seen).items()):
        witness = _Witness()
        ours = _logits(model, ids, mask, witness=witness, supervision=supervision)
        if len(witness.callers) != layers or len(set(witness.callers)) != layers:
            raise _refused(
                model, f"{len(witness.callers)} calls reached our attention, one in each of {layers} is needed"
            )
        told = f"its own attention does more than ours: for {how}"
        _require_equal(model, native[seen.bool()], ours[seen.bool()], told)


def _require_no_dropout(model: PreTrainedModel, ids: Tensor) -> None:
    model.train()
    witness = _Witness()
    _logits(model, ids, None, witness=witness)
    if witness.dropout > 0:
        raise _refused(model, f"attention dropout is {witness.dropout}; set it to 0 in the base model's config")


def _everything(seen: Tensor) -> dict[str, Supervision]:
    """Every row of a batch replaced, each seeing all it sees anyway, both ways. `seen` (B, T) is 0 on padding."""
    index = torch.arange(seen.shape[1], device=seen.device).expand_as(seen)
    everywhere = seen.bool()[..., None].expand(-1, -1, seen.shape[1])  # (B, T, T)
    example, row, column = everywhere.nonzero(as_tuple=True)
    allowed = Cells(example * seen.shape[1] + row, column)
    ways = {"recomputed rows": 0.0, "rows summed pair by pair": 1.0}
    return {
        how: Supervision(index, allowed, guided=True, pairs_up_to=share, pairs_a_token=math.inf)
        for how, share in ways.items()
    }


def _require_equal(model: PreTrainedModel, native: Tensor, ours: Tensor, told: str, what: str = "cat") -> None:
    difference = float((native - ours).abs().max() / native.abs().max())
    tolerance = TOLERANCE[model.dtype]
    if not difference <= tolerance:  # a NaN is refused too
        raise _refused(
            model,
            f"{told} logits differ by {difference:.1e} of the largest, {tolerance:.0e} is allowed",
            what,
        )


def _witnessed(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    witness: _Witness | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, RowStatistics | None]:
    if witness is None:
        raise TypeError("it does not hand on to its attention what it is called with")
    witness.callers.append(id(module))
    witness.dropout = max(witness.dropout, dropout)
    return causeway_attention(module, query, key, value, attention_mask, dropout=dropout, **kwargs)


def _logits(model: PreTrainedModel, ids: Tensor, mask: Tensor | None, **kwargs: Any) -> Tensor:
    logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False, **kwargs).logits
    return logits.float()


def _attention_layers(model: PreTrainedModel) -> int:
    """How many layers attend: of models that mix, some convolve, scan, or attend in a linear way without a softmax."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["attention"] * config.num_hidden_layers
    return sum("attention" in kind and "linear" not in kind for kind in kinds)


def _left_padded(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """(2, T) token ids and attention mask; the second text is shorter and padded on the left."""
    ids = _ids(model, 2)
    seen = torch.ones_like(ids)
    seen[1, :_PADDING] = 0
    return ids, seen


def _ids(model: PreTrainedModel, texts: int) -> Tensor:
    """(texts, T) token ids, longer than a sliding window that is not too wide."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    length = max(_LENGTH, window + 2 * _PADDING) if window <= _LONGEST_WINDOW else _LENGTH
    # Spread over the vocabulary, all different in a small one too: 7919 is a prime.
    ids: Tensor = torch.arange(1, texts * length + 1, device=model.device) * 7919 % config.vocab_size
    return ids.view(texts, length)


def _refused(model: PreTrainedModel, reason: str, what: str = "cat") -> ModelNotSupported:
    return ModelNotSupported(
        f"{type(model).__name__} is not supported by {what}: {reason}", model=type(model).__name__, reason=reason
    )
