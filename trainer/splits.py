"""The splits a run is judged by: read before it trains, measured while and after it does."""

from collections.abc import Callable
from pathlib import Path

from core.domain.training import TrainingConfig
from core.errors import InvalidInput
from trainer.answers import Model, Stopped
from trainer.evaluate import evaluate
from trainer.events import EventLog
from trainer.examples import read_examples
from trainer.model import LoadedBase

Measured = dict[str, dict[str, float]]  # split -> metric -> value


def check_splits(folder: Path, config: TrainingConfig) -> None:
    """Find out what is wrong with a run's splits before its first step, not after its last.

    Raises
    ------
    InvalidInput
        A line of one is not an example, one has no example, or `best_metric` names one that is not there.
    """
    paths = _splits(folder)
    for path in paths:
        if not read_examples(path):
            raise InvalidInput(f"eval/{path.name} has no example; fill it or remove it", field="eval", file=str(path))
    split = config.best_metric.rpartition(".")[0]
    if split and split not in [path.stem for path in paths]:
        raise InvalidInput(
            f"config.best_metric names a split that the run has not: {split}", field="config.best_metric"
        )


def measure(
    model: Model,
    base: LoadedBase,
    folder: Path,
    config: TrainingConfig,
    events: EventLog,
    step: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Measured | None:
    """How the model does on every split, with an event each. None as soon as `should_stop`, asked often, says so."""
    metrics: Measured = {}
    for path in _splits(folder):
        examples = read_examples(path)
        try:
            metrics[path.stem] = evaluate(
                model, base.tokenizer, examples, chat_template=config.chat_template, should_stop=should_stop
            )
        except Stopped:
            return None
        events.evaluation(path.stem, step, metrics[path.stem])
    return metrics


def _splits(folder: Path) -> list[Path]:
    return sorted((folder / "eval").glob("*.jsonl"))
