from itertools import product

import pytest

from core.domain.lifecycle import TERMINAL, JobState, after_cancel, can_move, move, sources_of
from core.errors import IllegalTransition


@pytest.mark.parametrize(("old", "new"), list(product(sorted(TERMINAL), JobState)))
def test_a_terminal_state_never_changes(old: JobState, new: JobState) -> None:
    assert not can_move(old, new)
    with pytest.raises(IllegalTransition):
        move(old, new)


@pytest.mark.parametrize("state", [s for s in JobState if s not in TERMINAL])
def test_every_live_state_can_end(state: JobState) -> None:
    assert any(can_move(state, end) for end in TERMINAL)


def test_cancel_of_a_queued_job_is_immediate_and_of_a_running_one_is_a_request() -> None:
    assert after_cancel(JobState.QUEUED) is JobState.CANCELLED
    assert after_cancel(JobState.PAUSED_BUDGET) is JobState.CANCELLED
    assert after_cancel(JobState.RUNNING) is JobState.CANCELLING
    assert after_cancel(JobState.CANCELLING) is JobState.CANCELLING


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_cancel_of_a_finished_job_is_refused(state: JobState) -> None:
    with pytest.raises(IllegalTransition):
        after_cancel(state)


@pytest.mark.parametrize("new", list(JobState))
def test_sources_agree_with_moves(new: JobState) -> None:
    assert sources_of(new) == {old for old in JobState if can_move(old, new)}


def test_a_cancelled_request_cannot_end_as_a_success() -> None:
    assert not can_move(JobState.CANCELLING, JobState.SUCCEEDED)
