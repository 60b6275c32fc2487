"""Errors are facts: each class carries a stable `code`, each instance the attributes that explain it.

The HTTP status of a code is decided in `api/errors.py`; whether a worker retries or fails is decided in `worker`.
"""

from typing import Any, ClassVar


class CausewayError(Exception):
    """Base of all errors we raise on purpose.

    Parameters
    ----------
    message
        One sentence for a person: what is wrong and, where known, how to fix it. Never user text.
    facts
        JSON-serialisable attributes (field, line, id, ...) shown beside the message.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class InvalidInput(CausewayError):
    """Something a user sent cannot be accepted. `field` names it; `line` (1-based) where it came from a file."""

    code = "invalid_input"


class InvalidSpan(InvalidInput):
    """A span lies outside its text, is empty, or a cause does not end before its effect begins."""

    code = "invalid_span"


class PriorNotGrounded(InvalidInput):
    """A phrase of a prior's own demonstration does not occur in that demonstration."""

    code = "prior_not_grounded"


class NoUsableRelations(InvalidInput):
    """CAT was asked for, but no training example has a relation that survives encoding."""

    code = "no_usable_relations"


class EffectCutOff(InvalidInput):
    """The maximum length would cut effects or causes off, and the config says to refuse that."""

    code = "effect_cut_off"


class PayloadTooLarge(InvalidInput):
    """A line, body or list is over its limit."""

    code = "payload_too_large"


class NotFound(CausewayError):
    """No such thing, or it belongs to another tenant: the two are never told apart."""

    code = "not_found"


class Conflict(CausewayError):
    """The request is well-formed but contradicts what is stored."""

    code = "conflict"


class BudgetExhausted(CausewayError):
    """A call may cost more than is left of its job's budget, and was not made."""

    code = "budget_exhausted"


class IllegalTransition(Conflict):
    """A job cannot go from its state to the one asked for."""

    code = "illegal_transition"


class LabelsNotReady(Conflict):
    """A training names an annotation job that is not finished. Facts: `id`, `state`."""

    code = "labels_not_ready"


class IdempotencyMismatch(CausewayError):
    """An Idempotency-Key was used again with another request."""

    code = "idempotency_mismatch"


class Unauthenticated(CausewayError):
    """No key, or one that is wrong, expired or revoked. The message never says which."""

    code = "unauthenticated"


class Forbidden(CausewayError):
    """The key is good but lacks the scope."""

    code = "forbidden"


class Unavailable(CausewayError):
    """Something we depend on cannot be reached now; the same request may pass later."""

    code = "unavailable"


class TeacherUnreachable(Unavailable):
    """A teacher endpoint did not answer after all retries."""

    code = "teacher_unreachable"


class TeacherRejected(CausewayError):
    """A teacher endpoint answered with a lasting refusal of every call (wrong key, unknown model)."""

    code = "teacher_rejected"


class BatchRejected(CausewayError):
    """A teacher endpoint will not take a batch as we make it. Facts: `teacher`."""

    code = "batch_rejected"


class BatchStuck(CausewayError):
    """Batch after batch of a job ended without a single result. Facts: `rounds`, `last`."""

    code = "batch_stuck"


class ReplyUnreadable(CausewayError):
    """A teacher's reply is not the JSON that was asked for. Facts: `reason`."""

    code = "reply_unreadable"


class TrainingFailed(CausewayError):
    """The trainer cannot go on."""

    code = "training_failed"


class BaseModelUnavailable(TrainingFailed):
    """A base model cannot be loaded: its files cannot be used, or as the classes below say. Facts: `base`, `source`."""

    code = "base_model_unavailable"


class BaseModelMissing(BaseModelUnavailable):
    """The folder that a base model is to be in is not there, or has no model in it."""

    code = "base_model_missing"


class BaseModelUnknown(BaseModelUnavailable):
    """The hub has no model of this id, or no such revision of it, or none that it shows us."""

    code = "base_model_unknown"


class BaseModelGated(BaseModelUnavailable):
    """The hub has the model, and wants access to be asked for."""

    code = "base_model_gated"


class HubUnreachable(BaseModelUnavailable):
    """The hub does not answer, and the model is not in the cache."""

    code = "hub_unreachable"


class RunBusy(TrainingFailed):
    """Another trainer is at work in the run folder. Facts: `folder`."""

    code = "run_busy"


class LabelsChanged(TrainingFailed):
    """The labels are not those that were pinned when the training was asked for. Facts: `expected`, `found`."""

    code = "labels_changed"


class ModelNotSupported(TrainingFailed):
    """The base model's attention does not pass the admission check, so CAT would be silently wrong on it."""

    code = "model_not_supported"


class AdapterDamaged(CausewayError):
    """An adapter folder is not what its manifest says, or does not fit its base model. Facts: `file`."""

    code = "adapter_damaged"


class NotFinite(TrainingFailed):
    """A loss or gradient became NaN or infinite. Facts: `step`, `examples`."""

    code = "not_finite"


class OutOfMemory(TrainingFailed):
    """Memory, the accelerator's if there is one, does not hold what it must at a time. Facts: `batch_size`, if any."""

    code = "out_of_memory"


class ProcessLost(TrainingFailed):
    """Of several processes that train together another one ended without saying why."""

    code = "process_lost"


class DiskFull(TrainingFailed):
    """There is no space, or no quota, left to write a checkpoint or an adapter."""

    code = "disk_full"


class ExtraMissing(TrainingFailed):
    """What was asked for needs an optional extra that is not installed. Facts: `extra`."""

    code = "extra_missing"


class CheckpointMismatch(TrainingFailed):
    """A run folder's checkpoints are of another config, base or data. Facts: `checkpoint`, `differs`."""

    code = "checkpoint_mismatch"


class NothingLearned(TrainingFailed):
    """What was trained answers exactly as its base model does."""

    code = "nothing_learned"


class NotServable(TrainingFailed):
    """vLLM would refuse the adapter. Facts: `faults`."""

    code = "not_servable"


class ReloadFailed(TrainingFailed):
    """A fresh process could not load what was exported, or not without a warning."""

    code = "reload_failed"


class ReloadDiffers(TrainingFailed):
    """What a fresh process loaded answers otherwise than what was trained. Facts: `difference`."""

    code = "reload_differs"


class LeaseLost(CausewayError):
    """Another worker owns the job now: stop, write nothing more."""

    code = "lease_lost"
