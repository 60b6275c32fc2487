"""One run from its folder to a finished adapter."""

import gc
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from core.domain.run_folder import Plan, RunConfig, TrainingResult
from core.domain.training import TrainingConfig, Tuning
from core.errors import OutOfMemory
from trainer.admission import check_attention, check_packing
from trainer.attention import enable
from trainer.best import Best
from trainer.checkpoints import newest_checkpoint, remove_newer, step_of
from trainer.encoded_cache import encoded_once
from trainer.events import EventLog
from trainer.examples import read_examples
from trainer.export import export
from trainer.fingerprint import fingerprint_of, require_same
from trainer.memory import within_memory
from trainer.model import LoadedBase, load_base, make_trainable, weights_precision
from trainer.plan import Prepared, announce, prepare, refusal
from trainer.rehearsal import rehearse
from trainer.sharding import is_sharded
from trainer.splits import check_splits, measure
from trainer.state import put_weights, trained_weights
from trainer.tuner import Tuner


def plan(run: RunConfig, folder: Path, events: EventLog) -> Plan:
    """What the run would do, and what its steps cost here. Writes the `plan` event, keeps nothing of what it tried.

    Raises what `train` raises before its first step, and OutOfMemory.
    """
    config = run.training
    while (prepared := within_memory(partial(_rehearsed, run, config, folder, events))) is None:
        config = _halved(config, events)
    announce(prepared, events)
    return prepared.plan


def train(
    run: RunConfig,
    folder: Path,
    events: EventLog,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    reload_check: bool = True,
) -> TrainingResult | None:
    """Run, or go on with, the training of a run folder; see core.domain.run_folder for its files and events.

    sft and cat share everything but the objective: base, adapter's first weights, data order, steps, learning rate.
    Where memory does not hold a step, micro-batches are halved and their number doubled.

    Parameters
    ----------
    should_stop
        Asked after every step, and between the stages after training.
    reload_check
        Whether a fresh process has to find the exported adapter sound before the run counts as finished.

    Returns
    -------
    TrainingResult or None
        None when `should_stop` said yes: a checkpoint was saved and the same call goes on from there. Of several
        processes only the leading one exports; the others' results have no adapter and no metrics.

    Raises
    ------
    CausewayError
        BaseModelUnavailable, ModelNotSupported, InvalidInput, EffectCutOff, NoUsableRelations before the first step;
        CheckpointMismatch, where the folder's checkpoints are another run's. NotFinite, OutOfMemory, DiskFull,
        TrainingFailed later.
    """
    begun = time.monotonic()
    config = run.training
    while (trained := within_memory(partial(_trained, run, config, folder, events, should_stop))) is None:
        config = _halved(config, events)
    if not trained.is_finished or should_stop():
        return None
    if not trained.leads:
        return TrainingResult(trained.steps, time.monotonic() - begun, "", {})
    step = trained.steps if trained.best_step is None else trained.best_step
    metrics = measure(trained.model, trained.base, folder, config, events, step, should_stop)
    if metrics is None or should_stop():
        return None
    exported = export(trained.model, trained.base, folder, run=run, metrics=metrics, reload_check=reload_check)
    result = TrainingResult(
        trained.steps,
        time.monotonic() - begun,
        exported.adapter_sha256,
        metrics,
        exported.model_sha256,
        trained.best_step,
    )
    events.finished(result)
    return result


@dataclass(frozen=True, slots=True)
class _Trained:
    """What the training loop left."""

    base: LoadedBase
    model: PreTrainedModel | PeftModel
    steps: int  # optimiser steps made
    is_finished: bool  # else it was told to stop
    leads: bool  # this process is the one that evaluates and exports
    best_step: int | None = None  # that the weights are of, unless they are the last


def _prepared(run: RunConfig, config: TrainingConfig, folder: Path, events: EventLog) -> tuple[LoadedBase, Prepared]:
    data = folder / "train.jsonl"
    examples = read_examples(data)
    check_splits(folder, config)
    base = _loaded(run, config)
    objective = config.attention
    encoded = encoded_once(
        examples,
        data,
        folder / "encoded.safetensors",
        base.tokenizer,
        max_length=config.max_length,
        rows=objective.rows if objective else None,
        chat_template=config.chat_template,
    )
    prepared = prepare(encoded, config, processes=_processes())
    if refused := refusal(prepared.plan, config):
        events.plan(prepared.plan)  # the numbers that the refusal is about
        raise refused
    return base, prepared


