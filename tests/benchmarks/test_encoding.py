"""The table of benchmarks.encoding, on a few examples."""

import json

import pytest

from benchmarks import stg
from benchmarks.encoding import main, subwords
from core.domain.training import Rows
from trainer.encoding import encode_all


def test_what_was_asked_for_is_encoded_by_both_tokenizers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    main(["--examples", "20", "--repeats", "2", "--vocabulary", "280"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found) == ["builtin:small", "BPE of 280"]
    for one in found.values():
        assert one["examples"] == 20
        assert min(one[f"{name}_per_second"] for name in ("tokenise", "encode", "all")) > 0
    encoded = encode_all(subwords(280), list(stg.generate(20, seed=1)), max_length=4096, rows=Rows.CLOSURE)
    assert found["BPE of 280"]["tokens"] == round(sum(len(e.ids) for e in encoded) / 20, 2)
    assert found["BPE of 280"]["rows"] == round(sum(len(e.row_positions) for e in encoded) / 20, 2)


def test_fewer_merges_are_more_tokens() -> None:
    [example] = stg.generate(1, seed=3)
    few, many = (len(subwords(size)(example.text).input_ids) for size in (265, 320))
    assert few > many
