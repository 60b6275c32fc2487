"""The best weights of a run by a named metric, kept in memory and in every checkpoint."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from core.domain.training import TrainingConfig
from trainer.state import put_weights, trained_weights
from trainer.tensors import save_tensors

_WEIGHTS = "best.safetensors"
_STANDING = "best.json"


class Best:
    """What the evaluations of a run have shown so far. Does nothing where the config names no metric.

    Parameters
    ----------
    config
        Its `best_metric`, of which more is better, and `patience`.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._metric = config.best_metric
        self._patience = config.patience
        self._value: float | None = None
        self._weights: dict[str, Tensor] = {}
        self._stale = 0  # evaluations since the best one
        self.step: int | None = None  # of the best evaluation

    @property
    def is_sought(self) -> bool:
        """Whether the config asks for the best weights instead of the last."""
        return bool(self._metric)

    @property
    def is_settled(self) -> bool:
        """Whether `patience` evaluations in a row have been no better: the run ends early."""
        return 0 < self._patience <= self._stale

    def value_in(self, metrics: dict[str, dict[str, float]]) -> float:
        """The metric's value in split -> metric -> value."""
        split, _, name = self._metric.rpartition(".")
        return metrics[split][name]

    def offer(self, value: float, step: int, model: torch.nn.Module | None) -> None:
        """Take note of an evaluation, and of the trained weights if it is the best one. The first of equals wins.

        Without a model only the standing is kept: of several processes one keeps weights.
        """
        if self._value is not None and value <= self._value:
            self._stale += 1
            return
        self._value, self.step, self._stale = value, step, 0
        if model is not None:
            self._weights = {name: weight.to("cpu", copy=True) for name, weight in trained_weights(model).items()}

    def restore(self, model: torch.nn.Module) -> None:
        """Put the best weights into the model, if there are any."""
        if self._weights:
            put_weights(model, self._weights)

    def save(self, folder: Path) -> None:
        """Write the standing and the weights into a checkpoint."""
        if self.step is None:
            return
        save_tensors(self._weights, folder / _WEIGHTS)
        standing = {"value": self._value, "step": self.step, "stale": self._stale}
        (folder / _STANDING).write_text(json.dumps(standing))

    def load(self, folder: Path) -> None:
        """Inverse of `save`; a checkpoint from before the first evaluation has nothing."""
        if not self.is_sought or not (folder / _STANDING).exists():
            return
        standing = json.loads((folder / _STANDING).read_text())
        self._value, self.step, self._stale = standing["value"], standing["step"], standing["stale"]
        self._weights = load_file(folder / _WEIGHTS)
