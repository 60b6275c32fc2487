"""Padded batches and the order of examples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.families import allowed_in, as_map, encoded, model_of
from trainer import attention
from trainer.attention import Supervision
from trainer.batching import FILLER, NO_LOSS, Examples, LengthGrouped, collate

attention.register()


@st.composite
def examples(draw):
    length = draw(st.integers(2, 9))
    positions = draw(st.lists(st.integers(0, length - 2), max_size=4, unique=True))
    rows = {r: draw(st.lists(st.integers(0, r), min_size=1, unique=True)) for r in positions}
    return encoded(length, rows, prompt_length=draw(st.integers(0, length - 1)))


@settings(deadline=None)
@given(st.lists(examples(), min_size=1, max_size=5), st.booleans())
def test_every_token_label_and_row_stands_where_it_should(batch, left):
    tensors = collate(batch, pad_id=0, left=left)
    longest = max(len(e.ids) for e in batch)
    assert tensors["targets"] == (tensors["labels"] != NO_LOSS).sum() == len(tensors["target_ids"])
    assert tensors["target_ids"].tolist() == tensors["labels"][:, 1:][tensors["scored"][:, :-1]].tolist()
    assert not tensors["scored"][:, -1].any()
    allowed = as_map(allowed_in(tensors), tensors["row_index"], longest)
    assert allowed.sum() == sum(len(e.columns) for e in batch)
    assert tensors["rows"] == allowed.any(-1).sum()
    assert tensors["tokens"] == tensors["attention_mask"].sum()
    assert tensors["positions"] == tensors["input_ids"].numel()
    for b, example in enumerate(batch):
        shift = longest - len(example.ids) if left else 0
        inside = slice(shift, shift + len(example.ids))
        assert tensors["input_ids"][b, inside].tolist() == example.ids.tolist()
        assert tensors["attention_mask"][b].nonzero().flatten().tolist() == list(range(inside.start, inside.stop))
        first = max(example.prompt_length, 1)  # nothing predicts an example's first token
        assert tensors["labels"][b, inside].tolist() == [NO_LOSS] * first + example.ids[first:].tolist()
        assert (tensors["labels"][b] != NO_LOSS).sum() == len(example.ids) - first
        for k, row in enumerate(example.row_positions):
            columns = example.columns[example.column_starts[k] : example.column_starts[k + 1]]
            assert tensors["row_index"][b, k] == row + shift
            assert allowed[b, k].nonzero().flatten().tolist() == (columns + shift).tolist()
        rows = len(example.row_positions)
        assert (tensors["row_index"][b, rows:] == longest - 1).all()
        assert not allowed[b, rows:].any()
        if left:
            assert tensors["position_ids"][b, inside].tolist() == list(range(len(example.ids)))


@pytest.mark.parametrize("left", [False, True])
def test_padding_leaves_losses_unchanged(left):
    short, long = encoded(6, {4: [1, 2]}), encoded(12, {5: [5], 9: [0, 3]})
    model = model_of("qwen3", attention.NAME).eval()

    def mass_and_logits(batch):
        supervision = Supervision(batch["row_index"], allowed_in(batch))
        asked = {k: batch[k] for k in ("input_ids", "attention_mask", "position_ids") if k in batch}
        out = model(**asked, supervision=supervision, output_attentions=True, use_cache=False)
        real = batch["attention_mask"][0].bool()
        return out.attentions[1].log_mass[0, :, 0], out.logits[0, real]

    with torch.no_grad():
        alone = mass_and_logits(collate([short], pad_id=0))
        together = mass_and_logits(collate([short, long], pad_id=0, left=left))
    torch.testing.assert_close(together[0], alone[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[1], alone[1], rtol=1e-5, atol=1e-5)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.integers(1, 9), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_an_epoch_meets_every_example_once(lengths, group, epoch):
    sampler = LengthGrouped(lengths, group, seed=0, epoch=lambda: epoch, multiple_of=7)
    order = list(sampler)
    assert order == list(sampler)
    assert len(order) == len(sampler) == -(-len(lengths) // 7) * 7
    assert sorted(order[: len(lengths)]) == list(range(len(lengths)))
    assert {*order[len(lengths) :]} <= {FILLER}


def test_a_filler_adds_nothing():
    examples = Examples([encoded(9, {4: [1]}), encoded(6, {2: [0]})])
    batch = collate([examples[0], examples[FILLER]], pad_id=0)
    assert (batch["labels"][1] == NO_LOSS).all()
    assert batch["allowed_slots"].tolist() == [0]
    assert batch["attention_mask"][1].sum() == 6
    assert (examples[1].prompt_length, len(examples[1].row_positions)) == (3, 1)


def test_epochs_and_seeds_differ():
    orders = {
        tuple(LengthGrouped([5] * 60, 4, seed=seed, epoch=lambda epoch=epoch: epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_batches_hold_examples_of_like_length():
    lengths = np.random.default_rng(0).integers(10, 500, 3200)
    order = np.array(list(LengthGrouped(lengths, 16, seed=0, epoch=lambda: 0)))
    padded = lengths[order].reshape(-1, 16).max(1).sum() * 16
    assert lengths.sum() / padded > 0.95
    by_chance = lengths.reshape(-1, 16).max(1).sum() * 16
    assert lengths.sum() / by_chance < 0.6
