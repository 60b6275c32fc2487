"""The fast path against the slow reference: loss and gradients, for every family, padding, form and aggregate."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.training import Aggregate, Exclude, Form, ObjectiveConfig
from core.errors import ModelNotSupported
from tests.trainer import reference
from tests.trainer.families import CONFIGS, WINDOW, allowed_in, as_cells, encoded, model_of
from trainer import attention
from trainer.attention import Supervision
from trainer.batching import collate
from trainer.cells import Cells
from trainer.loss import attention_loss
from trainer.objective import supervised_layers
from trainer.supervision import Dense, Layout, Sparse

attention.register()
reference.register()

LENGTHS = (9, 12, 7)
LOG_MASS = ObjectiveConfig(form=Form.LOG_MASS, aggregate=Aggregate.EACH)


ROWS = [{0: [0], 3: [1, 2], 7: [2, 3, 5]}, {10: [0, 1, 9], 4: [4], 9: [0], 6: [5, 6]}, {}]


def batch_of(rows=ROWS, *, left=False, lengths=LENGTHS):
    return collate([encoded(n, r) for n, r in zip(lengths, rows, strict=True)], pad_id=0, left=left)


def padded(rows=ROWS, *, left=False, lengths=LENGTHS):
    """The rows as positions of the padded batch."""
    shifts = [max(lengths) - n if left else 0 for n in lengths]
    return [{r + s: [c + s for c in cs] for r, cs in of.items()} for of, s in zip(rows, shifts, strict=True)]


def of_one_row(*columns):
    return Cells(torch.zeros(len(columns), dtype=torch.long), torch.tensor(columns))


def inputs_of(batch):
    return {k: batch[k] for k in ("input_ids", "attention_mask", "labels", "position_ids") if k in batch}


def fast(model, batch, objective, *, guided):
    supervision = Supervision(
        batch["row_index"],
        allowed_in(batch),
        guided=guided,
        layers=supervised_layers(objective, model.config.num_hidden_layers),
        exclude=objective.exclude,
    )
    out = model(**inputs_of(batch), supervision=supervision, output_attentions=True, use_cache=False)
    layers = [statistics for statistics in out.attentions if statistics is not None]
    return out.loss, attention_loss(layers, objective).sum()


def slow(model, batch, rows, objective, *, guided):
    out = model(
        **inputs_of(batch),
        guide=rows if guided else None,
        guided_layers=reference.supervised([*range(model.config.num_hidden_layers)], objective),
        output_attentions=True,
        use_cache=False,
    )
    return out.loss, reference.attention_loss(out.attentions, rows, objective)


@pytest.fixture(params=[1.0, 0.0], ids=["pairs", "whole_rows"], autouse=True)
def _both_ways(request, monkeypatch):
    """By the kernel's logsumexp wherever a layer allows it, and never."""
    monkeypatch.setattr(sys.modules[__name__], "Supervision", partial(Supervision, pairs_up_to=request.param))


def assert_agree(
    family, objective, *, left=False, guided=False, rows=ROWS, lengths=LENGTHS, prepare=lambda model: None
):
    """Loss and gradients of both, in float64: the two round differently, and hinge divides by what may be tiny."""
    results = []
    batch = batch_of(rows, left=left, lengths=lengths)
    for name, losses in ((attention.NAME, fast), (reference.REFERENCE, slow)):
        model = model_of(family, name).double()
        if losses is fast:
            prepare(model)
            token, attn = fast(model, batch, objective, guided=guided)
        else:
            token, attn = slow(model, batch, padded(rows, left=left, lengths=lengths), objective, guided=guided)
        (token + 0.5 * attn).backward()
        results.append((token, attn, {n: p.grad for n, p in model.named_parameters()}))
    (token, attn, grads), (token_, attn_, grads_) = results
    torch.testing.assert_close(token, token_, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(attn, attn_, rtol=1e-5, atol=1e-6)
    scale = max(g.abs().max() for g in grads_.values())
    for name, gradient in grads_.items():
        torch.testing.assert_close(grads[name] / scale, gradient / scale, rtol=0, atol=1e-5)
    return attn


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", CONFIGS)
def test_families_agree_with_the_reference(family, left, guided):
    assert assert_agree(family, LOG_MASS, left=left, guided=guided) > 0


@pytest.mark.parametrize("alpha", [0.5, 2.0, 100.0])
@pytest.mark.parametrize("aggregate", Aggregate)
@pytest.mark.parametrize("form", Form)
def test_forms_and_aggregates_agree_with_the_reference(form, aggregate, alpha):
    for family in ("llama_gqa", "gemma3"):
        assert_agree(family, ObjectiveConfig(form=form, aggregate=aggregate, alpha=alpha))


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("family", ["llama_gqa", "gemma3"])
def test_activation_checkpointing_changes_nothing(family, guided):
    def checkpointed(model):
        model.activation_checkpointing_enable({"use_reentrant": False})

    assert_agree(family, LOG_MASS, guided=guided, prepare=checkpointed)


@st.composite
def batches(draw):
    lengths = draw(st.lists(st.integers(4, 10), min_size=1, max_size=3))
    rows = []
    for length in lengths:
        positions = draw(st.lists(st.integers(0, length - 2), max_size=5, unique=True))
        rows.append({r: draw(st.lists(st.integers(0, r), min_size=1, unique=True)) for r in positions})
    return tuple(lengths), rows


@st.composite
def objectives(draw):
    low, high = sorted(draw(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])] * 2)))
    return ObjectiveConfig(
        form=draw(st.sampled_from(Form)),
        aggregate=draw(st.sampled_from(Aggregate)),
        exclude=draw(st.sampled_from(Exclude)),
        layers_from=low,
        layers_to=high,
        alpha=50.0,
    )


