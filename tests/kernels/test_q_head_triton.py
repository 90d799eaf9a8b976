"""The Q-head's Triton kernels against float64: on the GPU where there is one, in Triton's interpreter elsewhere.

B states, A actions, P pairs, D features, K bins.
"""

from typing import Any

import pytest
import torch

from isogon.kernels import Projection, Reduction, Support
from isogon.kernels.q_head import hl_gauss_q_loss, q_chosen, q_max, q_values
from isogon.kernels.td_targets import td_target

pytest.importorskip("triton", reason="triton is not installed: it is made for Linux on x86-64 and Arm")

from isogon.kernels import q_head_triton

# The interpreter computes in NumPy, which warns of infinities and NaN that are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROJECTIONS: tuple[Projection, ...] = ("hl_gauss", "two_hot", "one_hot")
REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "weighted_mean", "none")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SUPPORTS = (
    Support(-2.0, 3.0, 11),
    Support(-2.0, 3.0, 16, transform="symlog"),
    Support(-2.0, 3.0, 19, anchor="atoms", transform="symexp"),
)
SUPPORT = SUPPORTS[0]
Layer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def layer(
    states: int = 9, actions: int = 6, features: int = 24, bins: int = 11, dtype: torch.dtype = torch.float32
) -> Layer:
    generator = torch.Generator().manual_seed(states + actions)
    hidden = torch.randn(states, features, generator=generator)
    weight = 0.5 * torch.randn(actions, bins, features, generator=generator)
    bias = torch.randn(actions, bins, generator=generator)
    hidden, weight, bias = (t.to(DEVICE, dtype).requires_grad_() for t in (hidden, weight, bias))
    return hidden, weight, bias


def pairs(size: int = 45, states: int = 9, actions: int = 6) -> dict[str, Any]:
    """Most are of action 1, so that it has more than one tile; the last action has none, and some are left out."""
    generator = torch.Generator().manual_seed(size)
    action = torch.randint(actions - 1, (size,), generator=generator)
    action[torch.rand(size, generator=generator) < 0.6] = 1
    action[::11] = -1
    weight = torch.rand(size, generator=generator) + 0.1
    weight[5::13] = 0
    return {
        "row": torch.randint(states, (size,), generator=generator).to(DEVICE),
        "action": action.to(DEVICE),
        "target": 3 * torch.randn(size, generator=generator).to(DEVICE),
        "sample_weight": weight.to(DEVICE),
    }


def loss_and_gradients(given: Layer, **options: Any) -> list[torch.Tensor]:
    loss = hl_gauss_q_loss(*given, **options)
    uneven = torch.linspace(0.5, 2, max(loss.numel(), 1), device=DEVICE)[: loss.numel()].reshape(loss.shape)
    return [loss, *(part.to_dense() for part in torch.autograd.grad(loss, given, uneven.to(loss.dtype)))]


