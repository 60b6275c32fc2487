import json

from hypothesis import given
from hypothesis import strategies as st

from annotator.wire import annotation_from_json, annotation_to_json
from core.domain.annotation import Annotation, GroundedRelation, Outcome, Phrase, Reason, Unresolved, Usage
from core.domain.spans import Grounding, Span

spans = st.tuples(st.integers(0, 99), st.integers(1, 9)).map(lambda pair: Span(pair[0], pair[0] + pair[1]))
phrases = st.builds(Phrase, spans, st.text(max_size=5), st.sampled_from(Grounding), st.integers(1, 9), st.booleans())
annotations = st.builds(
    Annotation,
    st.sampled_from(Outcome),
    st.lists(
        st.builds(GroundedRelation, phrases, st.lists(phrases, min_size=1, max_size=3).map(tuple)), max_size=3
    ).map(tuple),
    st.lists(
        st.builds(Unresolved, st.text(max_size=5), st.text(max_size=5), st.sampled_from(Reason), st.booleans()),
        max_size=3,
    ).map(tuple),
    st.text(max_size=9),
    st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
    st.text(max_size=9),
    st.text(max_size=9),
)


@given(annotations)
def test_an_annotation_survives_json(annotation: Annotation) -> None:
    assert annotation_from_json(json.loads(json.dumps(annotation_to_json(annotation)))) == annotation
