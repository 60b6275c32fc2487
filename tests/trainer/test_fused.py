"""Statistics from the kernel's own logsumexp: against autograd through whole rows, and down to where exp gives 0."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.families import as_cells
from trainer.fused import fused_attention
from trainer.pairs import allowed_pairs


def case(batch=2, heads=4, groups=2, rows=5, length=9, width=3, *, seed=0, padding=0, window=99, dtype=torch.float64):
    """Queries, keys and values; positions (B, R); allowed (B, R, T), in some rows nothing; visible (B, T, T)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n):  # laid out as models do
        tensor = torch.randn(batch, length, n, width, generator=generator, dtype=dtype)
        return tensor.transpose(1, 2).requires_grad_()

    index = torch.stack([torch.randperm(length, generator=generator)[:rows] for _ in range(batch)])
    behind = torch.arange(length)[:, None] - torch.arange(length)
    visible = ((behind >= 0) & (behind < window)).repeat(batch, 1, 1)
    visible[-1] &= torch.arange(length) >= padding
    visible |= behind == 0  # padding sees itself, as in transformers
    seen = visible[torch.arange(batch)[:, None], index]
    allowed = seen & (torch.rand(seen.shape, generator=generator) < 0.4)
    allowed[0, 0] = seen[0, 0]
    return (draw(heads), draw(groups), draw(groups)), index, allowed, visible


def fused(tensors, index, allowed, visible, *, guided, scaling=0.5):
    """Output (B, T, H, D), and log-mass (B, R, H) with 0 in rows that are allowed nothing."""
    query, key, _ = tensors
    pairs = allowed_pairs(as_cells(allowed), index, query.shape[2], query.shape[1], key.shape[1])
    causal = torch.equal(visible, torch.ones_like(visible).tril())
    bias = (
        None
        if causal
        else torch.zeros_like(visible[:, None], dtype=query.dtype).masked_fill(~visible[:, None], -torch.inf)
    )
    output, log_mass = fused_attention(*tensors, bias, pairs, scaling=scaling, guided=guided)
    spread = log_mass.new_zeros(index.numel(), query.shape[1]).index_copy(0, pairs.slots, log_mass)
    return output, spread.view(*index.shape, -1)


def by_autograd(tensors, index, allowed, visible, *, guided, scaling=0.5):
    """The same from whole maps."""
    query, key, value = tensors
    copies = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~visible[:, None], -torch.inf)
    output = (scores.softmax(-1) @ value).transpose(1, 2)
    log_mass = torch.zeros(*index.shape, query.shape[1], dtype=query.dtype)
    for example, place in allowed.any(-1).nonzero().tolist():
        row, columns = index[example, place], allowed[example, place]
        inner = scores[example, :, row][:, columns]
        log_mass[example, place] = inner.logsumexp(-1) - scores[example, :, row].logsumexp(-1)
        if guided:
            replaced = (inner.softmax(-1)[:, None] @ value[example][:, columns])[:, 0]
            where = torch.zeros_like(output, dtype=torch.bool)
            where[example, row] = True
            output = torch.where(where, replaced, output)
    return output, log_mass


def gradients(outputs, tensors, upstream):
    used = [(out, up) for out, up in zip(outputs, upstream, strict=True) if up is not None]
    if not used:
        return ()
    outputs, upstream = zip(*used, strict=True)
    return torch.autograd.grad(outputs, tensors, upstream, retain_graph=True, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("guided", [False, True])
def test_the_gradient_is_that_of_finite_differences(guided):
    tensors, *rest = case(rows=3, length=5)
    assert torch.autograd.gradcheck(lambda *tensors: fused(tensors, *rest, guided=guided), tensors)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3), st.sampled_from([(4, 4), (4, 2), (4, 1)]), st.integers(1, 9), st.integers(0, 5),
    st.integers(2, 12), st.booleans(), st.tuples(st.booleans(), st.booleans()), st.integers(0, 99),
)  # fmt: skip
def test_any_mask_agrees_with_whole_maps(batch, heads, rows, padding, window, guided, used, seed):
    given_ = case(batch, *heads, rows, seed=seed, padding=padding, window=window)
    ours, theirs = fused(*given_, guided=guided), by_autograd(*given_, guided=guided)
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted)
    upstream = [torch.randn_like(out) if use else None for out, use in zip(theirs, used, strict=True)]
    pairs = zip(gradients(ours, given_[0], upstream), gradients(theirs, given_[0], upstream), strict=True)
    for mine, wanted in pairs:
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("small", [0.0, 1e-30, 1e-12, 1.0])
@pytest.mark.parametrize("share", [1e-12, 1.0, 1e6])
def test_the_gradient_of_mass_does_not_depend_on_that_of_the_output(share, small):
    """In float32, where the output's gradient is 0, vanishes beside that of mass, or outweighs it."""
    tensors, *rest = case(rows=4, width=16, length=30)
    exact = by_autograd(tensors, *rest, guided=False)
    upstream = [small * torch.randn_like(exact[0]), share * torch.randn_like(exact[1])]
    narrow = tuple(tensor.detach().float().requires_grad_() for tensor in tensors)
    for guided in (False, True):
        exact = by_autograd(tensors, *rest, guided=guided)
        wanted = gradients(exact, tensors, upstream)
        mine = gradients(fused(narrow, *rest, guided=guided), narrow, [up.float() for up in upstream])
        for one, other in zip(mine[:2], wanted[:2], strict=True):
            torch.testing.assert_close(one.double() / other.abs().max(), other / other.abs().max(), rtol=0, atol=1e-5)
        least = max(small, 1e-9 * share)
        torch.testing.assert_close(mine[2].double(), wanted[2], rtol=1e-4, atol=1e-5 * least)


@pytest.mark.parametrize("gap", [0.0, 60.0, 150.0, 3000.0])
def test_a_mass_that_underflows_is_exact_and_so_are_its_gradients(gap):
    """Scores on allowed columns stand `gap` below the rest, from where exp gives 0 in float32."""
    tensors, index, allowed, visible = case(1, 2, 2, 1, length=9, seed=1)
    index[:], allowed[:] = 8, False
    allowed[..., [2, 5]] = True
    with torch.no_grad():
        tensors[0][..., 0], tensors[1][..., 0] = 1, gap * ~allowed[0, 0]
    exact = by_autograd(tensors, index, allowed, visible, guided=True, scaling=1.0)
    upstream = [torch.randn_like(out) for out in exact]
    wanted = gradients(exact, tensors, upstream)
    narrow = tuple(tensor.detach().float().requires_grad_() for tensor in tensors)
    ours = fused(narrow, index, allowed, visible, guided=True, scaling=1.0)
    mine = gradients(ours, narrow, [up.float() for up in upstream])
    assert exact[1].max() < -gap + 10
    for one, other in zip([*ours, *mine], [*exact, *wanted], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * max(1.0, gap / 100))


def test_what_is_kept_for_backward_is_no_map():
    """Beside what attention keeps anyway, a number for each pair and head."""
    length, rows = 200, 150
    tensors, index, allowed, _ = case(1, 4, 4, rows, length, 8, window=length, dtype=torch.float32)
    allowed[..., 5:] = False
    pairs = allowed_pairs(as_cells(allowed), index, length, 4, 4)
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        fused_attention(*tensors, None, pairs, scaling=1.0, guided=True)
    in_attention = 4 * length * (4 * 8 + 1)  # query, key, value and output; logsumexp
    assert in_attention < sum(sizes) == in_attention + 4 * int(allowed.sum())
