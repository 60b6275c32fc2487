import json
from pathlib import Path

import pytest

from annotator.__main__ import main
from annotator.plan import plan_labels
from annotator.prior import load_prior
from annotator.prompts import render
from benchmarks.stg import generate
from core.domain.annotation import Prior, Rule, TeacherConfig
from core.domain.run_folder import example_to_json

PRIOR_FILE = Path(__file__).parents[2] / "examples" / "priors" / "stg.yaml"
PRIOR = load_prior(PRIOR_FILE.read_text(encoding="utf-8"))
EXAMPLES = list(generate(20, seed=1))


def test_a_plan_shows_three_prompts_and_what_they_would_cost() -> None:
    config = TeacherConfig("t", "openai", prompt_price=2.0, completion_price=10.0)
    plan = plan_labels(PRIOR, config, EXAMPLES)
    assert plan.examples == 20
    assert plan.prompts == tuple(render(PRIOR, example) for example in EXAMPLES[:3])
    assert 20 * 500 < plan.tokens < 20 * 2000
    assert 2e-6 * plan.tokens < plan.usd < 10e-6 * plan.tokens
    assert plan_labels(PRIOR, config, EXAMPLES[:10]).tokens == pytest.approx(plan.tokens / 2, rel=0.1)


def test_a_plan_for_rules_names_the_patterns_that_match_nothing() -> None:
    rules = (Rule((r"Smoking: \d+", r"Height: \d+")), Rule((r"Weight: \d+",), effect="Medium Risk"))
    plan = plan_labels(Prior("p", "1", "i", rules=rules), TeacherConfig("rule", "rule"), EXAMPLES)
    assert plan.silent == ("rules[0].causes[1]", "rules[1].effect")
    assert (plan.tokens, plan.usd, plan.prompts) == (0, 0, ())
    assert plan_labels(PRIOR, TeacherConfig("rule", "rule"), EXAMPLES).silent == ()


def test_dry_run_asks_nobody_and_writes_nothing(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(example_to_json(e)) + "\n" for e in EXAMPLES), encoding="utf-8")
    monkeypatch.setenv("CAUSEWAY_TEACHERS__GPT__BASE_URL", "http://127.0.0.1:9/v1")
    arguments = ["label", str(source), "--prior", str(PRIOR_FILE), "--teacher", "gpt"]
    assert main([*arguments, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["examples"] == 20
    assert out.count("--- system") == 3
    assert list(tmp_path.iterdir()) == [source]
    assert main(arguments) == 1
    assert "--out" in capsys.readouterr().err
