"""A run that is killed again and again, by SIGKILL: `python -m tests.trainer.killed_runs WHOLE KILLED STEP...`.

Both folders hold the same run. WHOLE is left to finish; KILLED is killed when its events show each step in turn, and
then left to finish as well. Each attempt is forked, so that what takes seconds to import is imported once.
"""

import os
import signal
import sys
import time
from pathlib import Path

from core.domain.run_folder import EXIT_FINISHED
from tests.trainer.runs import events_of
from trainer.__main__ import main as trainer


def begin(folder: Path) -> int:
    """Start an attempt as a process of its own; returns its id."""
    if child := os.fork():
        return child
    os._exit(trainer([str(folder)]))


def finish(folder: Path) -> None:
    """An attempt that nobody disturbs."""
    status = os.waitstatus_to_exitcode(os.waitpid(begin(folder), 0)[1])
    assert status == EXIT_FINISHED, status


def kill_at(folder: Path, step: int) -> None:
    """An attempt that is killed as soon as it tells of the step, wherever it is by then."""
    told = len(events_of(folder))
    child = begin(folder)
    while not any(event["type"] == "step" and event["step"] >= step for event in events_of(folder)[told:]):
        ended, _ = os.waitpid(child, os.WNOHANG)
        assert not ended, f"it ended before step {step}"
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == -signal.SIGKILL, f"it had ended before it was killed at step {step}: {status}"


def main(whole: Path, killed: Path, steps: list[int]) -> None:
    """See above."""
    finish(whole)
    for step in steps:
        kill_at(killed, step)
    finish(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(step) for step in sys.argv[3:]])
