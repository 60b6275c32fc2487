"""The harder Spurious Token Game: an air quality index that six of fourteen figures decide, written in a fixed order.

In distribution (`iid`) five figures copy causal ones; out of distribution (`ood`) they are drawn on their own, some
outside the range ever trained on. Rule, template and distributions: Han et al., EMNLP 2025 (arXiv 2509.01535). The
published files' order of draws is not known, so examples follow the same distributions but are our own.

    python -m benchmarks.stg_h --n 3000 --seed 1 [--ood]
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence

from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.run_folder import example_to_json
from core.domain.spans import Span

_TEMPLATE = (
    "Industrial Emissions: {0:.1f}; Vehicle Emissions: {1:.1f}; Coal Dependency: {2:.1f}%; "
    "Agricultural Burning: {3:.1f}; Urban Green Coverage: {4:.1f}%; Meteorological Dispersion: {5:.1f}. "
    "Ice Cream Sales Index: {6:.1f}; Allergy Complaints Level: {7:.1f}; Renewable Stock Index: {8:.0f}; "
    "Public Transport Subscriptions (k): {9:.1f}; Water Awareness Score: {10:.1f}. "
    "City Anniversary: {11}; Average Internet Speed: {12:.1f}Mbps; Number of Libraries: {13}. "
    "Given these diverse conditions, what is the projected Air Quality Index (AQI) on a 0-100 scale? Answer: "
)
_CAUSES = re.compile(
    r"(?:Industrial Emissions|Vehicle Emissions|Agricultural Burning|Meteorological Dispersion): -?\d+\.\d"
    r"|(?:Coal Dependency|Urban Green Coverage): -?\d+\.\d%"
)
_CAUSAL = ((30, 70, 2.0), (20, 60, 2.0), (10, 50, 1.5), (10, 30, 1.0), (40, 80, 3.0), (50, 90, 3.0))  # low, high, sd
_WEIGHTS = (0.3, 0.25, 0.2, 0.15, -0.2, -0.3)
# factor, index of the causal figure that is copied in distribution, sd of the copy, range out of distribution
_SPURIOUS = (
    (0.4, 5, 2.0, 0.1, (50, 90)),
    (0.2, 3, 3.0, 0.2, (10, 30)),
    (1.1, 0, 1.5, 0.1, (30, 70)),
    (0.15, 1, 2.0, 0.15, (20, 60)),
    (-0.1, 4, 1.0, -0.1, (40, 80)),
)
_LOWEST, _HIGHEST = -20.0, 30.0  # of the weighted sum, scaled to 0 to 100


def generate(n: int, *, seed: int, ood: bool = False) -> Iterator[Example]:
    """`n` examples, the same for the same seed and `ood`, each with its id and its one relation.

    The target is the index as a whole number from 0 to 100; its causes are the six causal "Name: value" phrases.
    """
    split = "ood" if ood else "iid"
    rng = random.Random(f"stg_h/{seed}/{split}")
    for index in range(n):
        causal = [rng.uniform(low, high) + rng.gauss(0, sd) for low, high, sd in _CAUSAL]
        figures = [*causal, *_spurious(rng, causal, ood=ood), *_irrelevant(rng)]
        input_ = _TEMPLATE.format(*figures)
        target = str(_air_quality(causal))
        causes = tuple(Span(*match.span()) for match in _CAUSES.finditer(input_))
        effect = Span(len(input_), len(input_) + len(target))
        yield Example(input_, target, id=f"stg_h-{seed}-{split}-{index}", relations=(Relation(effect, causes),))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print examples as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stg_h", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ood", action="store_true", help="draw the spurious figures independently")
    options = parser.parse_args(arguments)
    for example in generate(options.n, seed=options.seed, ood=options.ood):
        sys.stdout.write(json.dumps(example_to_json(example), ensure_ascii=False) + "\n")


def _spurious(rng: random.Random, causal: Sequence[float], *, ood: bool) -> list[float]:
    if ood:
        return [factor * rng.uniform(*range_) for _, _, _, factor, range_ in _SPURIOUS]
    return [factor * causal[copied] + rng.gauss(0, sd) for factor, copied, sd, _, _ in _SPURIOUS]


def _irrelevant(rng: random.Random) -> list[str | float]:
    return [_ordinal(rng.randint(1, 100)), rng.uniform(80, 120) + rng.gauss(0, 3), rng.randint(10, 50)]


def _air_quality(causal: Sequence[float]) -> int:
    raw = sum(weight * figure for weight, figure in zip(_WEIGHTS, causal, strict=True))
    clipped = min(max(raw, _LOWEST), _HIGHEST)
    return round((clipped - _LOWEST) / (_HIGHEST - _LOWEST) * 100)


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


if __name__ == "__main__":
    main()