def assert_as_good_as_torch(given: Layer, **options: Any) -> list[torch.Tensor]:
    """No element is further from the float64 truth than plain torch's worst in that dtype, and a rounding more."""
    exact: Any = tuple(tensor.detach().double().requires_grad_() for tensor in given)
    truth = loss_and_gradients(exact, impl="reference", **options)
    plain = loss_and_gradients(given, impl="reference", **options)
    found = loss_and_gradients(given, impl="triton", **options)
    for name, t, p, f in zip(("loss", "hidden", "weight", "bias"), truth, plain, found, strict=True):
        eps = torch.finfo(given[0].dtype).eps
        tolerance = 1e-5 if name == "loss" else max(4 * torch.finfo(torch.float32).eps, eps)
        error = (f.double() - t).abs()
        allowed = (p.double() - t).abs().max() + tolerance * t.abs().max().clamp(min=1)
        worst = int(error.argmax())
        assert error.max() <= allowed, f"{name}: {f.flatten()[worst]} instead of {t.flatten()[worst]} at {worst}"
        assert f.dtype == (torch.float32 if name == "loss" else given[0].dtype)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_and_gradients(dtype: torch.dtype, reduction: Reduction) -> None:
    found = assert_as_good_as_torch(layer(dtype=dtype), support=SUPPORT, reduction=reduction, **pairs())
    assert not found[2][-1].any(), "an action without pairs has a gradient"


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("support", SUPPORTS)
def test_projections_and_transforms(support: Support, projection: Projection) -> None:
    """With stats, against the torch backend."""
    given = layer(bins=support.bins)
    options = {"support": support, "projection": projection, "reduction": "none", **pairs()}
    assert_as_good_as_torch(given, **options)
    _, stats = hl_gauss_q_loss(*given, impl="triton", return_stats=True, **options)
    _, wanted = hl_gauss_q_loss(*given, impl="torch", return_stats=True, **options)
    for name in ("loss", "value", "td_error", "entropy", "logsumexp", "clipped"):
        torch.testing.assert_close(getattr(stats, name), getattr(wanted, name), atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize(("features", "bins"), [(40, 2), (70, 33), (129, 65)])
def test_sizes_that_no_tile_fits(features: int, bins: int) -> None:
    """More features and bins than a tile has, and not a multiple of it."""
    given = layer(features=features, bins=bins)
    assert_as_good_as_torch(given, support=Support(-2.0, 3.0, bins), reduction="sum", **pairs())


def test_pair_i_is_of_state_i_without_rows() -> None:
    chosen = pairs(size=9) | {"row": None}
    assert_as_good_as_torch(layer(dtype=torch.bfloat16), support=SUPPORT, **chosen)


def test_no_bias_and_gradients_of_some_tensors_only() -> None:
    hidden, weight, _ = layer()
    chosen = pairs()
    for one, other in ((hidden, weight.detach()), (weight, hidden.detach())):
        layers = (one, other) if one is hidden else (other, one)
        found = [
            torch.autograd.grad(hl_gauss_q_loss(*layers, None, support=SUPPORT, impl=impl, **chosen), one)[0]
            for impl in ("triton", "torch")
        ]
        torch.testing.assert_close(*found)
    bias = layer()[2]
    found = [
        torch.autograd.grad(
            hl_gauss_q_loss(hidden.detach(), weight.detach(), bias, support=SUPPORT, impl=impl, **chosen), bias
        )[0]
        for impl in ("triton", "torch")
    ]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("size", [0, 1])
def test_no_pairs_and_none_that_count(size: int) -> None:
    given = layer()
    chosen = {name: value[:size] for name, value in pairs().items()}
    found = loss_and_gradients(given, support=SUPPORT, reduction="sum", impl="triton", **chosen)
    assert not any(part.any() for part in found), "the only pair is one that is left out"
    sparse = hl_gauss_q_loss(*given, support=SUPPORT, impl="triton", sparse_weight_gradient=True, **chosen)
    assert torch.autograd.grad(sparse.nan_to_num(), given[1])[0].to_dense().shape == given[1].shape


def test_sparse_gradients_hold_the_dense_ones() -> None:
    given = layer()
    dense = hl_gauss_q_loss(*given, support=SUPPORT, impl="triton", **pairs())
    sparse = hl_gauss_q_loss(*given, support=SUPPORT, impl="triton", sparse_weight_gradient=True, **pairs())
    for one, other in zip(torch.autograd.grad(sparse, given), torch.autograd.grad(dense, given), strict=True):
        assert torch.equal(one.to_dense(), other)
    gradient = torch.autograd.grad(
        hl_gauss_q_loss(*given, support=SUPPORT, impl="triton", sparse_weight_gradient=True, **pairs()), given[1]
    )[0]
    assert gradient.indices()[0].tolist() == [0, 1, 2, 3, 4]


def test_float16_gradients_do_not_vanish_before_they_are_summed() -> None:
    """As a mean over very many pairs would make them."""
    given = layer(dtype=torch.float16)
    small = 2.0**-22
    loss = hl_gauss_q_loss(*given, support=SUPPORT, reduction="sum", impl="triton", **pairs())
    found = torch.autograd.grad(small * loss, given)
    wanted = torch.autograd.grad(
        hl_gauss_q_loss(*given, support=SUPPORT, reduction="sum", impl="torch", **pairs()), given
    )
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.float() / small, other.float(), atol=0.3, rtol=0.1)
        assert one.any()


