"""What a fine-tuning run is asked to do: method, attention objective, optimisation, LoRA."""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from core.domain.ranges import check_ranges, setting
from core.errors import InvalidInput


class Method(StrEnum):
    """What the run optimises."""

    SFT = "sft"  # next-token loss on the target only
    CAT = "cat"  # the same plus the attention objective


class Preset(StrEnum):
    """A named attention objective, see trainer/objective.py."""

    CAUSEWAY = "causeway"  # closure rows, per-head log-mass, guided masking
    PAPER = "paper"  # hinge on the mean over heads and layers, effect rows


class Form(StrEnum):
    """What is done with the attention mass of a supervised row. Formulas in trainer/loss.py."""

    HINGE = "hinge"
    DIV = "div"
    DIV2 = "div2"
    NLL = "nll"
    LOG_MASS = "log_mass"


class Aggregate(StrEnum):
    """Over what the mass is averaged before the form is applied."""

    MEAN = "mean"  # heads and layers first, as in the paper
    EACH = "each"  # the form is applied per layer and head, then averaged


class Rows(StrEnum):
    """Which positions are supervised."""

    EFFECTS = "effects"  # those that predict a token of an effect
    ANSWER = "answer"  # those that predict a token of an effect inside the target
    CLOSURE = "closure"  # effects, and cause tokens, which may attend only within their own phrase and its causes


class Exclude(StrEnum):
    """Which column of a supervised row the attention loss leaves alone: neither asked for nor counted against."""

    NONE = "none"
    SINK = "sink"  # the first column the row sees, where many models park attention they have no use for
    SELF = "self"  # the row's own column


class Tuning(StrEnum):
    """Which weights are trained."""

    LORA = "lora"  # low-rank adapters on a frozen base
    QLORA = "qlora"  # the same on a base held in 4 bits (arXiv 2305.14314); needs the extra `qlora`
    FULL = "full"  # all of them: the run ends in a whole model, and there is no adapter


class Sharding(StrEnum):
    """What the processes of a run that trains on several GPUs hold of the model."""

    NONE = "none"  # each all of it (DDP)
    FSDP = "fsdp"  # each a share of every weight, gradient and moment; one process alone holds it all anyway


class Overflow(StrEnum):
    """What to do with an example whose effect or cause the maximum length would cut off."""

    REFUSE = "refuse"  # the run fails with effect_cut_off before its first step
    DROP = "drop"  # the example is left out, counted in the plan and warned about, up to `overflow_limit` of them


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """The attention objective of CAT. Schedules are in fractions of the run's optimiser steps."""

    form: Form = setting(Form.LOG_MASS, "loss of a supervised row")
    aggregate: Aggregate = setting(Aggregate.EACH, "mean over heads and layers first, or each on its own")
    rows: Rows = setting(Rows.CLOSURE, "which rows are supervised")
    layers_from: float = setting(0.0, "first of the supervised layers", unit="fraction of depth", low=0, high=1)
    layers_to: float = setting(1.0, "end of the supervised layers", unit="fraction of depth", low=0, high=1)
    exclude: Exclude = setting(Exclude.NONE, "a column that the attention loss leaves alone: none, sink or self")
    alpha: float = setting(2.0, "ratio a1 / a0 above which hinge, div, div2 and nll are satisfied", low=0, high=100)
    gamma: float = setting(0.1, "weight of the attention loss once it is up", low=0, high=100)
    gamma_from: float = setting(0.15, "gamma is 0 before", unit="fraction of steps", low=0, high=1)
    gamma_full: float = setting(0.35, "gamma is at its value after", unit="fraction of steps", low=0, high=1)
    guide_until: float = setting(0.3, "guided masking is certain before", unit="fraction of steps", low=0, high=1)
    guide_end: float = setting(0.7, "guided masking never happens after", unit="fraction of steps", low=0, high=1)

    def __post_init__(self) -> None:
        check_ranges(self, "objective")
        ordered = (("gamma_from", "gamma_full"), ("guide_until", "guide_end"), ("layers_from", "layers_to"))
        for first, second in ordered:
            if getattr(self, first) > getattr(self, second):
                raise InvalidInput(f"objective.{first} must not be above {second}", field=f"objective.{first}")


