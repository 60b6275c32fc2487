"""The run folder that the worker writes and the trainer reads, and the events that come back.

RUN_DIR/
    config.json       RunConfig as JSON (run_to_json / run_from_json)
    train.jsonl       one example a line: {"id", "input", "target", "choices", "relations"}, see example_to_json
    eval/SPLIT.jsonl  the same, one file a split; never trained on
    events.jsonl      appended by the trainer, one JSON object a line: {"type": ..., "at": unix seconds, ...}
    checkpoints/      the trainer's own
    encoded.safetensors  the training split as tokens, the trainer's own; made anew where it is missing or of other data
    adapter/          the finished adapter: present and whole only after the `finished` event; not with tuning "full"
    merged/           with `merge`: the base model with the adapter in it, a model folder like any other
    model/            with tuning "full": the trained model
    run.lock          held by the trainer that is at work here, however it was started; another one refuses to begin

Events: `plan` (Plan), `step` (StepMetrics), `evaluation` (split, step, metrics), `checkpoint` (step), `warning` (code,
message), `finished` (TrainingResult), `failed` (code, message, facts), `stopped`. The process exits with one of EXIT_.
torchrun makes 1 of any code but 0: there `stopped` tells what EXIT_INTERRUPTED would have.
"""

from dataclasses import asdict, dataclass
from typing import Any

from core.domain.annotation import Example
from core.domain.relations import relation_from_json, relation_to_json
from core.domain.training import TrainingConfig, training_from_json
from core.errors import InvalidInput

EXIT_FINISHED = 0
EXIT_FAILED = 1  # a `failed` event says why
EXIT_DISK_FULL = 74  # failed, and the disk did not take the event that says so
EXIT_INTERRUPTED = 75  # SIGTERM: a checkpoint was saved, the run can be resumed


@dataclass(frozen=True, slots=True)
class BaseModelSpec:
    """A base model by the name users know, where it really is, and at which revision."""

    name: str  # as named in settings, e.g. "builtin:small"
    source: str  # "builtin:small", a local folder, or a hub id
    revision: str | None = None  # of a hub id: a branch, tag or commit


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The whole of config.json."""

    base: BaseModelSpec
    training: TrainingConfig
    data_sha256: str = ""  # of the pinned labels, for the model card
    run_id: str = ""  # the job's id, for the model card


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, known before its first step."""

    examples: int
    tokens: int  # of one epoch, padding excluded
    supervised_rows: int  # attention rows with at least one allowed column, one epoch; 0 for sft
    steps: int  # optimiser steps of the whole run
    longest: int  # tokens, of all examples, as the quantiles below
    length_p50: int = 0
    length_p90: int = 0
    unsupervised_examples: int = 0  # examples without a supervised row, trained on the token loss alone
    dropped_examples: int = 0  # over max_length
    cut_effects: int = 0
    cut_causes: int = 0
    memory_bytes: int | None = (
        None  # measured by `--plan` alone: peak of the process, of the accelerator if there is one
    )
    seconds_per_step: float | None = None  # the same: of an optimiser step of the costliest kind, evaluations excluded


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One `step` event: means since the previous one."""

    step: int
    steps: int
    epoch: float
    loss: float
    token_loss: float  # nats per target token
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    eta_seconds: float
    attention_loss: float | None = None  # before gamma
    mass: float | None = None  # mean attention mass on allowed columns over supervised rows, layers, heads
    gamma: float | None = None
    guided: float | None = None  # share of steps with guided masking
    supervised_rows: int = 0
    hidden_rows: int = 0  # of these, rows to which every layer's window or `exclude` hides all allowed columns: no loss
    mass_p10: float | None = None  # quantiles, to 0.001, of the rows' mean masses over layers and heads
    mass_p50: float | None = None
    mass_p90: float | None = None
    ratio: float | None = None  # mean a1 over mean a0: attention on an allowed and on another visible column
    memory_bytes: int = 0  # peak of the leading process so far: of the accelerator if there is one, else resident
    padding: float = 0.0  # share of the batches' positions that held no token


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The `finished` event."""

    steps: int
    seconds: float
    adapter_sha256: str  # of adapter_model.safetensors; "" with tuning "full"
    metrics: dict[str, dict[str, float]]  # split -> {"accuracy", "balanced_accuracy", "majority", ...}
    model_sha256: str = ""  # of the manifest.json of merged/ or model/, which has those of all files
    best_step: int | None = None  # after which the exported weights were made, where `best_metric` chose them


def run_to_json(run: RunConfig) -> dict[str, Any]:
    """RunConfig as JSON, every default written out, so that a run folder explains itself."""
    return asdict(run)


def run_from_json(value: dict[str, Any]) -> RunConfig:
    """Inverse of run_to_json. Unknown or ill-typed fields raise InvalidInput naming the field."""
    _check_object(value, "config.json", {"base": dict, "training": dict, "data_sha256": str, "run_id": str})
    base = value.get("base")
    if base is None or not base.get("source"):
        raise InvalidInput('config.json needs "base": {"name", "source"}', field="base")
    _check_object(base, "base", {"name": str, "source": str, "revision": str | None})
    return RunConfig(
        base=BaseModelSpec(base.get("name") or base["source"], base["source"], base.get("revision")),
        training=training_from_json(value.get("training", {})),
        data_sha256=value.get("data_sha256", ""),
        run_id=value.get("run_id", ""),
    )


def _check_object(value: dict[str, Any], where: str, known: dict[str, Any]) -> None:
    """Raise InvalidInput naming a field of `value` that is none of those `known`, or not of its type."""
    for name, raw in value.items():
        field = name if where == "config.json" else f"{where}.{name}"
        if name not in known:
            raise InvalidInput(f"unknown field {field} in config.json; it has {', '.join(known)}", field=field)
        if not isinstance(raw, known[name]):
            wanted = {dict: "an object"}.get(known[name], "text")
            raise InvalidInput(f"{field} in config.json must be {wanted}", field=field)


def example_to_json(example: Example) -> dict[str, Any]:
    """One line of train.jsonl."""
    return {
        "id": example.id,
        "input": example.input,
        "target": example.target,
        "choices": list(example.choices),
        "relations": [relation_to_json(r) for r in example.relations],
    }


def example_from_json(value: dict[str, Any]) -> Example:
    """Inverse of example_to_json. `choices` and `relations` may be missing; spans are checked against the text."""
    try:
        example = Example(
            input=value["input"],
            target=value["target"],
            id=str(value.get("id", "")),
            choices=tuple(value.get("choices") or ()),
            relations=tuple(relation_from_json(r) for r in value.get("relations") or ()),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise InvalidInput(f"not an example: {exc!r}") from exc
    for name in ("input", "target"):
        if not isinstance(getattr(example, name), str):
            raise InvalidInput(f"{name} must be text", field=name)
    for relation in example.relations:
        relation.check_against(example.text)
    return example
