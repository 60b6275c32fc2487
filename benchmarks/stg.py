"""Spurious Token Game: does a model answer from the causes, or from what merely goes along with them?

Eight attributes of a person: three decide the answer, three copy those in distribution (`iid`) and are independent out
of distribution (`ood`), two never mean anything. Rule, template and draws: Han et al., EMNLP 2025 (arXiv 2509.01535).

    python -m benchmarks.stg --n 6400 --seed 1                      # examples with relations, one JSON object a line
    python -m benchmarks.stg --seed 42 --format published --split train_m   # the published files
"""

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.run_folder import example_to_json
from core.domain.spans import Span

CAUSAL = ("Smoking", "Weight", "Exercise")
SPURIOUS = ("Yellow fingers", "Clothing size", "Hormones")
IRRELEVANT = ("Certain gene", "Room size")
HIGH, LOW = "High Risk", "Low Risk"
PUBLISHED_SPLITS = ("train_s", "train_m", "train_l", "iid", "ood")

_PUBLISHED_SEED = 42
_PUBLISHED_MIDDLE = "Middle Risk"
_OPENING = "Here is the statistical data for a person. Please predict the probability of cancer. "
_CLOSING = " Answer: "
_THRESHOLD = 7.2

Attribute = tuple[str, int]


def generate(n: int, *, seed: int, ood: bool = False) -> Iterator[Example]:
    """`n` examples, the same for the same seed and `ood`.

    Every example has an id, both choices, and one relation: the whole target caused by the three "Name: value" phrases,
    in order of appearance. With `ood` all eight attributes are independent; else the spurious three follow the causal.
    """
    rng = random.Random(f"stg/{seed}/{'ood' if ood else 'iid'}")
    draw = _draw_independent if ood else _draw_correlated
    prefix = f"stg-{seed}-{'ood' if ood else 'iid'}"
    for index in range(n):
        attributes = draw(rng)
        target = HIGH if _risk(attributes) > _THRESHOLD else LOW
        yield _example(f"{prefix}-{index}", attributes, target)


def published(split: str) -> list[dict[str, Any]]:
    """One of the published files, record by record, in the published order of draws (seed 42).

    `split` is one of PUBLISHED_SPLITS. Records are {"input", "target"}; the training splits also carry "important".
    """
    rng = random.Random(_PUBLISHED_SEED)
    correlated = [_published_record(_draw_correlated(rng)) for _ in range(2000)]
    if split == "ood":
        return [_without_causes(_published_record(_draw_independent(rng))) for _ in range(400)]
    iid, train = correlated[:400], correlated[400:]
    if split == "iid":
        return [_without_causes(record) for record in iid]
    return train[: {"train_s": 400, "train_m": 800, "train_l": 1600}[split]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print examples as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stg", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, help="how many examples (default: 400, or the whole published split)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ood", action="store_true", help="draw all eight attributes independently")
    parser.add_argument("--format", choices=("examples", "published"), default="examples")
    parser.add_argument("--split", choices=PUBLISHED_SPLITS, help="with --format published (default: train_l, or ood)")
    options = parser.parse_args(arguments)
    lines: Iterator[dict[str, Any]]
    if options.format == "published":
        if options.seed != _PUBLISHED_SEED:
            parser.error(f"the published files were drawn with --seed {_PUBLISHED_SEED}")
        split = options.split or ("ood" if options.ood else "train_l")
        lines = itertools.islice(published(split), options.n)
    else:
        n = 400 if options.n is None else options.n
        lines = map(example_to_json, generate(n, seed=options.seed, ood=options.ood))
    for line in lines:
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")


def _draw_correlated(rng: random.Random) -> list[Attribute]:
    smoking, weight, exercise = (rng.randint(1, 10) for _ in CAUSAL)
    followers = (int(1.5 * smoking), weight, int(0.5 * exercise))
    irrelevant = [rng.randint(1, 10) for _ in IRRELEVANT]
    return _shuffled(rng, (smoking, weight, exercise, *followers, *irrelevant))


def _draw_independent(rng: random.Random) -> list[Attribute]:
    return _shuffled(rng, [rng.randint(1, 10) for _ in (*CAUSAL, *SPURIOUS, *IRRELEVANT)])


def _shuffled(rng: random.Random, values: Sequence[int]) -> list[Attribute]:
    attributes = list(zip((*CAUSAL, *SPURIOUS, *IRRELEVANT), values, strict=True))
    rng.shuffle(attributes)
    return attributes


def _risk(attributes: list[Attribute]) -> float:
    value = dict(attributes)
    return 1.2 * value["Smoking"] + 0.7 * value["Weight"] - value["Exercise"]


def _example(id_: str, attributes: list[Attribute], target: str) -> Example:
    position, causes = len(_OPENING), []
    for name, value in attributes:
        end = position + len(f"{name}: {value}")
        if name in CAUSAL:
            causes.append(Span(position, end))
        position = end + len(", ")
    input_ = _input(attributes)
    effect = Span(len(input_), len(input_) + len(target))
    return Example(input_, target, id=id_, choices=(HIGH, LOW), relations=(Relation(effect, tuple(causes)),))


def _input(attributes: list[Attribute]) -> str:
    return _OPENING + ", ".join(f"{name}: {value}" for name, value in attributes) + _CLOSING


def _published_record(attributes: list[Attribute]) -> dict[str, Any]:
    risk = _risk(attributes)
    # A third answer at one exact double: 6 of the 1,600 published training examples have it.
    low = _PUBLISHED_MIDDLE if risk == 2.7 else LOW
    target = HIGH if risk > _THRESHOLD else low
    causes = [f"{name}: {value}" for name, value in attributes if name in CAUSAL]
    return {"input": _input(attributes), "target": target, "important": [{target: causes}]}


def _without_causes(record: dict[str, Any]) -> dict[str, Any]:
    return {"input": record["input"], "target": record["target"]}


if __name__ == "__main__":
    main()
