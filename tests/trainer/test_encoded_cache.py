"""What is read back is what was encoded, or nothing."""

from dataclasses import fields

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from benchmarks.stg import generate
from core.domain.training import Rows
from core.errors import TrainingFailed
from tests.trainer.tokenizers_for_tests import tokenizer_of
from trainer.encoded_cache import cache_key, encoded_once, load_encoded, save_encoded
from trainer.encoding import encode_all

TOKENIZER = tokenizer_of("whole_words")
ASKED = {"max_length": 20, "rows": Rows.CLOSURE, "chat_template": False}


@pytest.fixture
def encoded():
    return encode_all(TOKENIZER, [*generate(30, seed=1)], **ASKED)


def assert_same(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        for field in fields(one):
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            assert type(mine) is type(theirs), field.name
            assert np.array_equal(mine, theirs), field.name
            assert getattr(mine, "dtype", None) == getattr(theirs, "dtype", None), field.name


def test_what_comes_back_is_what_went_in(tmp_path, encoded):
    assert any(e.over and e.cut_causes for e in encoded)
    save_encoded(encoded, tmp_path / "encoded", "key")
    assert_same(load_encoded(tmp_path / "encoded", "key"), encoded)
    assert [path.name for path in tmp_path.iterdir()] == ["encoded"]


def test_nothing_comes_back_as_nothing(tmp_path):
    save_encoded([], tmp_path / "encoded", "key")
    assert load_encoded(tmp_path / "encoded", "key") == []


def test_another_key_or_no_file_is_passed_over(tmp_path, encoded):
    assert load_encoded(tmp_path / "encoded", "key") is None
    save_encoded(encoded, tmp_path / "encoded", "key")
    assert load_encoded(tmp_path / "encoded", "other") is None


@pytest.mark.parametrize("where", [0, 0.1, 0.5, 0.99])
def test_a_damaged_file_is_passed_over(tmp_path, encoded, where):
    path = tmp_path / "encoded"
    save_encoded(encoded, path, "key")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: int(where * len(content))])
    assert load_encoded(path, "key") is None
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    assert load_encoded(path, "key") is None


def test_the_key_is_of_everything_that_decides(tmp_path):
    data, other = tmp_path / "a", tmp_path / "b"
    data.write_text("a")
    other.write_text("b")
    keys = [cache_key(data, TOKENIZER, **ASKED), cache_key(other, TOKENIZER, **ASKED)]
    keys.append(cache_key(data, tokenizer_of("characters"), **ASKED))
    changes = ({"max_length": 21}, {"rows": Rows.ANSWER}, {"rows": None}, {"chat_template": True})
    keys += [cache_key(data, TOKENIZER, **{**ASKED, **change}) for change in changes]
    assert len({*keys}) == len(keys)
    assert cache_key(data, tokenizer_of("whole_words"), **ASKED) == keys[0]


def test_the_key_is_of_settings_that_the_backend_does_not_know(tmp_path):
    data = tmp_path / "data"
    data.write_text("a")
    TOKENIZER.save_pretrained(tmp_path / "base")
    plain = AutoTokenizer.from_pretrained(tmp_path / "base")
    splits = AutoTokenizer.from_pretrained(tmp_path / "base", split_special_tokens=True)
    assert plain.backend_tokenizer.to_str() == splits.backend_tokenizer.to_str()
    assert plain("20 </s>").input_ids != splits("20 </s>").input_ids
    assert cache_key(data, plain, **ASKED) != cache_key(data, splits, **ASKED)
    key = cache_key(data, plain, **ASKED)
    plain.split_special_tokens = True
    assert cache_key(data, plain, **ASKED) != key


def test_the_key_does_not_say_where_the_tokenizer_lies(tmp_path):
    data = tmp_path / "data"
    data.write_text("a")
    keys = set()
    for name in ("here", "there"):
        TOKENIZER.save_pretrained(tmp_path / name)
        keys.add(cache_key(data, AutoTokenizer.from_pretrained(tmp_path / name), **ASKED))
    assert len(keys) == 1


def test_a_file_of_somebody_else_is_passed_over(tmp_path):
    save_file({"weights": np.zeros(3)}, tmp_path / "encoded")
    assert load_encoded(tmp_path / "encoded", "key") is None


def test_examples_are_encoded_once(tmp_path, encoded):
    data, cache = tmp_path / "train.jsonl", tmp_path / "encoded"
    data.write_text("what they were read from")
    examples = [*generate(30, seed=1)]
    assert_same(encoded_once(examples, data, cache, TOKENIZER, **ASKED), encoded)
    assert_same(encoded_once([], data, cache, TOKENIZER, **ASKED), encoded)  # from the cache: nothing to encode here
    data.write_text("something else")
    assert encoded_once([], data, cache, TOKENIZER, **ASKED) == []


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    data = tmp_path / "train.jsonl"
    data.write_text("")
    with pytest.raises(TrainingFailed, match="cannot write the encoded examples: No such file or directory"):
        encoded_once([], data, tmp_path / "nowhere" / "encoded", TOKENIZER, **ASKED)
