"""When a run logs, evaluates, saves and stops."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.domain.training import TrainingConfig


class Pace(TrainerCallback):
    """Sets Trainer's control after each step.

    Parameters
    ----------
    should_stop
        Asked after every step. Once it says yes, a checkpoint is saved and training ends.
    """

    def __init__(self, config: TrainingConfig, should_stop: Callable[[], bool]) -> None:
        self._config = config
        self._should_stop = should_stop

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Decide by the number of the step just made. Trainer logs first, then evaluates, then saves."""
        config, step, is_last = self._config, state.global_step, state.global_step >= state.max_steps
        stop = self._should_stop()
        control.should_log = control.should_log or is_last or step % config.log_every == 0
        control.should_save = control.should_save or is_last or stop or step % config.checkpoint_every == 0
        control.should_training_stop = control.should_training_stop or stop
        if config.evaluate_every:
            # The last weights may be the best. Without a metric to compare by they are evaluated after training anyway.
            control.should_evaluate = step % config.evaluate_every == 0 or (is_last and bool(config.best_metric))
