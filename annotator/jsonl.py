"""Files of one JSON object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.domain.annotation import Example
from core.domain.run_folder import example_from_json
from core.errors import InvalidInput


def read_records(path: Path) -> Iterator[Any]:
    """Every line that is not blank, as JSON; a line that is not JSON comes as its text, and never raises."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield line


def read_examples(path: Path) -> Iterator[Example]:
    """Every line as an example of core.domain.run_folder. Raises InvalidInput with the number of the bad line."""
    for number, record in enumerate(read_records(path), start=1):
        texts = isinstance(record, dict) and [record.get("input"), record.get("target")]
        if not texts or not all(isinstance(text, str) for text in texts) or not texts[1]:
            raise InvalidInput(
                f'{path.name}, example {number}: needs {{"input": text, "target": text}}, the target not empty',
                line=number,
            )
        known = {name: record[name] for name in ("id", "input", "target", "choices") if record.get(name) is not None}
        yield example_from_json(known)


def whole_lines(path: Path) -> int:
    """Cut off a last line that a crash left unfinished, and count those that are whole."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    return data.count(b"\n")
