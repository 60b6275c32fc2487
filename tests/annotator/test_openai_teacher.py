"""The openai teacher against a scripted endpoint over HTTP: every reply has an outcome, every fault its policy."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from annotator.annotate import annotate_one, open_teacher
from annotator.teachers.base import Reply
from annotator.teachers.health import EndpointHealth
from benchmarks.stg import generate
from core.domain.annotation import (
    Annotation,
    Demonstration,
    Example,
    Outcome,
    Prior,
    Quote,
    QuotedRelation,
    TeacherConfig,
)
from core.errors import TeacherRejected, TeacherUnreachable
from tests.fake_teacher import FakeTeacher

PRIOR = Prior(
    "stg",
    "1",
    "Smoking, Weight and Exercise decide.",
    (Demonstration("Smoking: 3 Answer: ", "Low", (QuotedRelation(Quote("Low"), (Quote("Smoking: 3"),)),)),),
)
CONFIG = TeacherConfig("fake", "openai", model="fake-1", api_key="k", max_attempts=3, deadline=120, concurrency=4)
EXAMPLES = list(generate(12, seed=1))


class MemoryCache:
    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}

    async def get(self, prompt_hash: str) -> Reply | None:
        return self.replies.get(prompt_hash)

    async def put(self, prompt_hash: str, reply: Reply) -> None:
        self.replies[prompt_hash] = reply


def label(fake: FakeTeacher, examples: list[Example], config: TeacherConfig = CONFIG, **options) -> list[Annotation]:
    async def run() -> list[Annotation]:
        health = options.get("health")
        async with open_teacher(replace(config, base_url=fake.base_url), PRIOR, health=health) as teacher:
            calls = [annotate_one(teacher, example, cache=options.get("cache")) for example in examples]
            return await asyncio.gather(*calls)

    return asyncio.run(run())


def test_labels_what_the_generator_says_within_its_concurrency() -> None:
    with FakeTeacher(latency=0.02).serving() as fake:
        annotations = label(fake, EXAMPLES)
    for example, annotation in zip(EXAMPLES, annotations, strict=True):
        assert annotation.outcome is Outcome.LABELLED
        (relation,) = annotation.relations
        assert relation.relation == example.relations[0]
        assert (annotation.usage.prompt_tokens, annotation.usage.completion_tokens) == (100, 20)
        assert len(annotation.prompt_hash) == 64
    assert max(call.in_flight for call in fake.calls) == 4
    assert {call.authorization for call in fake.calls} == {"Bearer k"}


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("prose", Outcome.UNREADABLE),
        ("half", Outcome.UNREADABLE),
        ("junk", Outcome.UNREADABLE),
        ("html", Outcome.UNREADABLE),
        ("many", Outcome.UNREADABLE),
        ("huge", Outcome.UNREADABLE),
        ("endless", Outcome.UNREADABLE),
        ("length", Outcome.TRUNCATED),
        ("filter", Outcome.FILTERED),
        ("refusal", Outcome.REFUSED),
        ("refusal_prose", Outcome.REFUSED),
        ("400", Outcome.FAILED),
        ("422", Outcome.FAILED),
        ("other", Outcome.EMPTY),
        ("everything", Outcome.EMPTY),
    ],
)
def test_a_bad_reply_is_its_items_own_outcome(fault: str, outcome: Outcome) -> None:
    def faults(item: str) -> str:
        return fault if EXAMPLES[0].input.split("cancer. ")[1].strip() in item else "ok"

    with FakeTeacher(faults).serving() as fake:
        first, *rest = label(fake, EXAMPLES[:4])
    assert first.outcome is outcome
    assert first.detail
    assert len(first.raw_reply) <= 20_000
    assert {annotation.outcome for annotation in rest} == {Outcome.LABELLED}


def test_an_unreadable_reply_is_asked_for_once_more_and_both_are_paid() -> None:
    with FakeTeacher(["prose"]).serving() as fake:
        (annotation,) = label(fake, EXAMPLES[:1])
    assert annotation.outcome is Outcome.LABELLED
    assert annotation.usage.prompt_tokens == 200
    assert [call.messages for call in fake.calls] == [4, 6]
    assert "could not be read" in fake.calls[1].prompt


@pytest.mark.parametrize("faults", [["500", "503"], ["reset", "torn"], ["hang"], ["429", "429=0.1"], ["408"]])
def test_transient_faults_are_retried(faults: list[str]) -> None:
    config = replace(CONFIG, read_timeout=2 if "hang" in faults else CONFIG.read_timeout)
    with FakeTeacher(faults).serving() as fake:
        (annotation,) = label(fake, EXAMPLES[:1], config)
    assert annotation.outcome is Outcome.LABELLED
    assert len(fake.calls) == len(faults) + 1


def test_retry_after_holds_every_call_back() -> None:
    with FakeTeacher(["429=1"]).serving() as fake:
        label(fake, EXAMPLES[:6], replace(CONFIG, concurrency=1))
    told, *later = fake.calls
    assert len(later) == 6
    assert min(call.at for call in later) - told.at >= 1


def test_an_exhausted_rate_limit_is_waited_for() -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    with FakeTeacher(headers=headers).serving() as fake:
        label(fake, EXAMPLES[:3], replace(CONFIG, concurrency=1))
    starts = [call.at for call in fake.calls]
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(starts))


@pytest.mark.parametrize("status", ["401", "402", "403", "404", "quota", "redirect"])
def test_a_lasting_refusal_of_every_call_is_raised_after_one_call(status: str) -> None:
    with FakeTeacher([status] * 9).serving() as fake, pytest.raises(TeacherRejected) as caught:
        label(fake, EXAMPLES[:1])
    assert len(fake.calls) == 1
    assert caught.value.facts["teacher"] == "fake"


def test_an_endpoint_that_keeps_failing_is_unreachable_after_its_attempts() -> None:
    with FakeTeacher(lambda item: "500").serving() as fake, pytest.raises(TeacherUnreachable, match="HTTP 500"):
        label(fake, EXAMPLES[:1])
    assert len(fake.calls) == CONFIG.max_attempts


def test_nobody_listening_is_unreachable() -> None:
    with FakeTeacher().serving() as fake:
        pass  # its port is free again
    with pytest.raises(TeacherUnreachable):
        label(fake, EXAMPLES)


def test_a_deadline_ends_the_wait() -> None:
    with FakeTeacher(lambda item: "429=600").serving() as fake, pytest.raises(TeacherUnreachable, match=r"for 1\.5 s"):
        label(fake, EXAMPLES[:1], replace(CONFIG, deadline=1.5))
    assert len(fake.calls) == 1  # the pause the endpoint asked for is kept to the end


@pytest.mark.parametrize(
    ("formats", "tried"),
    [
        ({"json_schema", "json_object", ""}, ["json_schema"] * 4),
        ({"json_object", ""}, ["json_schema"] + ["json_object"] * 4),
        ({""}, ["json_schema", "json_object"] + [""] * 4),
    ],
)
def test_structured_output_steps_down_and_is_remembered(formats: set[str], tried: list[str]) -> None:
    health = EndpointHealth(most=CONFIG.concurrency)
    with FakeTeacher(formats=frozenset(formats)).serving() as fake:
        annotations = label(fake, EXAMPLES[:1], health=health)
        annotations += label(fake, EXAMPLES[1:4], health=health)
    assert {annotation.outcome for annotation in annotations} == {Outcome.LABELLED}
    assert [call.response_format for call in fake.calls] == tried


def test_the_same_job_twice_makes_no_call() -> None:
    cache = MemoryCache()
    with FakeTeacher().serving() as fake:
        first = label(fake, EXAMPLES, cache=cache)
        again = label(fake, EXAMPLES, cache=cache)
    assert len(fake.calls) == len(EXAMPLES)
    assert [a.relations for a in first] == [a.relations for a in again]
    assert {a.usage.prompt_tokens for a in again} == {0}


def test_an_unreadable_reply_is_not_cached() -> None:
    cache = MemoryCache()
    with FakeTeacher(lambda item: "prose").serving() as fake:
        label(fake, EXAMPLES[:1], cache=cache)
    assert cache.replies == {}


def test_an_outage_is_probed_not_hammered_and_nothing_is_lost() -> None:
    config = replace(CONFIG, concurrency=8)
    health = EndpointHealth(most=config.concurrency)
    with FakeTeacher(["ok"] * 8 + ["503"] * 14).serving() as fake:
        annotations = label(fake, EXAMPLES[:8], config, health=health)  # all home before the outage begins
        annotations += label(fake, list(generate(60, seed=2)), config, health=health)
    assert {annotation.outcome for annotation in annotations} == {Outcome.LABELLED}
    failed = [call for call in fake.calls if call.fault == "503"]
    assert len(failed) == 14
    # Before the fifth failure in a row opens the breaker, each of the first four lets another call begin beside the
    # eight that were under way; from then on one goes out at a time.
    assert all(call.in_flight == 1 for call in failed[12:])
    assert len(fake.calls) == 8 + 60 + 14


def test_a_storm_of_429_costs_no_item() -> None:
    with FakeTeacher(["429"] * 40).serving() as fake:
        annotations = label(fake, EXAMPLES, replace(CONFIG, concurrency=8, max_attempts=2))
    assert [annotation.outcome for annotation in annotations] == [Outcome.LABELLED] * len(EXAMPLES)


def test_the_rate_of_requests_is_kept() -> None:
    with FakeTeacher().serving() as fake:
        label(fake, EXAMPLES[:8], replace(CONFIG, requests_per_minute=240))  # 8 at once, 4 a second
        label(fake, EXAMPLES[:4], replace(CONFIG, requests_per_minute=60))  # 2 at once, 1 a second
    starts = [call.at for call in fake.calls[8:]]
    assert starts[3] - starts[0] >= 1.9


def test_an_endpoint_given_up_on_is_tried_again_by_the_next_job() -> None:
    health = EndpointHealth(most=CONFIG.concurrency)
    with FakeTeacher(lambda item: "503").serving() as fake, pytest.raises(TeacherUnreachable):
        label(fake, EXAMPLES, health=health)
    assert health.is_open
    with FakeTeacher().serving() as fake:
        annotations = label(fake, EXAMPLES, health=health)
    assert {annotation.outcome for annotation in annotations} == {Outcome.LABELLED}


def test_waiting_behind_others_is_not_charged_to_an_items_deadline() -> None:
    with FakeTeacher(latency=0.3).serving() as fake:  # 12 of them, one at a time: longer than the deadline of each
        annotations = label(fake, EXAMPLES, replace(CONFIG, concurrency=1, deadline=3))
    assert {annotation.outcome for annotation in annotations} == {Outcome.LABELLED}


def test_parameters_a_model_does_not_take_are_left_out_and_remembered() -> None:
    health = EndpointHealth(most=1)
    with FakeTeacher(refuses=frozenset(("max_tokens", "temperature"))).serving() as fake:
        annotations = label(fake, EXAMPLES[:1], health=health) + label(fake, EXAMPLES[1:3], health=health)
    assert {annotation.outcome for annotation in annotations} == {Outcome.LABELLED}
    assert len(fake.calls) == 3 + 2
    assert {call.parameters for call in fake.calls[2:]} == {("max_completion_tokens",)}


def test_every_refused_parameter_is_given_up_once() -> None:
    with FakeTeacher(refuses=frozenset(("max_tokens", "max_completion_tokens"))).serving() as fake:
        annotations = label(fake, EXAMPLES[:3], replace(CONFIG, concurrency=1))
    assert {annotation.outcome for annotation in annotations} == {Outcome.LABELLED}
    assert fake.calls[-1].parameters == ("temperature",)
    assert len(fake.calls) <= 3 + 2 * 3
