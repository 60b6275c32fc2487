"""The hand-written forward and backward, against autograd and against themselves in other chunks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.families import as_cells
from trainer import row_attention
from trainer.row_attention import attend_rows, plan_rows


def case(batch=2, heads=4, groups=2, rows=5, length=7, width=3, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    visible = torch.rand(batch, rows, length, generator=generator) < 0.7
    visible[..., 0] = True
    inside = visible & (torch.rand(batch, rows, length, generator=generator) < 0.5)
    inside[..., 0] = True
    tensors = draw(batch, heads, rows, width), draw(batch, groups, length, width), draw(batch, groups, length, width)
    return tensors, (inside, visible)


def attend(query, key, value, inside, visible, *, guided):
    return attend_rows(query, key, value, plan_rows(as_cells(inside), visible, query.shape[1]), guided=guided)


def by_autograd(query, key, value, inside, visible):
    """The same with whole tensors and no hand-written gradient."""
    copies = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    scores = query @ key.transpose(2, 3)
    inner, outer = (scores.masked_fill(~mask[:, None], -torch.inf) for mask in (inside, visible))
    return inner.logsumexp(-1) - outer.logsumexp(-1), inner.softmax(-1) @ value


def causal_case(padding, window, rows=8, length=20):
    """Two examples, the second left-padded; rows in the order of their positions."""
    tensors, _ = case(rows=rows, length=length)
    generator = torch.Generator().manual_seed(0)
    positions = torch.stack([torch.randperm(length - 5, generator=generator)[:rows].sort()[0] + 5 for _ in range(2)])
    columns = torch.arange(length)
    behind = positions[..., None] - columns
    visible = (behind >= 0) & (behind < window)
    visible[1] &= columns >= padding
    inside = visible & ((torch.rand(visible.shape, generator=generator) < 0.3) | (behind == 0))
    return tensors, (inside, visible)


def attend_in_chunks(rows, tensors, masks, *, guided):
    """With `rows` rows a chunk."""
    batch, heads, _, _ = tensors[0].shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_attention, "_CHUNK", rows * batch * heads * tensors[1].shape[2])
        return attend(*tensors, *masks, guided=guided)


@pytest.mark.parametrize("guided", [False, True])
def test_the_gradient_is_that_of_finite_differences(guided):
    tensors, masks = case()

    def outputs(*tensors):
        return tuple(out for out in attend(*tensors, *masks, guided=guided) if out is not None)

    assert torch.autograd.gradcheck(outputs, tensors)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.sampled_from([(4, 4), (4, 2), (4, 1)]), st.integers(1, 9), st.integers(1, 12),
    st.integers(1, 60), st.tuples(st.booleans(), st.booleans()), st.integers(0, 99),
)  # fmt: skip
def test_any_chunking_agrees_with_autograd(batch, heads, rows, length, chunk, used, seed):
    tensors, masks = case(batch, *heads, rows, length, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_attention, "_CHUNK", chunk)
        ours = attend(*tensors, *masks, guided=True)
        theirs = by_autograd(*tensors, *masks)
        for mine, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, wanted)
        if not any(used):
            return

        def gradients(outputs):
            loss = sum((out * out).sum() for out, use in zip(outputs, used, strict=True) if use)
            return torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)

        for mine, wanted in zip(gradients(ours), gradients(theirs), strict=True):
            torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(("padding", "window"), [(0, 30), (4, 30), (0, 6), (4, 6)])
def test_sorted_rows_in_small_chunks_agree_with_autograd(padding, window, guided):
    """Causal rows of a left-padded batch, with and without a window, where every chunk is cut elsewhere."""
    tensors, masks = causal_case(padding, window)
    ours, theirs = attend_in_chunks(2, tensors, masks, guided=guided), by_autograd(*tensors, *masks)
    upstream = [torch.randn_like(out) for out in theirs][: 1 + guided]
    for mine, wanted in zip(ours, theirs, strict=False):
        if mine is not None:
            torch.testing.assert_close(mine, wanted)
    mine = torch.autograd.grad(ours[: 1 + guided], tensors, upstream, allow_unused=True, materialize_grads=True)
    wanted = torch.autograd.grad(theirs[: 1 + guided], tensors, upstream, allow_unused=True, materialize_grads=True)
    for one, other in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_chunk_reads_no_column_outside_of_what_its_rows_see():
    """Where a NaN stands that a product with weight 0 would spread."""
    (query, key, value), (inside, visible) = causal_case(padding=4, window=6)
    seen = visible[:, :4].flatten(0, 1).any(0)
    with torch.no_grad():
        key[:, :, ~seen] = value[:, :, ~seen] = torch.nan
    ours = attend_in_chunks(4, (query, key, value), (inside, visible), guided=True)
    of_first = torch.autograd.grad([out[:, :, :4].sum() for out in ours], query)[0][:, :, :4]
    assert all(out[:, :, :4].isfinite().all() for out in ours)
    assert of_first.isfinite().all()
    assert not ours[1][:, :, 4:].isfinite().all()


@pytest.mark.parametrize("gap", [0.0, 60.0, 150.0, 3000.0])
def test_a_mass_that_underflows_is_exact_and_so_are_its_gradients(gap):
    """Scores on allowed columns stand `gap` below the rest, from where exp gives 0 in float32."""
    (query, key, value), (inside, visible) = case(rows=4, length=9, seed=1)
    inside[:], visible[:] = inside[:1, :1], visible[:1, :1]
    far = (visible & ~inside)[0, 0]
    with torch.no_grad():
        query[..., 0], key[..., 0] = 1, gap * far
    exact = by_autograd(query, key, value, inside, visible)
    upstream = [torch.randn_like(out) for out in exact]
    wanted = torch.autograd.grad(exact, (query, key, value), upstream)
    narrow = [tensor.detach().float().requires_grad_() for tensor in (query, key, value)]
    ours = attend(*narrow, inside, visible, guided=True)
    mine = torch.autograd.grad(ours, narrow, [grad.float() for grad in upstream])
    assert exact[0].max() < -gap + 10
    for one, other in zip([*ours, *mine], [*exact, *wanted], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * max(1.0, gap / 100))


def test_rows_may_be_allowed_all_that_they_see():
    (query, key, value), (_, visible) = case(dtype=torch.float64)
    log_mass, output = attend(query, key, value, visible, visible, guided=True)
    torch.testing.assert_close(log_mass, torch.zeros_like(log_mass))
    torch.testing.assert_close(output, by_autograd(query, key, value, visible, visible)[1])


def test_memory_does_not_grow_with_the_rows():
    """What is kept for backward holds no map a head, however many rows there are."""
    tensors, masks = case(1, 4, 4, rows=400, length=600, width=8, dtype=torch.float32)
    sizes = []
    with pytest.MonkeyPatch.context() as patch, torch.autograd.graph.saved_tensors_hooks(_note(sizes), lambda x: x):
        patch.setattr(row_attention, "_CHUNK", 1 << 14)
        attend(*tensors, *masks, guided=True)
    assert sum(sizes) == sum(tensor.numel() for tensor in tensors)


def _note(sizes):
    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    return note


def test_bfloat16_masses_are_summed_in_float32():
    (query, key, value), masks = case(length=40, rows=8, width=16, dtype=torch.bfloat16)
    log_mass, output = attend(query, key, value, *masks, guided=True)
    assert (log_mass.dtype, output.dtype) == (torch.float32, torch.bfloat16)
    exact, _ = by_autograd(*(t.double() for t in (query, key, value)), *masks)
    torch.testing.assert_close(log_mass.double(), exact, rtol=0, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(attend(query, key, value, *masks, guided=True)[0], log_mass, rtol=0, atol=0)
    log_mass.sum().backward()
    assert all(t.grad is None or t.grad.isfinite().all() for t in (query, key, value))


def test_values_may_be_of_another_width_than_keys():
    (query, key, _), masks = case()
    value = torch.randn(*key.shape[:3], 7, dtype=key.dtype, requires_grad=True)
    ours, theirs = attend(query, key, value, *masks, guided=True), by_autograd(query, key, value, *masks)
    assert ours[1].shape == (*query.shape[:3], 7)
    upstream = [torch.randn_like(out) for out in theirs]
    mine, wanted = (torch.autograd.grad(outs, (query, key, value), upstream) for outs in (ours, theirs))
    for one, other in zip((*ours, *mine), (*theirs, *wanted), strict=True):
        torch.testing.assert_close(one, other)


def test_rows_are_worked_on_many_at_a_time(monkeypatch):
    tensors, masks = case(1, 2, 2, rows=300, length=300)
    taken = []
    right = row_attention._visible_scores
    monkeypatch.setattr(row_attention, "_visible_scores", lambda rows, *rest: taken.append(rows) or right(rows, *rest))
    attend(*tensors, *masks, guided=False)
    assert len(taken) == 1