PRESETS: dict[Preset, ObjectiveConfig] = {
    Preset.CAUSEWAY: ObjectiveConfig(),
    Preset.PAPER: ObjectiveConfig(
        form=Form.HINGE,
        aggregate=Aggregate.MEAN,
        rows=Rows.EFFECTS,
        gamma=1.0,
        gamma_from=0.0,
        gamma_full=0.0,
        guide_until=0.0,
        guide_end=0.0,
    ),
}


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that shapes the weights of a run, apart from data and base model."""

    method: Method = setting(Method.CAT, "sft or cat")
    preset: Preset = setting(Preset.CAUSEWAY, "which attention objective; ignored by sft")
    objective: ObjectiveConfig | None = setting(None, "overrides the preset as a whole")
    epochs: int = setting(3, "passes over the training split", unit="epochs", low=1, high=1000)
    learning_rate: float = setting(1e-3, "peak, after warm-up", low=0, high=1)
    batch_size: int = setting(16, "examples per forward pass", unit="examples", low=1, high=1024)
    gradient_accumulation: int = setting(1, "forward passes per optimiser step", low=1, high=1024)
    warmup_ratio: float = setting(0.03, "share of steps with rising rate", unit="fraction of steps", low=0, high=1)
    weight_decay: float = setting(0.0, "AdamW", low=0, high=1)
    max_grad_norm: float = setting(1.0, "gradient clipping", low=0, high=1000)
    max_length: int = setting(512, "of input and target together", unit="tokens", low=8, high=131_072)
    packing: bool = setting(False, "examples of a forward pass share rows of up to max_length, to save padding")
    overflow: Overflow = setting(Overflow.REFUSE, "when max_length would cut an effect or a cause")
    overflow_limit: float = setting(
        0.1,
        "most that overflow drop may leave out; above it the run is refused",
        unit="share of examples",
        low=0,
        high=1,
    )
    tuning: Tuning = setting(Tuning.LORA, "which weights are trained")
    sharding: Sharding = setting(Sharding.NONE, "what each of several processes holds of the model; not with qlora")
    merge: bool = setting(False, "also export the base model with the adapter merged into it; lora only")
    lora_rank: int = setting(16, "LoRA r", low=1, high=512)
    lora_alpha: int = setting(32, "LoRA alpha", low=1, high=4096)
    lora_dropout: float = setting(0.0, "LoRA dropout", low=0, high=0.9)
    lora_rslora: bool = setting(False, "scale the adapter by alpha / sqrt(r), not alpha / r: for high ranks")
    lora_targets: str = setting("all-linear", "module names, comma-separated, or all-linear")
    seed: int = setting(0, "of data order, LoRA initialisation, dropout and guided masking", low=0, high=2**31 - 1)
    precision: str = setting("auto", "auto (bf16 on a GPU that has it, else fp32), fp32 or bf16")
    activation_checkpointing: bool = setting(False, "recompute activations in backward to save memory")
    chat_template: bool = setting(False, "wrap input and target in the tokenizer's chat template")
    log_every: int = setting(10, "steps between `step` events", unit="steps", low=1, high=10_000)
    checkpoint_every: int = setting(200, "steps between checkpoints", unit="steps", low=1, high=1_000_000)
    evaluate_every: int = setting(
        0, "steps between evaluations of all splits; 0: only after the last", unit="steps", low=0, high=1_000_000
    )
    best_metric: str = setting(
        "", "SPLIT.accuracy or SPLIT.balanced_accuracy: export the weights that were best by it, not the last"
    )
    patience: int = setting(
        0, "stop after so many evaluations without a better one; 0: never", unit="evaluations", low=0, high=10_000
    )

    def __post_init__(self) -> None:
        check_ranges(self, "config")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise InvalidInput("config.precision must be auto, fp32 or bf16", field="config.precision")
        if self.merge and self.tuning is not Tuning.LORA:
            raise InvalidInput(f"config.merge does not go with tuning {self.tuning}", field="config.merge")
        if self.sharding is not Sharding.NONE and self.tuning is Tuning.QLORA:
            raise InvalidInput("config.sharding does not go with tuning qlora", field="config.sharding")
        _check_selection(self)

    @property
    def attention(self) -> ObjectiveConfig | None:
        """The attention objective in force, None for sft."""
        if self.method is Method.SFT:
            return None
        return self.objective or PRESETS[self.preset]


def _check_selection(config: TrainingConfig) -> None:
    split, _, metric = config.best_metric.rpartition(".")
    if config.best_metric and not (split and metric in ("accuracy", "balanced_accuracy")):
        raise InvalidInput(
            "config.best_metric must be SPLIT.accuracy or SPLIT.balanced_accuracy", field="config.best_metric"
        )
    if config.best_metric and not config.evaluate_every:
        raise InvalidInput("config.best_metric needs evaluate_every above 0", field="config.evaluate_every")
    if config.patience and not config.best_metric:
        raise InvalidInput("config.patience needs a best_metric to judge by", field="config.patience")


def with_method(config: TrainingConfig, method: Method) -> TrainingConfig:
    """The same run with another method: what two runs must differ in to be compared."""
    return replace(config, method=method)


def training_from_json(value: dict[str, Any]) -> TrainingConfig:
    """A TrainingConfig from a JSON object in which every field is optional."""
    config: TrainingConfig = _from_json(TrainingConfig, value, "config")
    return config


_ENUMS: dict[str, type[StrEnum]] = {
    "method": Method,
    "preset": Preset,
    "form": Form,
    "aggregate": Aggregate,
    "rows": Rows,
    "exclude": Exclude,
    "overflow": Overflow,
    "tuning": Tuning,
    "sharding": Sharding,
}


def _from_json(kind: Any, value: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    read: dict[str, Any] = {}
    for name, raw in value.items():
        if name not in known:
            raise InvalidInput(f"unknown field {where}.{name}", field=f"{where}.{name}")
        if name == "objective" and isinstance(raw, dict):
            read[name] = _from_json(ObjectiveConfig, raw, "objective")
        elif name in _ENUMS:
            read[name] = _enum_of(_ENUMS[name], raw, f"{where}.{name}")
        else:
            read[name] = _typed(raw, known[name].default, f"{where}.{name}")
    return kind(**read)


def _enum_of(kind: type[StrEnum], raw: Any, where: str) -> StrEnum:
    try:
        return kind(raw)
    except ValueError as exc:
        raise InvalidInput(f"{where} must be one of {', '.join(kind)}, got {raw!r}", field=where) from exc


def _typed(raw: Any, default: Any, where: str) -> Any:
    """`raw` in the type of the default; a whole number is a fine float, a bool is not a number."""
    if default is None:
        if raw is None:
            return None
        raise InvalidInput(f"{where} must be an object", field=where)
    wanted = type(default)
    if wanted is float and type(raw) is int:
        try:
            return float(raw)
        except OverflowError as exc:
            raise InvalidInput(f"{where} is too large a number", field=where) from exc
    if type(raw) is not wanted:
        raise InvalidInput(f"{where} must be a {wanted.__name__}, got {type(raw).__name__}", field=where)
    return raw
