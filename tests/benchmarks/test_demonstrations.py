import json
from pathlib import Path

import pytest

from benchmarks.demonstrations import main
from benchmarks.stg import published


def test_each_search_is_measured_on_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train_s.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in published("train_s")), encoding="utf-8")
    main([str(path), "--pool", "50", "--items", "5"])
    [(name, found)] = json.loads(capsys.readouterr().out.splitlines()[-1]).items()
    assert (name, found["pool"]) == ("train_s", 50)
    assert found["build_ms"] > 0
    for search in ("draw", "ratio", "token_set_ratio"):
        assert 0 < found[f"{search}_ms"] <= found[f"{search}_worst_ms"]


def test_without_a_file_it_is_stg(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--pool", "20", "--items", "3"])
    assert list(json.loads(capsys.readouterr().out.splitlines()[-1])) == ["stg"]
