"""Memory that ran out is told from what is wrong with a model or its files, whoever says it."""

import pytest
import torch

from core.domain.run_folder import BaseModelSpec
from core.errors import BaseModelUnavailable, ModelNotSupported
from tests.trainer.memory_errors import OUT_OF_MEMORY
from trainer.admission import check_attention
from trainer.base_files import load
from trainer.memory import within_memory

NAMED = BaseModelSpec("mine", "mine")


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_within_memory_gives_nothing_where_it_ran_out(error):
    assert within_memory(raising(error)) is None


def test_within_memory_gives_what_there_is_and_raises_what_is_another_matter():
    assert within_memory(lambda: 5) == 5
    with pytest.raises(RuntimeError, match="shapes differ"):
        within_memory(raising(RuntimeError("shapes differ")))


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_base_is_not_called_broken_where_memory_did_not_hold_it(error):
    with pytest.raises(type(error)):
        load(NAMED, raising(error))


@pytest.mark.parametrize("error", [torch.AcceleratorError("CUDA error: device-side assert"), RuntimeError("a bug")])
def test_only_an_error_of_the_files_is_the_bases(error):
    blamed = BaseModelUnavailable if str(error) == "a bug" else torch.AcceleratorError
    with pytest.raises(blamed):
        load(NAMED, raising(error))


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, RuntimeError("a bug")])
def test_a_model_is_not_refused_where_memory_did_not_hold_its_answer(small, monkeypatch, error):
    monkeypatch.setattr(small.model, "forward", raising(error))
    refused = ModelNotSupported if str(error) == "a bug" else type(error)
    with pytest.raises(refused):
        check_attention(small.model)
