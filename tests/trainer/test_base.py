"""`builtin:small`: the same bytes everywhere, any text round-trips, safe to make twice at once."""

import errno
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.domain.run_folder import BaseModelSpec
from core.errors import BaseModelUnavailable, DiskFull
from trainer.base import WEIGHTS, export_small, main, small_files, small_folder, small_revision
from trainer.base_files import load
from trainer.base_tokenizer import build_tokenizer

WEIGHTS_SHA256 = "747e854ad6db9ae4e7f5775d3e06f3463ac01fb270d2611ab53e3d6b65be2693"


def test_weights_are_the_known_bytes():
    assert hashlib.sha256(small_files()[WEIGHTS]).hexdigest() == WEIGHTS_SHA256
    assert small_revision() == WEIGHTS_SHA256[:12]


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_bytes_do_not_depend_on_the_processor(tmp_path, capability):
    numpy_off = "AVX2 FMA3 AVX512F" if capability == "default" else ""
    folder = tmp_path / "small"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "NPY_DISABLE_CPU_FEATURES": numpy_off}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "trainer.base", "export", str(folder)], env=environment, check=True
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == small_files()


def test_generator_matches_plain_integers():
    """SplitMix64 with Python's own integers, for the first weights of the embedding."""
    from safetensors.numpy import load

    key = int.from_bytes(hashlib.sha256(b"20250901/embed").digest()[:8], "big")
    mask = 2**64 - 1
    expected = []
    for index in range(1, 200):
        z = (key + index * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        expected.append(np.float32(((z >> 40) - 2**23) / 2**23) * np.float32(1.75))
    embedding = load(small_files()[WEIGHTS])["model.embed_tokens.weight"]
    assert embedding.ravel()[:199].tolist() == [float(value) for value in expected]


def test_card_says_that_it_is_a_toy():
    card = small_files()["README.md"].decode()
    assert "seeded toy, trained on nothing" in card
    assert WEIGHTS_SHA256 in card


@given(st.text())
@example("😀 👩‍👩‍👧 日本語 \r\n\t e\u0301 ١٢ 5 58 <|end|> <|pad|>")
@example("Smoking: 4, Yellow fingers: 12 Answer: High Risk")
def test_any_text_round_trips_with_its_offsets(text):
    tokenizer = build_tokenizer()
    tokenizer.encode_special_tokens = True
    encoding = tokenizer.encode(text)
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == text
    covered = 0
    for start, end in encoding.offsets:
        assert start < end
        assert covered in (start, end), "a token begins where the last one ended, or shares its character"
        covered = end
    assert covered == len(text)


@pytest.mark.parametrize("text", ["0", " 7", "100", "Smoking", " Smoking", " High", ":"])
def test_whole_numbers_and_known_words_are_one_token(text):
    assert len(build_tokenizer().encode(text).ids) == 1


def test_special_tokens_written_by_a_user_are_text(small):
    ids = small.tokenizer("<|end|> and <|pad|>")["input_ids"]
    assert not {small.tokenizer.eos_token_id, small.tokenizer.pad_token_id} & set(ids)
    assert small.tokenizer.decode(ids) == "<|end|> and <|pad|>"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CAUSEWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("CAUSEWAY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert small_folder().parent == tmp_path / "xdg" / "causeway"
    monkeypatch.setenv("CAUSEWAY_CACHE", str(tmp_path / "own"))
    assert small_folder().parent == tmp_path / "own"


def test_made_once_and_only_once_by_many(cache):
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: small_folder(), range(8)))
    (folder,) = folders
    assert [path.name for path in cache.iterdir()] == [folder.name], "no staging folder is left behind"
    made = (folder / WEIGHTS).stat().st_ino
    assert (small_folder() / WEIGHTS).stat().st_ino == made


def test_a_torn_cache_is_replaced(cache):
    weights = small_folder() / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    assert (small_folder() / WEIGHTS).read_bytes() == small_files()[WEIGHTS]
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["mkdir", "write_bytes"])
def test_no_space_for_it_is_a_full_disk(cache, monkeypatch, capsys, call, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, refuse)
        with pytest.raises(DiskFull, match="make room") as caught:
            small_folder()
        assert main(["export", str(cache / "mine")]) == 1
    assert os.strerror(number) in capsys.readouterr().err
    assert caught.value.facts["folder"].startswith(str(cache))
    assert not cache.exists() or not [*cache.iterdir()]


def test_no_space_for_what_the_hub_sends_is_a_full_disk():
    def refuse():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match="No space left"):
        load(BaseModelSpec("mine", "org/mine"), refuse)


def test_export_refuses_a_folder_in_use(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BaseModelUnavailable, match="empty or new folder"):
        export_small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert main(["export", str(tmp_path)]) == 1
    assert "empty or new folder" in capsys.readouterr().err


def test_export_prints_the_revision(tmp_path, capsys):
    assert main(["export", str(tmp_path / "new")]) == 0
    assert small_revision() in capsys.readouterr().out
