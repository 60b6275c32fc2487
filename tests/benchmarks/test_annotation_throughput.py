"""The arithmetic of the throughput benchmark, and its fake teacher."""

import json
import random
import statistics

import pytest

from annotator.prompts import render
from benchmarks import stg
from benchmarks.throughput.calls import Call, efficiency, recovery
from benchmarks.throughput.teacher import FakeTeacher, Manner
from core.domain.annotation import Prior
from core.errors import InvalidInput


def _steady(start: float, end: float, rate: float) -> list[Call]:
    count = round((end - start) * rate)
    return [Call(start + n / rate - 1, start + n / rate, 1.0, good=True) for n in range(count)]


def _storm(start: float, end: float) -> list[Call]:
    return [Call(at, at, 0.0, good=False) for at in (start, end)]


def test_a_full_house_is_fully_efficient_and_an_idle_half_is_half() -> None:
    waves = [Call(float(wave), wave + 1.0, 1.0, good=True) for wave in range(10) for _ in range(4)]
    assert efficiency(waves, concurrency=4) == pytest.approx(1.0)
    assert efficiency(waves, concurrency=8) == pytest.approx(0.5)
    late = [Call(call.came * 2, call.came * 2 + 1, 1.0, good=True) for call in waves]
    assert efficiency(late, concurrency=4) == pytest.approx(10 / 19)


def test_calls_that_were_told_to_slow_down_are_no_work_done() -> None:
    assert efficiency([*_steady(1, 11, 4), *_storm(2, 3)], concurrency=4) == efficiency(
        _steady(1, 11, 4), concurrency=4
    )
    with pytest.raises(InvalidInput):
        efficiency(_storm(2, 3), concurrency=4)


@pytest.mark.parametrize(("rate", "expected"), [(100, 7.0), (91, 7.0), (80, None)])
def test_recovery_is_the_end_of_the_first_window_at_nine_tenths(rate: float, expected: float | None) -> None:
    calls = [*_steady(0, 10, 100), *_storm(10, 20), *_steady(22, 25, 10), *_steady(25, 60, rate)]
    found = recovery(calls, window=2)
    assert found == (None if expected is None else pytest.approx(expected, abs=0.25))


def test_a_reply_that_was_on_its_way_is_no_recovery() -> None:
    calls = [*_steady(0, 10, 10), *_storm(10, 20), *_steady(19, 20, 100), *_steady(30, 40, 10)]
    assert recovery(calls, window=1) == pytest.approx(11, abs=0.2)


def test_latency_has_the_mean_and_spread_it_is_said_to_have() -> None:
    chance = random.Random(0)
    draws = [Manner(1.0, cv=0.5).latency(chance) for _ in range(20_000)]
    assert statistics.fmean(draws) == pytest.approx(1.0, abs=0.02)
    assert statistics.stdev(draws) / statistics.fmean(draws) == pytest.approx(0.5, abs=0.03)
    assert Manner(0.3).latency(chance) == 0.3


def test_the_fake_teacher_labels_and_storms_as_scripted() -> None:
    [example] = stg.generate(1, seed=3)
    teacher = FakeTeacher({"m": Manner(1.0, storm_after=10, storm=5)})
    body = json.dumps({"model": "m", "messages": render(Prior("p", "1", "Mark."), example)}).encode()
    answers = [teacher.answer("/chat/completions", body, now) for now in (100.0, 109.9, 110.0, 115.0)]
    assert [(answer.wait, answer.data.split()[1]) for answer in answers] == [
        (1.0, b"200"), (1.0, b"200"), (0.0, b"429"), (1.0, b"200"),
    ]  # fmt: skip
    content = json.loads(answers[0].data.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]
    [relation] = json.loads(content)["relations"]
    assert relation["effect"]["quote"] == example.target
    assert [cause["quote"] for cause in relation["causes"]] == [
        cause.of(example.text) for cause in example.relations[0].causes
    ]
