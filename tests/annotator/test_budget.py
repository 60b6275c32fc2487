"""Budgets of `python -m annotator label`: never passed, whoever does not say what it charged, whoever is killed."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from annotator.__main__ import EXIT_BUDGET, main
from annotator.cache import SqliteCache
from annotator.label import LabelCounts, label_file
from annotator.parsing import REPLY_SCHEMA
from annotator.prompts import render
from annotator.purse import SqlitePurse
from annotator.teachers.chat_format import most_tokens
from core.domain.annotation import Usage
from core.domain.spending import Budget, Cost
from core.errors import BudgetExhausted
from tests.annotator.test_label import CONFIG, EXAMPLES, PRIOR, PRIOR_FILE, source, written
from tests.fake_teacher import FakeTeacher

__all__ = ["source"]  # a fixture

CAP = 12  # calls
MOST = [most_tokens(render(PRIOR, example), REPLY_SCHEMA, CONFIG.max_tokens) for example in EXAMPLES]
CALL = max(most.prompt_tokens + most.completion_tokens for most in MOST)


def run(source: Path, folder: Path, fake: FakeTeacher, calls: int) -> tuple[LabelCounts, Cost]:
    """One run with a budget of so many calls; its counts, and what all runs have spent."""
    config = replace(CONFIG, base_url=fake.base_url)
    cache = SqliteCache(folder / "cache")
    purse = SqlitePurse(folder / "spent", config, Budget(tokens=calls * CALL))
    counts = asyncio.run(label_file(source, folder / "out", prior=PRIOR, config=config, cache=cache, purse=purse))
    cache.close()
    purse.close()
    return counts, purse.spent


def test_the_call_past_the_budget_is_never_sent_and_a_larger_one_goes_on(source: Path, tmp_path: Path) -> None:
    with FakeTeacher(usage=False, latency=0.01).serving() as fake:
        counts, spent = run(source, tmp_path, fake, CAP)
        assert counts.exhausted
        assert CAP <= len(fake.calls) <= CAP * CALL // min(most.prompt_tokens + most.completion_tokens for most in MOST)
        assert spent.tokens <= CAP * CALL
        # All that were paid for are labelled, in the order of the file.
        assert [line["id"] for line in written(tmp_path / "out")] == [example.id for example in EXAMPLES[: counts.done]]
        paid = len(fake.calls)
        again, same = run(source, tmp_path, fake, CAP)
        assert (again.exhausted, same.tokens, len(fake.calls)) == (True, spent.tokens, paid)
        done, _ = run(source, tmp_path, fake, 100)
        assert (done.exhausted, done.done, len(fake.calls)) == (False, 30, 30)  # none was paid twice


def test_what_the_teacher_reports_is_what_counts(source: Path, tmp_path: Path) -> None:
    """A budget that holds two calls as they are set aside holds thirty as they are charged."""
    assert CALL + 29 * 120 <= 2 * CALL
    with FakeTeacher().serving() as fake:
        counts, spent = run(source, tmp_path, fake, 2)
    assert (counts.exhausted, counts.done, spent.tokens) == (False, 30, 30 * 120)


def test_calls_that_a_killed_run_left_behind_count_whole(tmp_path: Path) -> None:
    budget = Budget(tokens=250)
    killed = SqlitePurse(tmp_path / "spent", CONFIG, budget)
    settled = asyncio.run(killed.reserve(Usage(90, 10)))
    killed.settle(settled, Usage(40, 10))
    asyncio.run(killed.reserve(Usage(90, 10)))
    purse = SqlitePurse(tmp_path / "spent", CONFIG, budget)  # the first was not closed either
    assert purse.spent == Cost(150)
    purse.settle(asyncio.run(purse.reserve(Usage(100, 0))), Usage())
    with pytest.raises(BudgetExhausted):
        asyncio.run(purse.reserve(Usage(101, 0)))
    for one in (killed, purse):
        one.close()


def test_replies_that_came_while_the_money_ran_out_are_not_lost(source: Path, tmp_path: Path) -> None:
    """The first reply cannot be read, and there is no money for a second question. The other two were paid for."""
    first = render(PRIOR, EXAMPLES[0])[-1]["content"]
    with FakeTeacher(lambda item: "prose" if item == first else "ok", usage=False, latency=0.05).serving() as fake:
        counts, _ = run(source, tmp_path, fake, 3)
        assert (counts.exhausted, counts.done, len(fake.calls)) == (True, 0, 3)
        fake.script([])
        done, _ = run(source, tmp_path, fake, 100)
        assert (done.exhausted, done.done, len(fake.calls)) == (False, 30, 3 + 28)


def test_the_command_ends_with_a_status_of_its_own(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"

    def command(*budget: str) -> tuple[int, dict[str, Any], str]:
        common = ["label", str(source), "--prior", str(PRIOR_FILE), "--teacher", "fake", "--out", str(out)]
        status = main([*common, *budget])
        printed = capsys.readouterr()
        return status, json.loads(printed.out.splitlines()[-1]) if printed.out else {}, printed.err

    with FakeTeacher(usage=False).serving() as fake:
        monkeypatch.setenv("CAUSEWAY_TEACHERS__FAKE__BASE_URL", fake.base_url)
        monkeypatch.setenv("CAUSEWAY_TEACHERS__FAKE__MODEL", "m")
        status, _, err = command("--budget-usd", "0.1")
        assert (status, len(fake.calls)) == (1, 0)
        assert "no prices" in err
        monkeypatch.setenv("CAUSEWAY_TEACHERS__FAKE__PROMPT_PRICE", "2")
        monkeypatch.setenv("CAUSEWAY_TEACHERS__FAKE__COMPLETION_PRICE", "10")
        status, summary, err = command("--budget-usd", "0.1")
        assert (status, summary["exhausted"], summary["spent_usd"] <= 0.1) == (EXIT_BUDGET, True, True)
        assert f"stopped at its budget after {summary['examples']} examples" in err
        assert 0 < len(fake.calls) == summary["examples"] < 30
        for wrong in (("--budget-tokens", "0"), ("--budget-usd", "nan"), ("--budget-usd", "-1")):
            assert command(*wrong)[0] == 1
        status, summary, _ = command()
        assert (status, summary["examples"], summary["resumed"] > 0) == (0, 30, True)
        assert len(fake.calls) == 30
