import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from annotator.__main__ import main
from annotator.cache import SqliteCache
from annotator.label import LabelCounts, label_file
from annotator.prior import load_prior
from annotator.teachers.base import Finish, Reply
from annotator.wire import annotation_from_json
from benchmarks.stg import generate, published
from core.domain.annotation import Outcome, TeacherConfig, Usage
from core.domain.run_folder import example_from_json, example_to_json
from core.errors import Conflict, InvalidInput, TeacherUnreachable
from tests.fake_teacher import FakeTeacher

PRIOR_FILE = Path(__file__).parents[2] / "examples" / "priors" / "stg.yaml"
PRIOR = load_prior(PRIOR_FILE.read_text(encoding="utf-8"))
EXAMPLES = [replace(example, relations=()) for example in generate(30, seed=8)]
CONFIG = TeacherConfig("fake", "openai", model="m", concurrency=3, max_attempts=8, read_timeout=2)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(example_to_json(e)) + "\n" for e in EXAMPLES), encoding="utf-8")
    return path


def label(
    source: Path, out: Path, fake: FakeTeacher, cache: SqliteCache | None = None, deadline: float = 10
) -> LabelCounts:
    config = replace(CONFIG, base_url=fake.base_url, deadline=deadline)
    return asyncio.run(label_file(source, out, prior=PRIOR, config=config, cache=cache))


def written(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_labels_stand_in_the_order_of_the_examples(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with FakeTeacher(latency=0.005).serving() as fake:
        counts = label(source, out, fake)
    assert (counts.done, counts.outcomes, counts.usage) == (30, {"labelled": 30}, Usage(3000, 600))
    for line, example in zip(written(out), generate(30, seed=8), strict=True):
        assert example_from_json(line) == example
        assert annotation_from_json(line["annotation"]).outcome is Outcome.LABELLED


def test_every_example_has_an_outcome_whatever_the_teacher_does(source: Path, tmp_path: Path) -> None:
    faults = ["prose", "500", "length", "429", "half", "refusal", "filter", "reset", "400", "junk"] * 2
    with FakeTeacher(faults).serving() as fake:
        counts = label(source, tmp_path / "out.jsonl", fake)
    assert sum(counts.outcomes.values()) == counts.done == 30


def test_a_run_that_stopped_goes_on_where_it_was(source: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out.jsonl", SqliteCache(tmp_path / "cache")
    outage = ["ok"] * 12 + ["500"] * 500
    with FakeTeacher(outage).serving() as fake, pytest.raises(TeacherUnreachable):
        label(source, out, fake, cache, deadline=1)
    before = len(written(out))
    assert 0 < before < 30
    with out.open("a", encoding="utf-8") as file:
        file.write('{"id": "torn')

    with FakeTeacher().serving() as fake:
        counts = label(source, out, fake, cache)
    assert (counts.done, counts.resumed) == (30, before)
    assert len(fake.calls) == 30 - 12  # what was paid before the outage is not paid again
    assert [line["id"] for line in written(out)] == [example.id for example in EXAMPLES]
    cache.close()


def test_the_labels_of_another_file_are_not_touched(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rule = TeacherConfig("rule", "rule")
    asyncio.run(label_file(source, out, prior=PRIOR, config=rule))
    before = out.read_bytes()
    source.write_text("".join(source.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    with pytest.raises(Conflict, match="line 1 is not the label"):
        asyncio.run(label_file(source, out, prior=PRIOR, config=rule))
    (tmp_path / "notes").write_text("hello\n", encoding="utf-8")
    with pytest.raises(Conflict, match="was not written by this command"):
        asyncio.run(label_file(source, tmp_path / "notes", prior=PRIOR, config=rule))
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "bad", ["{", "[]", '{"input": "a"}', '{"input": "a", "target": ""}', '{"input": 1, "target": "b"}']
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"input": "a ", "target": "b"}\n' + bad + "\n", encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        asyncio.run(label_file(path, tmp_path / "out", prior=PRIOR, config=TeacherConfig("rule", "rule")))
    assert caught.value.facts["line"] == 2


def test_the_cache_is_a_file(tmp_path: Path) -> None:
    reply = Reply("{}", Usage(1, 2), Finish.COMPLETE)
    cache = SqliteCache(tmp_path / "cache")
    assert asyncio.run(cache.get("a")) is None
    asyncio.run(cache.put("a", reply))
    asyncio.run(cache.put("a", reply))
    cache.close()
    again = SqliteCache(tmp_path / "cache")
    assert asyncio.run(again.get("a")) == reply
    again.close()


def test_commands(source: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["label", str(source), "--prior", str(PRIOR_FILE), "--out", str(out)]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["examples"], summary["outcomes"], summary["usd"]) == (30, {"labelled": 30}, 0)
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["resumed"] == 30

    with FakeTeacher().serving() as fake:
        monkeypatch.setenv("CAUSEWAY_TEACHERS__FAKE__BASE_URL", fake.base_url)
        monkeypatch.setenv("CAUSEWAY_TEACHERS__FAKE__MODEL", "m")
        monkeypatch.setenv("CAUSEWAY_TEACHERS__FAKE__PROMPT_PRICE", "2")
        monkeypatch.setenv("CAUSEWAY_TEACHERS__FAKE__COMPLETION_PRICE", "10")
        paid = ["label", str(source), "--prior", str(PRIOR_FILE), "--teacher", "fake", "--out", str(tmp_path / "paid")]
        assert main(paid) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["usd"] == pytest.approx(30 * (100 * 2 + 20 * 10) / 1e6)

    assert main([*arguments, "--teacher", "nobody"]) == 1
    assert "no teacher 'nobody'" in capsys.readouterr().err


def test_ground_reports_counts_on_its_last_line(tmp_path: Path, capsys) -> None:
    path = tmp_path / "published.jsonl"
    lines = [json.dumps(record) for record in published("train_s")] + ["{broken", '"text"', ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert main(["ground", str(path), "--report"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["examples"], report["edges"], report["kept"], report["malformed"]) == (402, 1200, 1200, 2)
    assert set(report) >= {"empty", "folded", "fuzzy", "ambiguous", "unresolved", "seconds"}

    assert main(["ground", str(path)]) == 0
    grounded = [example_from_json(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert len(grounded) == 400
    assert all(len(example.relations[0].causes) == 3 for example in grounded)
