"""Which labelled examples are drawn as demonstrations, beside a reference that computes every cosine by itself."""

import math
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.nearest import Pool, demonstration_of
from annotator.parsing import parse_reply
from annotator.prompts import render
from core.domain.annotation import Demonstration, Example, Prior, Quote
from core.domain.relations import Relation
from core.domain.spans import Span

PRIOR = Prior("weather", "1", "Mark what the answer comes from.")
WORDS = st.sampled_from(["sun", "Sun", "rain", "fog", "5", "58", "雨", "雪雨", "naïve", "🌧"])


def example(input_: str, target: str = "yes", *causes: tuple[int, int], id_: str = "") -> Example:
    effect = Span(len(input_), len(input_ + target))
    relations = (Relation(effect, tuple(Span(*cause) for cause in causes)),) if causes else ()
    return Example(input_, target, id_, relations=relations)


@st.composite
def labelled(draw: st.DrawFn) -> Example:
    words = draw(st.lists(WORDS, min_size=1, max_size=5))
    input_ = draw(st.sampled_from([" ", "  "])).join(words) + " "
    # A whole word; a part of one, which no quote can name; or nothing.
    causes = draw(st.sampled_from([[(0, len(words[0]))], [(1, len(words[0]))] if len(words[0]) > 1 else [], []]))
    return example(input_, draw(st.sampled_from(["yes", "no"])), *causes, id_=draw(st.sampled_from(["", "a", "b"])))


def reference(pool: list[Example], asked: Example, k: int) -> list[Demonstration]:
    """The definition: every text as a vector, every cosine, the duplicates struck out one by one."""

    def vector(text: str) -> dict[str, float]:
        words = re.findall(r"[雨雪]|[^\W雨雪]+", text.casefold())
        return {
            word: times * (1 + math.log((1 + len(pool)) / (1 + holders[word])))
            for word, times in Counter(words).items()
            if word in holders
        }

    holders: Counter[str] = Counter()
    for one in pool:
        holders.update(set(re.findall(r"[雨雪]|[^\W雨雪]+", one.text.casefold())))
    query = vector(asked.text)

    def similarity(one: Example) -> float:
        weights = vector(one.text)
        norm = math.sqrt(math.fsum(weight**2 for weight in weights.values()))
        return math.fsum(query.get(word, 0.0) * weight for word, weight in weights.items()) / (norm or 1.0)

    def same(one: Example, other: Example) -> bool:
        return one.text.casefold().split() == other.text.casefold().split()

    taken: list[Example] = []
    for one in sorted(pool, key=lambda one: -round(similarity(one), 9)):  # stable: equals in their order
        new = not same(one, asked) and not any(same(one, other) for other in taken)
        if new and not (one.id and one.id == asked.id) and demonstration_of(one):
            taken.append(one)
    return [shown for one in reversed(taken[:k]) if (shown := demonstration_of(one))]


@given(st.lists(labelled(), max_size=12), labelled(), st.integers(1, 8))
def test_the_nearest_are_those_of_the_definition(pool: list[Example], asked: Example, k: int) -> None:
    drawn = Pool(pool).draw(asked, k)
    assert list(drawn) == reference(pool, asked, k)
    assert Pool(pool).draw(asked, k) == drawn


@given(st.lists(labelled(), max_size=12), st.data())
def test_never_the_example_itself_nor_one_that_reads_the_same(pool: list[Example], data: st.DataObject) -> None:
    asked = data.draw(st.sampled_from(pool) if pool else labelled())
    texts = [(shown.input + shown.target).casefold().split() for shown in Pool(pool).draw(asked, 8)]
    assert asked.text.casefold().split() not in texts
    assert len(texts) == len({tuple(text) for text in texts})


@given(labelled())
def test_a_demonstration_says_what_the_spans_do_or_is_none(given_: Example) -> None:
    shown = demonstration_of(given_)
    if shown is None:
        return
    quotes = [(r.effect.quote, [cause.quote for cause in r.causes]) for r in shown.relations]
    spans = [(r.effect.of(given_.text), [cause.of(given_.text) for cause in r.causes]) for r in given_.relations]
    assert quotes == spans
    *_, answer, _ = render(PRIOR, Example("rain? ", "no"), [shown])
    assert parse_reply(answer["content"]) == shown.relations


def test_the_most_similar_comes_last_before_the_item() -> None:
    pool = [example("fog at sea: "), example("sun at noon: "), example("sun at noon, fog at sea: ")]
    drawn = Pool(pool).draw(example("sun at noon, fog at dusk: "), 2)
    assert [shown.input for shown in drawn] == ["sun at noon: ", "sun at noon, fog at sea: "]


def test_an_example_without_relations_shows_an_empty_answer() -> None:
    [shown] = Pool([example("fog: ")]).draw(example("sun: "), 3)
    *_, answer, _ = render(PRIOR, example("sun: "), [shown])
    assert parse_reply(answer["content"]) == ()


def test_of_two_places_of_a_phrase_the_segment_names_the_right_one() -> None:
    text = "It is 5. It is 5. So "
    shown = demonstration_of(example(text, "five", (6, 7)))
    assert shown is not None
    assert shown.relations[0].causes == (Quote("5", 1),)
    within_one = demonstration_of(example("It is 5 and 5, so ", "five", (6, 7)))
    assert within_one is None  # the quote would say the second


@pytest.mark.parametrize("cause", [(1, 3), (4, 5)])  # "un" of "sun", "5" of "58"
def test_what_no_quote_can_say_is_not_shown(cause: tuple[int, int]) -> None:
    assert demonstration_of(example("sun 58? ", "yes", cause)) is None
    assert Pool([example("sun 58? ", "yes", cause)]).draw(example("sun 17? "), 3) == ()


def test_an_empty_pool_draws_nothing() -> None:
    assert (len(Pool([])), Pool([]).draw(example("sun: "), 3)) == (0, ())
