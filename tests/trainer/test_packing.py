"""Examples that share a row: who stands where, and that nobody notices the neighbours."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BloomConfig, MptConfig, OPTConfig

from core.domain.training import Exclude, Method, ObjectiveConfig, TrainingConfig
from core.errors import ModelNotSupported
from tests.trainer.families import CONFIGS, WINDOW, allowed_in, as_map, encoded, model_of
from tests.trainer.test_admission import ADMITTED, build
from tests.trainer.test_batching import examples
from trainer import attention, supervision
from trainer.admission import check_packing
from trainer.batching import FILLER, NO_LOSS, Examples, collate
from trainer.packing import pack
from trainer.step import MicroBatchLoss, Step

attention.register()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(64, 200))
def test_every_example_is_packed_once_and_no_row_is_too_long(lengths, capacity):
    rows = pack(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    widths = [sum(lengths[index] for index in row) for row in rows]
    assert 0 < min(widths) <= max(widths) <= capacity
    assert len(rows) * max(widths) <= 1.05 * len(lengths) * max(lengths)  # no more than padding takes
    assert rows == pack(lengths, capacity)


def test_like_lengths_are_left_alone_and_unlike_ones_fill_up():
    assert sorted(pack([60] * 16, 512)) == [[index] for index in range(16)]
    lengths = [500, 30, 40, 60, 20, 90, 110, 70, 80]
    rows = pack(lengths, 512)
    assert sorted(sum(lengths[index] for index in row) for row in rows) == [500, 500]


def test_an_example_longer_than_a_row_stands_alone():
    assert sorted(pack([9, 3, 2], 5)) == [[0], [1, 2]]


@settings(deadline=None)
@given(st.lists(examples(), min_size=1, max_size=6), st.integers(9, 40))
def test_every_token_label_and_row_stands_where_it_should(batch, capacity):
    batch = [encoded_as(example, str(number)) for number, example in enumerate(batch)]
    tensors = collate(batch, pad_id=0, pack_to=capacity)
    assert "attention_mask" not in tensors  # with one transformers would not look at the positions
    assert sorted(tensors["example_ids"]) == sorted(e.example_id for e in batch)
    by_name = {e.example_id: e for e in batch}
    ordered = iter(by_name[name] for name in tensors["example_ids"])
    allowed = as_map(allowed_in(tensors), tensors["row_index"], tensors["input_ids"].shape[1])
    found = {"tokens": 0, "rows": 0, "targets": 0}
    for b, positions in enumerate(tensors["position_ids"].tolist()):
        starts = [at for at, position in enumerate(positions) if position == 0]
        supervised = 0
        for begin, end in zip(starts, [*starts[1:], len(positions)], strict=True):
            assert positions[begin:end] == list(range(end - begin))
            if (tensors["input_ids"][b, begin:end] == 0).all():  # padding; no test token is 0
                assert end == len(positions)
                assert (tensors["labels"][b, begin:end] == NO_LOSS).all()
                break
            example = next(ordered)
            assert tensors["input_ids"][b, begin:end].tolist() == example.ids.tolist()
            first = max(example.prompt_length, 1)
            assert tensors["labels"][b, begin:end].tolist() == [NO_LOSS] * first + example.ids[first:].tolist()
            for k, row in enumerate(example.row_positions):
                columns = example.columns[example.column_starts[k] : example.column_starts[k + 1]]
                assert tensors["row_index"][b, supervised + k] == row + begin
                assert allowed[b, supervised + k].nonzero().flatten().tolist() == (columns + begin).tolist()
            supervised += len(example.row_positions)
            found["tokens"] += end - begin
        assert allowed[b].any(-1).sum() == supervised
        assert (tensors["row_index"][b, supervised:] == len(positions) - 1).all()
        found["rows"] += supervised
        found["targets"] += int((tensors["labels"][b] != NO_LOSS).sum())
    assert next(ordered, None) is None
    assert found == {name: tensors[name] for name in found}
    assert tensors["target_ids"].tolist() == tensors["labels"][:, 1:][tensors["scored"][:, :-1]].tolist()


def encoded_as(example, name):
    rows = {
        int(row): example.columns[example.column_starts[k] : example.column_starts[k + 1]].tolist()
        for k, row in enumerate(example.row_positions)
    }
    return encoded(len(example.ids), rows, prompt_length=example.prompt_length, name=name)


# A row of one example, and one of three of which two are longer than the sliding window.
BATCH = [
    encoded(18, {8: [1, 2], 14: [0, 12, 13]}, prompt_length=9, name="long"),
    encoded(8, {4: [4], 5: [0, 3], 6: [2]}, prompt_length=0, name="middle"),
    encoded(7, {5: [1, 4], 2: [2]}, name="short"),
    encoded(2, {}, name="tiny"),
]
PLAIN = ObjectiveConfig(gamma=0.5, gamma_from=0, gamma_full=0, guide_until=0, guide_end=0)
OBJECTIVES = {
    "sft": None,
    "plain": PLAIN,
    "guided": ObjectiveConfig(gamma=0.5, gamma_from=0, gamma_full=0),
    "guided without sink": ObjectiveConfig(gamma=0.5, gamma_from=0, gamma_full=0, exclude=Exclude.SINK),
}


def run(family, batch, objective, *, pack_to):
    """Losses, each row's log-masses by example and row, and gradients, of one micro-batch in float64."""
    model = model_of(family, attention.NAME).double()
    config = TrainingConfig(method=Method.CAT if objective else Method.SFT, objective=objective)
    step = Step(10, 5, objective.gamma if objective else 0.0, guided=bool(objective) and objective is not PLAIN)
    tensors = collate(batch, pad_id=0, pack_to=pack_to)
    losses = MicroBatchLoss(model, config)(model, tensors, step)
    losses.loss.backward()
    real = allowed_in(tensors).counts(tensors["row_index"]) > 0  # (B, R) no padding rows
    masses = [layer.log_mass.transpose(1, 2)[real] for layer in losses.layers]  # each (rows, H)
    names = [name for name in tensors["example_ids"] for e in batch if e.example_id == name for _ in e.row_positions]
    by_name = {name: [m[[n == name for n in names]] for m in masses] for name in {*names}}
    parts = [losses.loss, losses.token_loss, losses.attention_loss]
    return tensors, parts, by_name, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma3"])
