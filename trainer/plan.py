"""What a run will train on, decided and counted before its first step."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from core.domain.run_folder import Plan
from core.domain.training import Overflow, TrainingConfig
from core.errors import EffectCutOff, InvalidInput, NoUsableRelations
from trainer.encoding import Encoded
from trainer.events import EventLog


@dataclass(frozen=True, slots=True)
class Prepared:
    """The examples that will be trained on, and the plan that counts them."""

    encoded: list[Encoded]
    plan: Plan


def prepare(encoded: Sequence[Encoded], config: TrainingConfig, *, processes: int = 1) -> Prepared:
    """Take the examples that are not too long, and count; sft and cat take the same. `refusal` says if that will do."""
    kept = [e for e in encoded if not e.over]
    return Prepared(kept, _plan(encoded, kept, config, processes))


def refusal(plan: Plan, config: TrainingConfig) -> InvalidInput | None:
    """Why a run of this plan must not begin, if so.

    Returns
    -------
    EffectCutOff
        Examples are longer than max_length, and the policy is to refuse that or they are more than it may drop.
    NoUsableRelations
        cat, and no example has a supervised row.
    InvalidInput
        There is nothing to train on.
    """
    if _are_too_many(plan.dropped_examples, plan.examples + plan.dropped_examples, config):
        return _too_many_too_long(plan, config)
    if not plan.examples:
        return InvalidInput("there is no example to train on", field="train", dropped=plan.dropped_examples)
    if config.attention and not plan.supervised_rows:
        return NoUsableRelations(
            f"none of {plan.examples} training examples has a relation to supervise; label them first, or train with "
            "sft",
            examples=plan.examples,
        )
    return None


def announce(prepared: Prepared, events: EventLog) -> None:
    """Write the `plan` event, and warnings about what will not be trained on as it was asked."""
    events.plan(prepared.plan)
    _warn(prepared.encoded, prepared.plan, events)


def _plan(encoded: Sequence[Encoded], kept: Sequence[Encoded], config: TrainingConfig, processes: int) -> Plan:
    micro_batches = -(-len(kept) // (config.batch_size * processes))
    steps = -(-micro_batches // config.gradient_accumulation) * config.epochs
    rows = [len(e.row_positions) for e in kept]
    lengths = sorted(len(e.ids) for e in encoded)
    return Plan(
        examples=len(kept),
        tokens=sum(len(e.ids) for e in kept),
        supervised_rows=sum(rows),
        steps=steps,
        longest=max(lengths, default=0),
        length_p50=_quantile(lengths, 0.5),
        length_p90=_quantile(lengths, 0.9),
        unsupervised_examples=rows.count(0),
        dropped_examples=len(encoded) - len(kept),
        cut_effects=sum(e.cut_effects for e in encoded),
        cut_causes=sum(e.cut_causes for e in encoded),
    )


def _quantile(ordered: Sequence[int], share: float) -> int:
    """The least of them that at least this share is not above; 0 of none."""
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else 0


def _are_too_many(dropped: int, examples: int, config: TrainingConfig) -> bool:
    limit = config.overflow_limit if config.overflow is Overflow.DROP else 0.0
    return dropped > 0 and dropped / examples > limit


def _too_many_too_long(plan: Plan, config: TrainingConfig) -> EffectCutOff:
    examples = plan.examples + plan.dropped_examples
    field, advice = "config.max_length", 'Raise max_length, or set overflow to "drop" to leave them out'
    if config.overflow is Overflow.DROP:
        field = "config.overflow_limit"
        advice = f"Raise max_length, or overflow_limit: the share that may be left out is {config.overflow_limit:g}"
    return EffectCutOff(
        f"{plan.dropped_examples} of {examples} examples are longer than max_length {config.max_length}; the longest "
        f"has {plan.longest} tokens. {advice}",
        field=field,
        examples=plan.dropped_examples,
        longest=plan.longest,
        cut_effects=plan.cut_effects,
        cut_causes=plan.cut_causes,
    )


def _warn(kept: Sequence[Encoded], plan: Plan, events: EventLog) -> None:
    if plan.dropped_examples:
        events.warning(
            "examples_dropped",
            f"{plan.dropped_examples} examples are longer than max_length and were left out",
            examples=plan.dropped_examples,
            cut_effects=plan.cut_effects,
            cut_causes=plan.cut_causes,
        )
    if straddling := sum(e.straddling_causes for e in kept):
        events.warning(
            "causes_straddle_effects",
            f"{straddling} causes share a token with their effect; that token is not supervised",
            causes=straddling,
        )