def _loaded(run: RunConfig, config: TrainingConfig) -> LoadedBase:
    return load_base(run.base, precision=weights_precision(config), four_bit=config.tuning is Tuning.QLORA)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun says; known before torch.distributed is up


def _trainable(base: LoadedBase, config: TrainingConfig) -> PreTrainedModel | PeftModel:
    """The base with what will be trained marked, and for cat with our attention."""
    if config.attention:
        check_attention(base.model)
        enable(base.model)
    if config.packing:
        check_packing(base.model, supervised=config.attention is not None)
    return make_trainable(base.model, config)


def _rehearsed(run: RunConfig, config: TrainingConfig, folder: Path, events: EventLog) -> Prepared:
    """The plan with its cost."""
    base, prepared = _prepared(run, config, folder, events)
    cost = rehearse(_trainable(base, config), base.tokenizer, prepared.encoded, config, _processes())
    return replace(prepared, plan=replace(prepared.plan, **asdict(cost)))


def _trained(
    run: RunConfig, config: TrainingConfig, folder: Path, events: EventLog, should_stop: Callable[[], bool]
) -> _Trained:
    """The training loop from the newest checkpoint on, if there is one."""
    base, prepared = _prepared(run, config, folder, events)
    announce(prepared, events)
    fingerprint = fingerprint_of(run, folder, base.revision, processes=_processes())
    checkpoint = newest_checkpoint(folder / "checkpoints")
    if checkpoint:
        require_same(checkpoint, fingerprint)
    model = _trainable(base, config)
    best = Best(config)
    tuner = Tuner(
        model,
        base.tokenizer,
        prepared.encoded,
        config=config,
        folder=folder / "checkpoints",
        events=events,
        should_stop=should_stop,
        measure=partial(measure, model, base, folder, config, events),
        best=best,
        fingerprint=fingerprint,
    )
    leads = tuner.is_world_process_zero()
    if leads:  # by now every process has chosen
        remove_newer(folder / "checkpoints", checkpoint)
    if should_stop():
        return _Trained(base, model, 0, is_finished=False, leads=leads)
    if checkpoint:
        best.load(checkpoint)
        tuner.catch_up(checkpoint)
    if checkpoint and best.is_settled:  # it had ended early, and was cut off before its export
        steps, is_finished = step_of(checkpoint), True
    else:
        tuner.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        tuner.release()
        steps = tuner.state.global_step
        is_finished = steps >= tuner.state.max_steps or best.is_settled
    if is_finished:
        best.restore(model)
    if is_finished and is_sharded(model):
        base, model = _assembled(run, config, model, leads=leads)
    return _Trained(base, model, steps, is_finished=is_finished, leads=leads, best_step=best.step)


def _assembled(
    run: RunConfig, config: TrainingConfig, model: torch.nn.Module, *, leads: bool
) -> tuple[LoadedBase, PreTrainedModel | PeftModel]:
    """The trained model whole, in the leading process, which goes on alone; in the others the base as it was."""
    weights = trained_weights(model)  # takes all processes
    base = _loaded(run, config)
    if not leads:
        return base, base.model
    if config.attention:
        enable(base.model)
    assembled = make_trainable(base.model, config)
    put_weights(assembled, weights)
    return base, assembled


def _halved(config: TrainingConfig, events: EventLog) -> TrainingConfig:
    """The same optimiser steps in micro-batches of half the size, or of a third where there is no half, and so on."""
    gc.collect()
    torch.cuda.empty_cache()
    # Of several processes memory runs out in one, for which the others would wait.
    if config.batch_size == 1 or _processes() > 1:
        raise OutOfMemory(
            f"memory does not hold a micro-batch of {config.batch_size}; use a smaller batch_size or max_length, or "
            "activation_checkpointing",
            batch_size=config.batch_size,
        )
    parts = next(number for number in range(2, config.batch_size + 1) if config.batch_size % number == 0)
    smaller = replace(
        config,
        batch_size=config.batch_size // parts,
        gradient_accumulation=config.gradient_accumulation * parts,
    )
    events.warning(
        "micro_batch_halved",
        f"out of memory: a step is now {smaller.gradient_accumulation} micro-batches of {smaller.batch_size}",
        batch_size=smaller.batch_size,
        gradient_accumulation=smaller.gradient_accumulation,
    )
    return smaller
