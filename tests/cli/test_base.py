"""The built-in base can be written to a folder, by a child that has torch, so that an adapter loads elsewhere."""

import json
from pathlib import Path

import pytest

from cli.base import export
from core.errors import InvalidInput, TrainingFailed


def test_the_builtin_is_written_as_a_folder_that_transformers_knows(tmp_path: Path) -> None:
    export("builtin:small", tmp_path / "small")
    names = {path.name for path in (tmp_path / "small").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert json.loads((tmp_path / "small" / "config.json").read_text())["model_type"] == "llama"


def test_another_base_is_refused() -> None:
    with pytest.raises(InvalidInput, match="only builtin:small"):
        export("qwen", Path("nowhere"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingFailed, match="could not be written"):
        export("builtin:small", tmp_path / "file" / "small")
