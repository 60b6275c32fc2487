"""The dialogue about one example, without an endpoint."""

import json

import pytest

from annotator.teachers.base import Finish, Reply
from annotator.teachers.dialogue import cache_key, first_question, is_kept, read_answer, second_question
from core.domain.annotation import Example, Outcome, Prior, Usage

PRIOR = Prior("weather", "1", "Mark what the answer comes from.")
EXAMPLE = Example("sun 17? ", "yes")
GOOD = json.dumps({"relations": [{"effect": {"quote": "yes"}, "causes": [{"quote": "sun"}]}]})


def test_the_key_is_of_all_that_shapes_the_answer() -> None:
    asked = first_question(PRIOR, EXAMPLE)
    keys = {
        cache_key(asked, "m", {"temperature": 0.0}),
        cache_key(asked, "n", {"temperature": 0.0}),
        cache_key(asked, "m", {"temperature": 0.5}),
        cache_key(first_question(PRIOR, Example("sun 18? ", "yes")), "m", {"temperature": 0.0}),
    }
    assert len(keys) == 4
    assert cache_key(first_question(PRIOR, EXAMPLE), "m", {"temperature": 0.0}) in keys


def test_a_good_answer_is_the_last_word_and_kept() -> None:
    reply = Reply(GOOD, Usage(100, 20))
    annotation = read_answer(reply, EXAMPLE)
    assert (annotation.outcome, annotation.usage) == (Outcome.LABELLED, Usage(100, 20))
    assert second_question(first_question(PRIOR, EXAMPLE), reply, annotation) is None
    assert is_kept(annotation)


def test_an_unreadable_answer_is_shown_to_its_author_shortened() -> None:
    asked = first_question(PRIOR, EXAMPLE)
    reply = Reply("well " * 2_000)
    annotation = read_answer(reply, EXAMPLE)
    again = second_question(asked, reply, annotation)
    assert annotation.outcome is Outcome.UNREADABLE
    assert again is not None
    assert again[: len(asked)] == asked
    assert again[-2] == {"role": "assistant", "content": reply.text[:4_000]}
    assert annotation.detail in again[-1]["content"]
    assert not is_kept(annotation)


@pytest.mark.parametrize("finish", [finish for finish in Finish if finish is not Finish.COMPLETE])
def test_an_answer_that_did_not_end_well_is_not_asked_for_again(finish: Finish) -> None:
    reply = Reply("well", finish=finish)
    annotation = read_answer(reply, EXAMPLE)
    assert annotation.outcome not in (Outcome.LABELLED, Outcome.EMPTY)
    assert second_question(first_question(PRIOR, EXAMPLE), reply, annotation) is None
    assert not is_kept(annotation)
