"""The command as a shell sees it: help everywhere, one red line for an error, exit status."""

import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.app import app, main
from core.errors import Unavailable

COMMANDS = [
    [],
    ["serve"],
    ["demo"],
    ["migrate"],
    ["health"],
    ["keys"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
]
COMMANDS += [["base"], ["base", "list"], ["base", "export"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_everything_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_every_command_is_in_the_list_above() -> None:
    root = get_command(app)
    names = [[name] for name in root.commands]  # type: ignore[attr-defined]
    names += [[n, sub] for n, command in root.commands.items() for sub in getattr(command, "commands", {})]  # type: ignore[attr-defined]
    assert sorted(names) == sorted(COMMANDS[1:])


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["causeway", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_a_refusal_is_one_line_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "base", "export", "qwen", "nowhere") == 1
    err = capsys.readouterr().err
    assert err.startswith("error [invalid_input] ")
    assert err.count("\n") == 1


def test_a_wrong_variable_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAUSEWAY_JOBS__LEASE", "secret-value")
    assert _main(monkeypatch, "base", "list") == 1
    err = capsys.readouterr().err
    assert "CAUSEWAY_JOBS__LEASE" in err
    assert "secret-value" not in err


def test_a_database_that_is_away_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAUSEWAY_DATABASE__URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert _main(monkeypatch, "keys", "list") == 1
    assert capsys.readouterr().err.startswith(f"error [{Unavailable.code}]")


def test_misuse_exits_2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _main(monkeypatch, "keys", "revoke") == 2


def test_base_list_shows_the_builtin_and_the_configured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAUSEWAY_BASE_MODELS", '{"qwen": {"source": "some/where", "revision": "main"}}')
    assert _main(monkeypatch, "base", "list") == 0
    out = capsys.readouterr().out
    for shown in ("builtin:small", "qwen", "some/where", "main"):
        assert shown in out


def test_the_command_line_carries_no_torch() -> None:
    seen = "import sys; import cli.app; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", seen], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
