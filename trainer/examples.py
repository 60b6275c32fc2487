"""Reading the examples of a JSONL file, as a run folder holds them."""

import json
from pathlib import Path

from core.domain.annotation import Example
from core.domain.run_folder import example_from_json
from core.errors import InvalidInput, NotFound


def read_examples(path: Path) -> list[Example]:
    """All examples of a file, one JSON object a line (see core.domain.run_folder); empty lines are skipped.

    Raises
    ------
    NotFound
        When there is no such file.
    InvalidInput
        A line is not an example; facts `file` and `line` (1-based) say where.
    """
    examples = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    examples.append(_example_of(line, path, number))
    except FileNotFoundError as exc:
        raise NotFound(f"there is no file {path}", file=str(path)) from exc
    return examples


def _example_of(line: bytes, path: Path, number: int) -> Example:
    try:
        return example_from_json(json.loads(line))
    except (ValueError, InvalidInput, TypeError, RecursionError) as exc:  # JSON that is none, or not in UTF-8
        reason = exc.message if isinstance(exc, InvalidInput) else "not a JSON object"
        raise InvalidInput(f"{path.name}, line {number}: {reason}", file=str(path), line=number) from exc
