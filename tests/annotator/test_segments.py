import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.segments import segment_at, segments_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("Has 3.5 kg of v1.2.", ["Has 3.5 kg of v1.2."]),
        ("a\r\nb\n\nc", ["a\r\n", "b\n\n", "c"]),
        ("She said “No.” Then left.", ["She said “No.” ", "Then left."]),
        ("二十五。十五只猫！好", ["二十五。", "十五只猫！", "好"]),
        ("ما هذا؟ كتاب.", ["ما هذا؟ ", "كتاب."]),
        ("यह है। वह था।", ["यह है। ", "वह था।"]),
        ("", []),
    ],
)
def test_lines_and_sentences(text: str, expected: list[str]) -> None:
    assert [segment.of(text) for segment in segments_of(text)] == expected


@given(st.text(alphabet="ab .!?\n\r。…”)", max_size=60), st.data())
def test_segments_cover_the_text_and_never_cross_the_target(text: str, data: st.DataObject) -> None:
    target_start = data.draw(st.integers(0, len(text)))
    segments = segments_of(text, target_start)
    assert "".join(segment.of(text) for segment in segments) == text
    assert not any(segment.start < target_start < segment.end for segment in segments)
    for offset in range(len(text)):
        number = segment_at(segments, offset)
        assert segments[number - 1].start <= offset < segments[number - 1].end