@settings(max_examples=50, deadline=None)
@given(batches(), objectives(), st.booleans(), st.booleans(), st.sampled_from(["llama_gqa", "mistral", "gemma3"]))
def test_any_batch_and_objective_agree_with_the_reference(drawn, objective, left, guided, family):
    lengths, rows = drawn
    if not any(rows):
        return
    assert_agree(family, objective, left=left, guided=guided, rows=rows, lengths=lengths)


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("exclude", [Exclude.SINK, Exclude.SELF])
@pytest.mark.parametrize("family", ["gpt_neox", "phi3", "gemma3"])
def test_an_excluded_column_in_the_last_layer_agrees_with_the_reference(family, exclude, guided):
    assert_agree(family, ObjectiveConfig(exclude=exclude, layers_from=0.5), guided=guided, left=True)


@pytest.mark.parametrize("exclude", [Exclude.SINK, Exclude.SELF])
def test_what_is_excluded_moves_no_loss(exclude):
    """Raising one key changes the mass, unless it is that of the excluded column."""
    column = {Exclude.SINK: 0, Exclude.SELF: 4}[exclude]
    query, key = torch.ones(1, 1, 6, 2), torch.zeros(1, 1, 6, 2)
    allowed = of_one_row(0, 1, 4)  # of row 4: both excluded columns are causes
    supervision = Supervision(torch.tensor([[4]]), allowed, exclude=exclude)

    def statistics(raised):
        keys = key.clone()
        keys[:, :, raised] += 1
        return attention.causeway_attention(torch.nn.Module(), query, keys, key, None, supervision=supervision)[1]

    before = statistics([])
    assert (before.allowed.item(), before.others.item()) == (2, 2)
    assert before.log_mass.item() == pytest.approx(np.log(2 / 4))
    assert statistics([column]).log_mass.item() == pytest.approx(np.log(2 / 4))
    assert statistics([1]).log_mass.item() > np.log(2 / 4)


@pytest.mark.parametrize(("columns", "kind"), [(16, Sparse), (18, Dense)])
def test_no_more_pairs_are_kept_than_a_few_for_each_token(columns, kind):
    """However many rows are supervised: what is kept for pairs must not outgrow what is kept for tokens."""
    index = torch.arange(200)[None]
    allowed = as_cells(torch.arange(columns) <= index[..., None])
    layout = Layout(heads=2, key_heads=2, length=200, fused=True)
    sight = attention.Supervision(index, allowed).sight(None, layout, torch.float32)
    assert isinstance(sight.rows, kind)


def test_layers_without_numbers_cannot_be_chosen():
    supervision = Supervision(torch.tensor([[2]]), of_one_row(0, 1, 2), layers=range(1))
    state = torch.zeros(1, 1, 3, 2)
    with pytest.raises(ModelNotSupported, match="number"):
        attention.causeway_attention(torch.nn.Module(), state, state, state, None, supervision=supervision)


def test_a_row_whose_window_hides_its_columns_is_dropped_not_nan():
    rows = [{WINDOW + 3: [0]}]
    batch = batch_of(rows, lengths=(12,))
    model = model_of("mistral", attention.NAME)
    supervision = Supervision(batch["row_index"], allowed_in(batch), guided=True)
    out = model(**inputs_of(batch), supervision=supervision, output_attentions=True, use_cache=False)
    assert not any(layer.kept.any() for layer in out.attentions)
    loss = out.loss + attention_loss(out.attentions, LOG_MASS).sum()
    loss.backward()
    torch.testing.assert_close(loss, model(**inputs_of(batch), use_cache=False).loss)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_log_mass_keeps_its_gradient_where_the_mass_underflows():
    scores = torch.tensor([200.0, 0.0, 0.0])
    query = scores.reshape(1, 1, 3, 1).flip(2).requires_grad_()  # row 2 scores key 0 at 200, beyond exp in float32
    key = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 1, 3, 1)
    supervision = Supervision(torch.tensor([[2]]), of_one_row(1, 2))
    _, statistics = attention.causeway_attention(
        torch.nn.Module(), query, key, key, None, scaling=1.0, supervision=supervision
    )
    statistics.log_mass.sum().backward()
    assert statistics.log_mass.item() == pytest.approx(np.log(2) - 200)
    assert query.grad[0, 0, 2].item() == pytest.approx(-1)


def test_guided_masking_hides_what_is_not_allowed():
    rows = [{5: [1, 2]}]
    batch = batch_of(rows, lengths=(7,))
    supervision = Supervision(batch["row_index"], allowed_in(batch), guided=True)
    query, key, value = (torch.randn(1, 2, 7, 4) for _ in range(3))
    output, _ = attention.causeway_attention(torch.nn.Module(), query, key, value, None, supervision=supervision)
    changed = value.clone()
    changed[:, :, [0, 3, 4, 5]] += 1
    again, _ = attention.causeway_attention(torch.nn.Module(), query, key, changed, None, supervision=supervision)
    torch.testing.assert_close(again[:, 5], output[:, 5])
    assert not torch.allclose(again[:, 4], output[:, 4])


def test_attention_dropout_is_refused():
    batch = batch_of()
    model = model_of("llama", attention.NAME)
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    with pytest.raises(ModelNotSupported, match="dropout"):
        fast(model, batch, LOG_MASS, guided=False)


def test_without_supervision_it_is_plain_attention():
    batch = batch_of(left=True)
    ours, native = model_of("gemma3", attention.NAME), model_of("gemma3", "eager")
    valid = batch["attention_mask"].bool()
    with torch.no_grad():
        a, b = (m.eval()(**inputs_of(batch), use_cache=False).logits[valid] for m in (ours, native))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
