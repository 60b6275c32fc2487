"""Loading a base model by name, and putting LoRA on it."""

import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from core.domain.run_folder import BaseModelSpec
from core.domain.training import TrainingConfig, Tuning
from core.errors import ExtraMissing, InvalidInput
from trainer.base_files import load, locate, unavailable

_NAMED = 3  # weights in a message


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model in evaluation mode, its fast tokenizer, and exactly which version they are."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str | None  # commit of a hub id, digest of builtin:small, None for a local folder
    unexpected: frozenset[str] = frozenset()  # weights in its files that the model has no place for, as of other heads


def load_base(
    spec: BaseModelSpec, *, precision: str = "auto", attention: str | None = None, four_bit: bool = False
) -> LoadedBase:
    """Load `builtin:small`, a local folder or a hub id. No remote code, no pickled weights.

    Parameters
    ----------
    precision
        "fp32", "bf16", or "auto": bf16 on a GPU that has it, else fp32.
    attention
        Name of the attention implementation; None for the model's own default.
    four_bit
        Hold the linear layers in 4 bits (NF4, double quantisation, as in QLoRA, arXiv 2305.14314).

    Raises
    ------
    ExtraMissing
        4 bits without the extra `qlora`.
    BaseModelMissing, BaseModelUnknown, BaseModelGated, HubUnreachable
        As locate.
    BaseModelUnavailable
        What is there is not a causal language model with safetensors weights and a fast tokenizer; or its files lack
        some of the model's weights, or have them in another shape.
    DiskFull
        There is no space for what is downloaded or, of builtin:small, made.
    """
    folder, revision = locate(spec)
    tokenizer = load(spec, lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    if not tokenizer.is_fast:
        raise unavailable(spec, "its tokenizer is a slow one, without offsets; convert it to a tokenizer.json")
    _ensure_padding(spec, tokenizer)
    device = _device()
    model, report = load(
        spec,
        lambda: AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype_of(precision),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            quantization_config=_four_bits(dtype_of(precision)) if four_bit else None,
            device_map={"": device} if four_bit else None,  # quantised while it is loaded, and never moved
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported like what is missing, where it would be a bare RuntimeError
        ),
    )
    _require_whole(spec, report)
    if four_bit:
        _keep_gradients(model)
    else:
        model = model.to(device)
    return LoadedBase(model.eval(), tokenizer, revision, frozenset(report["unexpected_keys"]))


def a_few(names: Collection[str]) -> str:
    """The first three names, and how many more there are."""
    listed = ", ".join(sorted(names)[:_NAMED])
    return f"{listed} and {len(names) - _NAMED} more" if len(names) > _NAMED else listed


def dtype_of(precision: str) -> torch.dtype:
    """What a run of this precision computes in on this machine."""
    if precision == "auto":
        return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def weights_precision(config: TrainingConfig) -> str:
    """The precision that the base's weights are held in.

    Fp32 where all of them are trained, whatever is computed in: bf16 has 8 bits, so a step smaller than 1/256 of a
    weight would be lost (mixed precision training, arXiv 1710.03740). An adapter's own weights are always fp32.
    """
    return "fp32" if config.tuning is Tuning.FULL else config.precision


def make_trainable(model: PreTrainedModel, config: TrainingConfig) -> PreTrainedModel | PeftModel:
    """Mark what `config.tuning` trains: a fresh LoRA adapter, or every weight. Raises as add_lora does."""
    if config.tuning is Tuning.FULL:
        return model.requires_grad_(requires_grad=True)
    if config.tuning is Tuning.QLORA:
        # Norms and other small weights in fp32. Trainer turns activation checkpointing on, not this.
        prepare: Callable[..., PreTrainedModel] = prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=False)
    return add_lora(model, config)


def add_lora(model: PreTrainedModel, config: TrainingConfig) -> PeftModel:
    """Put a fresh LoRA adapter on `model`; every other parameter is frozen.

    A is drawn from `config.seed` alone, whatever the state of the global generator, and B is zero. No bias, no DoRA, no
    whole modules are saved: what vLLM would refuse.

    Raises
    ------
    InvalidInput
        When `config.lora_targets` names a module that the model does not have.
    """
    names = [name.strip() for name in config.lora_targets.split(",") if name.strip()]
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_rslora=config.lora_rslora,  # arXiv 2312.03732
        target_modules="all-linear" if names == ["all-linear"] else names,
        bias="none",
        use_dora=False,
    )
    for name in names if names != ["all-linear"] else ():
        if not any(module == name or module.endswith(f".{name}") for module, _ in model.named_modules()):
            raise InvalidInput(f"the base model has no module named {name!r}", field="config.lora_targets")
    with torch.random.fork_rng(devices=[]), no_false_alarm():
        torch.manual_seed(config.seed)
        return get_peft_model(model, lora)


@contextmanager
def no_false_alarm() -> Iterator[None]:
    """While peft wraps a model: peft 0.21 asks transformers 5.23 for a property by its old name, which warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _require_whole(spec: BaseModelSpec, report: Mapping[str, Any]) -> None:
    """Refuse a model of which transformers 5.23 drew some weights at random: it only logs that it did.

    A weight that is tied to one in the files is not missing.
    """
    if missing := report["missing_keys"]:
        raise unavailable(spec, f"its files lack weights of the model: {a_few(missing)}")
    if reshaped := {name for name, *_ in report["mismatched_keys"]}:
        raise unavailable(spec, f"its files hold weights in another shape than its config says: {a_few(reshaped)}")


def _ensure_padding(spec: BaseModelSpec, tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad with EOS where there is no pad token: attention mask and labels hide it, and embeddings are never resized."""
    if tokenizer.pad_token_id is not None:
        return
    if tokenizer.eos_token_id is None:
        raise unavailable(spec, "its tokenizer has neither a pad nor an EOS token; name one in tokenizer_config.json")
    tokenizer.pad_token = tokenizer.eos_token


def _device() -> torch.device:
    """This process's own: torchrun counts the processes of a machine in LOCAL_RANK."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _four_bits(compute: torch.dtype) -> BitsAndBytesConfig:
    if find_spec("bitsandbytes") is None:
        raise ExtraMissing('tuning "qlora" needs bitsandbytes: pip install -e ".[trainer,qlora]"', extra="qlora")
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def _keep_gradients(model: PreTrainedModel) -> None:
    """Stop bitsandbytes 0.50 from repacking weights on a CPU with AVX512-BF16 at the first forward pass in evaluation
    mode: what goes through repacked weights silently has no gradient."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # no declared attribute
