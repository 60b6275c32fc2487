import json
import re

import pytest

from benchmarks import stg_h
from core.domain.run_folder import example_from_json

WEIGHTS = (0.3, 0.25, 0.2, 0.15, -0.2, -0.3)


@pytest.mark.parametrize("ood", [False, True])
def test_the_target_follows_from_its_six_causes(ood: bool) -> None:
    for example in stg_h.generate(100, seed=2, ood=ood):
        (relation,) = example.relations
        relation.check_against(example.text)
        assert relation.effect.of(example.text) == example.target
        figures = [float(re.findall(r"-?\d+\.\d", cause.of(example.text))[0]) for cause in relation.causes]
        raw = sum(weight * figure for weight, figure in zip(WEIGHTS, figures, strict=True))
        expected = (min(max(raw, -20), 30) + 20) * 2
        assert abs(expected - int(example.target)) <= 0.75  # half a point, and the rounding of the figures shown


def test_spurious_figures_follow_the_causes_in_distribution_only() -> None:
    def shows_stock_near_emissions(text: str) -> bool:
        emissions = float(text.split("Industrial Emissions: ")[1].split(";", maxsplit=1)[0])
        stock = float(text.split("Renewable Stock Index: ")[1].split(";", maxsplit=1)[0])
        return abs(1.1 * emissions - stock) < 7

    assert all(shows_stock_near_emissions(e.input) for e in stg_h.generate(100, seed=1))
    assert not any(shows_stock_near_emissions(e.input) for e in stg_h.generate(100, seed=1, ood=True))


def test_the_command_prints_reproducible_examples(capsys: pytest.CaptureFixture[str]) -> None:
    stg_h.main(["--n", "3", "--seed", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert [example_from_json(json.loads(line)) for line in lines] == list(stg_h.generate(3, seed=5))
