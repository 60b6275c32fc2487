"""The rules of the house that no linter knows, read from the source. The import rules stand in pyproject.toml."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("core", "annotator", "trainer", "api", "worker", "migrations", "cli", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Longer than 300 lines, and why that reads better than two files.
LONG: dict[str, str] = {}

# "path:function" of the one import a function may hold for each optional extra (docs/decisions, CONTRIBUTING.md).
LATE_IMPORTS: set[str] = {"benchmarks/speed/contestants.py:_load_trl"}

_VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
_REGISTRIES = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs|docker\.io|ghcr\.io|quay\.io|gcr\.io|conda\.anaconda"
)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _calls(tree: ast.AST, attribute: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == attribute:
            yield node


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_there_is_something_to_read() -> None:
    assert len(SOURCES) > 30


def test_only_the_session_module_commits() -> None:
    committing = {_name(path) for path in SOURCES if any(_calls(_tree(path), "commit"))}
    assert committing == {"core/db/session.py"}


def test_no_function_imports() -> None:
    late = set()
    for path in SOURCES:
        for function in ast.walk(_tree(path)):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function)):
                late.add(f"{_name(path)}:{function.name}")
    assert late - LATE_IMPORTS == set()


def test_no_import_is_hidden_from_the_interpreter() -> None:
    hidden = {_name(path) for path in SOURCES if re.search(r"\bTYPE_CHECKING\b", path.read_text(encoding="utf-8"))}
    assert hidden == set()


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [_name(path) for path in SOURCES if path.stem in _VAGUE or path.parent.name in _VAGUE] == []


def test_files_are_short() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name for name, length in lengths.items() if length > 300} - set(LONG) == set()


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_package_says_what_it_is(folder: str) -> None:
    assert ast.get_docstring(_tree(ROOT / folder / "__init__.py"))


def test_no_registry_is_named() -> None:
    named = []
    for path in _tracked():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if _REGISTRIES.search(text):
            named.append(_name(path))
    assert named == []


def test_the_engines_print_nothing() -> None:
    """Their output is events and files; only an entry point talks to a person."""
    printing = set()
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] not in ("core", "annotator", "trainer", "api", "worker"):
            continue
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                printing.add(path)
    assert [_name(path) for path in printing if not re.search(r"^def main\(", path.read_text(), re.MULTILINE)] == []
