"""Who is measured: ways to fine-tune the same model on the same batch, each a transformers.Trainer ready to run."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from transformers import Trainer

from benchmarks.speed.full_maps import FullMaps, MapLoss, looped_hinge, vectorised_hinge
from benchmarks.speed.scene import BATCH, PAD, Scene, base_model, examples, without_rows
from core.domain.training import PRESETS, Method, ObjectiveConfig, Preset, TrainingConfig
from core.errors import ExtraMissing
from trainer import attention
from trainer.encoding import Encoded
from trainer.events import EventLog
from trainer.model import add_lora
from trainer.tuner import Tuner

GUIDED = ObjectiveConfig(gamma_from=0.0, gamma_full=0.0, guide_until=1.0, guide_end=1.0)
UNGUIDED = ObjectiveConfig(gamma_from=0.0, gamma_full=0.0, guide_until=0.0, guide_end=0.0)
PAPER = PRESETS[Preset.PAPER]


class Contestant(StrEnum):
    """In the order of the table."""

    SFT = "sft"  # (a) plain fine-tuning, SDPA, through our trainer
    SFT_AGAIN = "sft_again"  # (a) once more: how far two equal things differ
    TRL = "trl"  # (e)
    CAT = "cat"  # (b) guided masking on every step
    CAT_UNGUIDED = "cat_unguided"
    EAGER = "eager"  # (c) full maps, vectorised loss
    PUBLISHED = "published"  # (d) full maps, a Python loop over rows

    @property
    def has_rows(self) -> bool:
        """Whether its cost depends on how many rows are supervised."""
        return self not in (Contestant.SFT, Contestant.SFT_AGAIN, Contestant.TRL)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a contestant is built from."""

    scene: Scene
    steps: int  # that can be made, at most
    folder: Path
    device: torch.device


def build(contestant: Contestant, setting: Setting) -> Trainer:
    """A trainer of the contestant's kind, with fresh weights that are the same for all.

    Raises
    ------
    ExtraMissing
        trl, without the extra `benchmarks`.
    """
    with torch.random.fork_rng(devices=[]):  # Trainer seeds the global generator
        return _BUILDERS[contestant](setting)


def ours(setting: Setting, *, method: Method, objective: ObjectiveConfig | None = None) -> Trainer:
    """Our own loop: plain fine-tuning, or cat with an objective."""
    scene, cat = setting.scene, method is Method.CAT
    if cat:
        attention.register()
    model = base_model(scene.scale, attention=attention.NAME if cat else "sdpa", device=setting.device)
    config = _config(scene, method=method, objective=objective)
    encoded = _data(setting)
    setting.folder.mkdir(parents=True, exist_ok=True)
    return Tuner(
        add_lora(model, config),
        _Padding(),  # type: ignore[arg-type]  # all that the loop asks of a tokenizer
        encoded if cat else [without_rows(e) for e in encoded],
        config=config,
        folder=setting.folder / "checkpoints",
        events=EventLog(setting.folder / "events.jsonl"),
        should_stop=lambda: False,
    )


def with_full_maps(setting: Setting, *, loss: MapLoss, objective: ObjectiveConfig = PAPER) -> Trainer:
    """Eager attention, all maps kept."""
    scene = setting.scene
    config = _config(scene, method=Method.CAT, objective=objective)
    model = add_lora(base_model(scene.scale, attention="eager", device=setting.device), config)
    return FullMaps(
        model, _data(setting), config=config, objective=objective, loss=loss, pad=PAD, folder=setting.folder
    )


def trl_installed() -> bool:
    """Whether the contestant trl can take part."""
    try:
        _load_trl()
    except ExtraMissing:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Padding:
    pad_token_id: int = PAD


def _load_trl() -> Callable[..., Trainer]:
    """The one late import of this package, for the extra `benchmarks`."""
    try:
        from benchmarks.speed.with_trl import trl_trainer  # noqa: PLC0415
    except ImportError as exc:
        raise ExtraMissing('trl is not installed: pip install -e ".[trainer,benchmarks]"', extra="benchmarks") from exc
    return trl_trainer


def _trl(setting: Setting) -> Trainer:
    config = _config(setting.scene, method=Method.SFT)
    model = add_lora(base_model(setting.scene.scale, attention="sdpa", device=setting.device), config)
    return _load_trl()(model, _data(setting), config=config, pad=PAD, folder=setting.folder)


def _config(scene: Scene, *, method: Method, objective: ObjectiveConfig | None = None) -> TrainingConfig:
    return TrainingConfig(
        method=method,
        objective=objective,
        epochs=1,
        batch_size=BATCH,
        lora_rank=scene.scale.lora_rank,
        lora_alpha=2 * scene.scale.lora_rank,
        activation_checkpointing=scene.checkpointing,
        log_every=10_000,
        checkpoint_every=1_000_000,
    )


def _data(setting: Setting) -> list[Encoded]:
    """Enough for one step more than asked for: the last of a run also saves a checkpoint."""
    return examples(setting.scene, BATCH * (setting.steps + 1))


_Builder: TypeAlias = Callable[[Setting], Trainer]
_BUILDERS: dict[Contestant, _Builder] = {
    Contestant.SFT: partial(ours, method=Method.SFT),
    Contestant.SFT_AGAIN: partial(ours, method=Method.SFT),
    Contestant.TRL: _trl,
    Contestant.CAT: partial(ours, method=Method.CAT, objective=GUIDED),
    Contestant.CAT_UNGUIDED: partial(ours, method=Method.CAT, objective=UNGUIDED),
    Contestant.EAGER: partial(with_full_maps, loss=vectorised_hinge),
    Contestant.PUBLISHED: partial(with_full_maps, loss=looped_hinge),
}
