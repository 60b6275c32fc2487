import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.importer import ground_important, read_important, write_important
from annotator.report import report_on
from benchmarks.stg import published
from core.domain.annotation import Quote, QuotedRelation

quotes = st.builds(Quote, st.text(max_size=8))
relations = st.lists(st.builds(QuotedRelation, quotes, st.lists(quotes, max_size=3).map(tuple))).map(tuple)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def relation(effect: str, *causes: str) -> QuotedRelation:
    return QuotedRelation(Quote(effect), tuple(Quote(cause) for cause in causes))


@given(relations)
def test_what_is_exported_is_imported_back(said: tuple[QuotedRelation, ...]) -> None:
    assert read_important(write_important(said)) == (said, 0)


@pytest.mark.parametrize(
    ("important", "said", "malformed"),
    [
        ([{"a": ["b", "c"]}], (relation("a", "b", "c"),), 0),
        ([{"a": ["b"], "c": ["d"]}], (relation("a", "b"), relation("c", "d")), 0),
        ({"a": ["b"]}, (relation("a", "b"),), 0),
        ([{"a": "whole"}], (relation("a", "whole"),), 0),
        ([{"a": []}], (relation("a"),), 0),
        ([{"a": {"b": ["c"]}}], (), 1),
        ([{"a": ["b", 5, 2.5]}, {"c": 7}], (relation("a", "b", "5", "2.5"), relation("c", "7")), 0),
        ([{"a": ["b", None, True, ["c"]]}], (relation("a", "b"),), 3),
        (["a", 5, {"a": ["b"]}], (relation("a", "b"),), 2),
        ("a", (), 1),
        (None, (), 0),
        ([], (), 0),
    ],
)
def test_forms_of_the_published_format(important: object, said: object, malformed: int) -> None:
    assert read_important(important) == (said, malformed)


@given(anything, st.text(max_size=20), st.text(max_size=10))
def test_no_record_raises(important: object, input_: str, target: str) -> None:
    ground_important(input_, target, important)
    report = report_on([{"input": input_, "target": target, "important": important}, important])
    assert report.examples == 2
    assert report.edges == report.kept + sum(report.unresolved.values())


def test_the_report_of_the_published_stg_file_keeps_every_edge() -> None:
    report = report_on(published("train_l"))
    assert (report.examples, report.edges, report.kept) == (1600, 4800, 4800)
    assert (report.empty, report.folded, report.fuzzy, report.ambiguous, report.unresolved) == (0, 0, 0, 0, {})


def test_the_report_adds_up() -> None:
    text = "Tom has 5 eggs. Tom eats 2. Answer: "
    report = report_on(
        [
            {"input": text, "target": "3 eggs", "important": [{"3 eggs": ["5 eggs", "EATS 2", "Tom", "4"]}]},
            {"input": text, "target": "3 eggs", "important": [{"Tom eats 2": ["3 eggs"]}, {"gone": "Tom"}, {"3": []}]},
            {"input": text, "target": "3 eggs", "important": {}},
            {"input": text, "target": "3 eggs", "important": [{"3 eggs": ["has 5 egg"]}]},
            {"input": text},
            "not a record",
        ]
    )
    counts = report.to_json()
    assert counts["examples"] == 6
    assert counts["malformed"] == 2
    assert counts["empty"] == 3
    assert counts["edges"] == 7
    assert counts["kept"] == 4
    assert counts["folded"] == 1
    assert counts["fuzzy"] == 1
    assert counts["ambiguous"] == 1
    assert counts["unresolved"] == {"not_before_effect": 1, "not_found": 2}
    assert counts["phrases"] == 12


def test_a_number_is_a_target_as_it_is_written() -> None:
    report = report_on([{"input": "Air: 31; AQI: ", "target": 46, "important": [{"46": ["Air: 31"]}]}])
    assert (report.malformed, report.kept) == (0, 1)