def test_nobody_notices_the_neighbours(family, objective):
    """Losses, masses and gradients of a packed batch are those of its examples one by one."""
    tensors, parts, masses, gradients = run(family, BATCH, objective, pack_to=18)
    assert tensors["input_ids"].shape == (2, 18)
    assert min(len(e.ids) for e in BATCH[:3]) > WINDOW
    alone = [run(family, [example], objective, pack_to=None) for example in BATCH]
    for number, part in enumerate(parts):
        if part is not None:
            torch.testing.assert_close(part, sum(each[1][number] for each in alone if each[1][number] is not None))
    for _, _, own, _ in alone:
        for name, layers in own.items():
            torch.testing.assert_close(masses[name], layers)
    assert masses.keys() == {"long", "middle", "short"}
    assert all(len(layers) == (2 if objective else 0) for layers in masses.values())
    scale = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient / scale, sum(each[3][name] for each in alone) / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", CONFIGS)
def test_families_that_can_be_packed(family):
    model = model_of(family, "sdpa")
    check_packing(model, supervised=False)
    attention.enable(model)
    check_packing(model, supervised=True)
    assert model.training


@pytest.mark.parametrize(
    "config",
    [
        MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=97, max_seq_len=128),
        BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3),
        OPTConfig(
            vocab_size=97, hidden_size=32, num_hidden_layers=2, ffn_dim=48, num_attention_heads=4,
            max_position_embeddings=128, word_embed_proj_dim=32, init_std=0.3,
        ),
    ],
    ids=["mpt", "bloom", "opt"],
)  # fmt: skip
def test_families_whose_examples_would_leak_are_refused(config):
    with pytest.raises(ModelNotSupported, match="by packing: examples that share a row are not on their own"):
        check_packing(build(config), supervised=False)


def test_a_mask_that_forgets_the_neighbours_would_be_noticed(monkeypatch):
    """Mutants of our own function: the kernel, and the recomputed rows, see the whole row of the batch."""
    model = build(ADMITTED["llama"])
    attention.enable(model)
    right = attention.sdpa_attention_forward
    monkeypatch.setattr(
        attention, "sdpa_attention_forward", lambda m, q, k, v, _mask, **kw: right(m, q, k, v, None, **kw)
    )
    with pytest.raises(ModelNotSupported, match="for its output"):
        check_packing(model, supervised=True)
    monkeypatch.undo()
    row, cell = supervision._seen, supervision._is_seen
    monkeypatch.setattr(supervision, "_seen", lambda index, length, _mask: row(index, length, None))
    monkeypatch.setattr(supervision, "_is_seen", lambda cells, index, _mask: cell(cells, index, None))
    check_packing(model, supervised=False)
    with pytest.raises(ModelNotSupported, match="for recomputed rows"):
        check_packing(model, supervised=True)


def test_a_filler_shares_a_row_and_adds_nothing():
    tail = encoded(6, {2: [0]})
    with_filler = Examples([encoded(12, {4: [1]}), tail])
    batch = collate([with_filler[0], tail, with_filler[FILLER]], pad_id=0, pack_to=12)
    assert batch["input_ids"].shape == (2, 12)
    assert batch["targets"] == 3 + 3
    assert batch["rows"] == 2
