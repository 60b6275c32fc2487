import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.lines import Lines
from core.errors import InvalidInput, PayloadTooLarge
from core.settings import LimitSettings

LIMITS = LimitSettings(line_bytes=1_000, upload_bytes=100_000, upload_rows=1_000)
bodies = st.lists(st.sampled_from([b"\n", b"\r\n", b" ", b"ab", b"\xc3\xa9", b'{"a": 1}']), max_size=40).map(b"".join)


def cut(body: bytes, at: list[int], *, gzipped: bool = False) -> list[tuple[int, bytes]]:
    lines = Lines(LIMITS, gzipped=gzipped)
    found = []
    for start, end in zip([0, *at], [*at, len(body)], strict=True):
        found += lines.feed(body[start:end])
    return found + list(lines.finish())


def slowly(body: bytes) -> list[tuple[int, bytes]]:
    """The reference: all at once, with nothing to remember between two pieces."""
    return [(number, line) for number, line in enumerate(body.split(b"\n"), start=1) if line.strip()]


@given(body=bodies, data=st.data(), gzipped=st.booleans())
def test_lines_do_not_depend_on_where_the_pieces_end(body: bytes, data: st.DataObject, gzipped: bool) -> None:
    sent = gzip.compress(body) if gzipped else body
    at = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    assert cut(sent, at, gzipped=gzipped) == slowly(body)


def test_a_byte_order_mark_is_not_content() -> None:
    assert cut(b"\xef\xbb\xbf{}\n\xef\xbb\xbf", []) == [(1, b"{}"), (2, b"\xef\xbb\xbf")]


def test_several_gzip_streams_are_one_file() -> None:
    assert cut(gzip.compress(b"a\nb") + gzip.compress(b"c\n"), [], gzipped=True) == [(1, b"a"), (2, b"bc")]


def test_a_gzip_that_ends_too_early_or_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too early"):
        cut(gzip.compress(b"a\nb")[:-3], [], gzipped=True)
    with pytest.raises(InvalidInput, match="not gzip"):
        cut(b"a\n", [], gzipped=True)


@pytest.mark.parametrize("where", [b"", b"ok\n"])
@pytest.mark.parametrize("rest", [b"", b"\nok\n"])
def test_a_line_that_is_too_long_is_named(where: bytes, rest: bytes) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        cut(where + b"x" * 1_001 + rest, [])
    assert caught.value.facts == {"line": 1 + where.count(b"\n"), "limit": 1_000}
    assert cut(where + b"x" * 1_000 + rest, [])


def test_a_line_that_is_too_long_is_noticed_before_it_has_ended() -> None:
    lines = Lines(LIMITS)
    assert list(lines.feed(b"x" * 900)) == []
    with pytest.raises(PayloadTooLarge):
        list(lines.feed(b"x" * 900))


def test_too_many_lines_are_noticed_at_the_first_that_is_too_many() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        cut(b"\n" + b"x\n" * 1_001, [])
    assert caught.value.facts["line"] == 1_002


def test_a_gzip_bomb_is_stopped_by_the_limit_of_what_it_unpacks_to() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(b"\n" * 50_000_000) + packer.flush()
    assert len(bomb) < LIMITS.upload_bytes
    with pytest.raises(PayloadTooLarge, match="100000 bytes"):
        cut(bomb, [], gzipped=True)
