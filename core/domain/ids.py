"""Public identifiers: a prefix that says what it names, then 48 bits of time and 80 of chance, so ids sort by age."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u


def new_id(prefix: str) -> str:
    """A fresh id, e.g. `ds_01jd8x3v5zq6m8k2c4r7t9w0ab`: 26 characters after the prefix, sorted by millisecond."""
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
