"""What both databases can store."""

import json

from hypothesis import given
from hypothesis import strategies as st

from core.db.models import TeacherReply
from core.db.session import Database
from core.db.text import storable, storable_text

_TEXT = st.text(st.characters(), max_size=20)  # NUL and lone surrogates too
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats() | _TEXT,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(_TEXT, part, max_size=3),
)


@given(_TEXT)
def test_text_is_left_alone_where_it_can_be(text: str) -> None:
    made = storable_text(text)
    made.encode()
    assert "\x00" not in made
    if "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text):
        assert made == text


@given(_JSON)
def test_any_json_becomes_strict_json(value: object) -> None:
    text = json.dumps(storable(value), allow_nan=False, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text


def test_it_can_be_stored(database: Database) -> None:
    nasty = {"a\x00": ["\ud83d", float("inf"), {"b": "ok \U0001f985"}]}
    with database.transaction() as uow:
        uow.session.add(TeacherReply(tenant_id="acme", prompt_hash="h", reply=storable(nasty)))
    with database.reading() as session:
        found = session.get(TeacherReply, ("acme", "h"))
        assert found is not None
        assert found.reply == {"a\ufffd": ["\ufffd", None, {"b": "ok \U0001f985"}]}
