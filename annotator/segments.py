"""Numbered segments of a text: its lines and sentences, so that a teacher can say where a phrase stands."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from core.domain.spans import Span

# A segment ends after a line break, after a full-width full stop, or after a full stop and the white space behind it;
# closing quotes and brackets stay with their sentence. "3.5" and "v1.2" have no white space, so they stay whole.
_END = re.compile(
    r"""
    (?: \r\n | [\n\r\v\f\x1c-\x1e\x85\u2028\u2029] )+
  | [。！？｡]+ ["'”’»)\]」』】）]* [^\S\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*
    (?: \r\n | [\n\r\v\f\x1c-\x1e\x85\u2028\u2029] )*
  | [.!?…؟।။።]+ ["'”’»)\]]* (?=\s) [^\S\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*
    (?: \r\n | [\n\r\v\f\x1c-\x1e\x85\u2028\u2029] )*
    """,
    re.VERBOSE,
)


def segments_of(text: str, target_start: int | None = None) -> tuple[Span, ...]:
    """Cut a text into segments that cover it without gap or overlap; number them from 1.

    A segment never crosses `target_start`, so the target has segments of its own. White space between two sentences
    belongs to the first.
    """
    cuts = {match.end() for match in _END.finditer(text)}
    if target_start is not None:
        cuts.add(target_start)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    return tuple(Span(a, b) for a, b in pairwise(edges) if a < b)


def segment_at(segments: Sequence[Span], offset: int) -> int:
    """The number (from 1) of the segment that holds the code point at `offset`."""
    return bisect_right(segments, offset, key=lambda segment: segment.start)