def test_autocast_reads_float32_weights_and_rounds_them() -> None:
    given = layer()
    rounded: Any = tuple(tensor.detach().bfloat16().requires_grad_() for tensor in given)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = loss_and_gradients(given, support=SUPPORT, impl="triton", **pairs())
    wanted = loss_and_gradients(rounded, support=SUPPORT, impl="triton", **pairs())
    assert torch.equal(found[0], wanted[0])
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other.float(), atol=1e-6, rtol=2**-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("support", SUPPORTS)
def test_values(support: Support, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all actions, of chosen ones and the best, with every action in a part of its own and with all in one."""
    given = layer(states=21, bins=support.bins, dtype=dtype)
    legal = torch.rand(21, 6, generator=torch.Generator().manual_seed(0)).to(DEVICE) < 0.5
    legal[:, 3] = True
    wanted = q_values(*given, support, impl="torch")
    for programs in (1, 1024):
        monkeypatch.setattr(q_head_triton, "_PROGRAMS", programs)
        torch.testing.assert_close(q_values(*given, support, impl="triton"), wanted, atol=1e-4, rtol=1e-5)
        for mask in (None, legal):
            value, action = q_max(*given, support, legal=mask, impl="triton")
            best = (wanted if mask is None else wanted.masked_fill(~mask, -torch.inf)).max(-1)
            assert torch.equal(action, best.indices)
            torch.testing.assert_close(value, best.values, atol=1e-4, rtol=1e-5)
    row, action = torch.tensor([3, 20, 0], device=DEVICE), torch.tensor([5, -1, 0], device=DEVICE)
    found = q_chosen(*given, row, action, support, impl="triton")
    torch.testing.assert_close(found[[0, 2]], wanted[row, action][[0, 2]], atol=1e-4, rtol=1e-5)
    assert found[1] == 0


@pytest.mark.parametrize("programs", [1, 1024])
def test_of_equal_values_the_lowest_action_and_nan_before_all(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(q_head_triton, "_PROGRAMS", programs)
    hidden, weight, bias = (tensor.detach() for tensor in layer(states=3))
    weight[:], bias[:] = weight[0].clone(), bias[0].clone()
    legal = torch.ones(3, 6, dtype=torch.bool, device=DEVICE)
    legal[1, :2] = False
    assert q_max(hidden, weight, bias, SUPPORT, legal=legal, impl="triton")[1].tolist() == [0, 2, 0]
    bias[4] = torch.nan
    legal[2, 4] = False
    value, action = q_max(hidden, weight, bias, SUPPORT, legal=legal, impl="triton")
    assert action.tolist() == [4, 4, 0]
    assert value.isnan().tolist() == [True, True, False]
    legal[1] = False
    best = q_head_triton.best_values(hidden, weight, bias, SUPPORT, legal, torch.float32)
    assert best.action.tolist() == [4, -1, 0]
    assert best.value[1] == -torch.inf


def test_double_q_targets() -> None:
    given, chooser = layer(dtype=torch.bfloat16), layer(actions=6, states=9, features=30, dtype=torch.bfloat16)
    reward, discount = torch.arange(9.0, device=DEVICE), torch.linspace(0, 1, 9, device=DEVICE)
    found, wanted = (
        td_target(reward, discount, *given, SUPPORT, online=chooser, impl=impl) for impl in ("triton", "torch")
    )
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_offsets_beyond_int32() -> None:
    """Two blocks of weights 2^31 elements apart, of which only the blocks are ever touched."""
    apart = 2**31 + 64
    block = layer(actions=2)[1].detach().bfloat16()
    weight = torch.empty(apart + block[1].numel(), dtype=torch.bfloat16, device=DEVICE)
    weight = weight.as_strided(block.shape, (apart, block.stride(1), 1))
    weight.copy_(block)
    hidden = layer(dtype=torch.bfloat16)[0].detach().requires_grad_()
    chosen = pairs(actions=3)
    found, wanted = (
        torch.autograd.grad(hl_gauss_q_loss(hidden, w, None, support=SUPPORT, impl="triton", **chosen), hidden)[0]
        for w in (weight, block)
    )
    assert torch.equal(found, wanted)
    assert torch.equal(
        q_values(hidden, weight, None, SUPPORT, impl="triton"), q_values(hidden, block, None, SUPPORT, impl="triton")
    )
