"""The states of a job and the only legal moves between them, as pure functions."""

from enum import StrEnum

from core.errors import IllegalTransition


class JobState(StrEnum):
    """Where a job stands. A terminal state never changes: a retry is a new job."""

    QUEUED = "queued"  # runnable, no worker has it
    RUNNING = "running"  # a worker holds its lease, or held it until a slice ended
    PAUSED_BUDGET = "paused_budget"  # nobody has it: its next call does not fit its budget, until that is raised
    CANCELLING = "cancelling"  # a worker has it and was told to stop
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.PAUSED_BUDGET,
            JobState.CANCELLING,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.PAUSED_BUDGET: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def can_move(old: JobState, new: JobState) -> bool:
    """Whether a job may go from `old` to `new`."""
    return new in _MOVES[old]


def move(old: JobState, new: JobState) -> JobState:
    """`new`, or IllegalTransition."""
    if not can_move(old, new):
        raise IllegalTransition(f"a job that is {old} cannot become {new}", state=str(old), wanted=str(new))
    return new


def after_cancel(state: JobState) -> JobState:
    """The state a cancel request leads to. A terminal job refuses; asking twice is harmless."""
    if state is JobState.CANCELLING:
        return state
    at_once = state in (JobState.QUEUED, JobState.PAUSED_BUDGET)
    return move(state, JobState.CANCELLED if at_once else JobState.CANCELLING)


def sources_of(new: JobState) -> frozenset[JobState]:
    """The states from which `new` is legal, for a conditional UPDATE."""
    return frozenset(old for old, targets in _MOVES.items() if new in targets)
