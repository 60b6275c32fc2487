"""Letting several training loops take turns, one optimiser step each.

A loop runs in a thread of its own and stands still wherever it has ended a step, so what is timed is a whole turn of
the loop as it really runs: fetching, collating, forward, backward, clipping, optimiser, logging.
"""

import ctypes
import platform
import time
from collections.abc import Callable
from threading import Semaphore, Thread
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_M_ARENA_MAX = -8  # of malloc.h


class Paced:
    """A trainer that makes a step when told to, timed by `clock`. `stop` it at the end."""

    def __init__(self, trainer: Trainer, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._gate = _Gate()
        self._trainer = trainer
        trainer.add_callback(self._gate)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        self.step()  # the first one also builds optimiser and caches

    def step(self) -> float:
        """Make one step and return its seconds. Raises what the loop raised."""
        synchronize()
        begun = self._clock()
        self._gate.go.release()
        self._gate.done.acquire()
        if self._error:
            raise self._error
        if not self._thread.is_alive() or self._gate.ended:
            raise RuntimeError("the training loop has no more steps to make")
        return self._clock() - begun

    def stop(self) -> None:
        """End the loop."""
        self._gate.stopping = True
        self._gate.go.release()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._gate.go.acquire()
            self._trainer.train()
        except BaseException as error:  # noqa: BLE001 (raised again by `step`, in the caller's thread)
            self._error = error
        self._gate.ended = True
        self._gate.done.release()


def share_one_heap() -> None:
    """Let all threads of the process use one heap, as a training alone would; before the first of them is started.

    glibc gives threads heaps of their own, and each would keep what its loop's largest step needed.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _Gate(TrainerCallback):
    def __init__(self) -> None:
        self.go, self.done = Semaphore(0), Semaphore(0)
        self.stopping = self.ended = False

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        synchronize()
        self.done.release()
        self.go.acquire()
        control.should_training_stop = control.should_training_stop or self.stopping
