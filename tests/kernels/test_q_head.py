"""The Q-head's loss, values and targets against the plain reference, in float64 where it is the truth.

B states, A actions, P pairs, D features, K bins.
"""

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from isogon.kernels import Impl, Projection, Reduction, Support, hl_gauss_loss, target_probabilities
from isogon.kernels import q_head_torch as torch_backend
from isogon.kernels.q_head import hl_gauss_q_loss, q_chosen, q_max, q_values
from isogon.kernels.td_targets import td_target

PROJECTIONS: tuple[Projection, ...] = ("hl_gauss", "two_hot", "one_hot")
REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "weighted_mean", "none")
SUPPORTS = (
    Support(-2.0, 3.0, 11),
    Support(-2.0, 3.0, 11, transform="symlog"),
    Support(-2.0, 3.0, 10, anchor="atoms", transform="symexp"),
)
SUPPORT = SUPPORTS[0]
IMPLS: tuple[Impl, ...] = ("torch", "reference")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Layer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def layer(
    states: int = 5, actions: int = 7, features: int = 6, bins: int = SUPPORT.bins, dtype: torch.dtype = torch.float64
) -> Layer:
    """Features, weight and bias that require gradients."""
    generator = torch.Generator().manual_seed(states + 10 * actions)
    hidden = torch.randn(states, features, generator=generator, dtype=torch.float64)
    weight = torch.randn(actions, bins, features, generator=generator, dtype=torch.float64)
    bias = torch.randn(actions, bins, generator=generator, dtype=torch.float64)
    hidden, weight, bias = (tensor.to(dtype).requires_grad_() for tensor in (hidden, weight, bias))
    return hidden, weight, bias


def pairs(size: int, states: int = 5, actions: int = 7, seed: int = 0) -> dict[str, Any]:
    """Pairs with duplicates, never of the last action, with targets partly out of range and weights."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "row": torch.randint(states, (size,), generator=generator),
        "action": torch.randint(max(actions - 1, 1), (size,), generator=generator),
        "target": 3 * torch.randn(size, generator=generator, dtype=torch.float64),
        "sample_weight": torch.rand(size, generator=generator, dtype=torch.float64) + 0.1,
    }


def loss_and_gradients(given: Layer, upstream: bool = True, **options: Any) -> list[torch.Tensor]:
    """The loss, and the gradients in features, weight and bias with an uneven upstream gradient."""
    loss = hl_gauss_q_loss(*given, **options)
    uneven = torch.linspace(0.5, 2, max(loss.numel(), 1), dtype=loss.dtype)[: loss.numel()].reshape(loss.shape)
    gradients = torch.autograd.grad(loss, given, uneven if upstream else torch.ones_like(loss))
    return [loss, *(gradient.to_dense() for gradient in gradients)]


def assert_same(found: list[torch.Tensor], wanted: list[torch.Tensor], **tolerance: Any) -> None:
    for name, one, other in zip(("loss", "hidden", "weight", "bias"), found, wanted, strict=True):
        tolerance["msg"] = functools.partial("{}: {}".format, name)
        torch.testing.assert_close(one, other, equal_nan=True, **tolerance)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradients_are_those_of_the_whole_logits(
    reduction: Reduction, projection: Projection, weighted: bool
) -> None:
    """Against autograd through logits [B, A, K], and so is the reference."""
    given = layer()
    chosen = pairs(23)
    weights = chosen.pop("sample_weight")
    options: dict[str, Any] = {"projection": projection, "reduction": reduction}
    hidden, weight, bias = given
    whole = torch.einsum("bd,akd->bak", hidden, weight) + bias
    loss = hl_gauss_loss(
        whole[chosen["row"], chosen["action"]],
        chosen["target"],
        SUPPORT,
        weight=weights if weighted else None,
        **options,
    )
    uneven = torch.linspace(0.5, 2, max(loss.numel(), 1), dtype=loss.dtype)[: loss.numel()].reshape(loss.shape)
    wanted = [loss, *torch.autograd.grad(loss, given, uneven)]
    if weighted:
        chosen["sample_weight"] = weights
    for impl in IMPLS:
        found = loss_and_gradients(given, support=SUPPORT, impl=impl, **chosen, **options)
        assert_same(found, wanted)
        assert not found[2][-1].any(), "an action without pairs has a gradient"
        assert not found[3][-1].any()


@pytest.mark.parametrize("support", SUPPORTS)
def test_stats_are_those_of_the_loss_on_chosen_logits(support: Support) -> None:
    hidden, weight, bias = layer(bins=support.bins)
    chosen = pairs(23)
    weights = chosen.pop("sample_weight")
    logits = (torch.einsum("bd,akd->bak", hidden, weight) + bias)[chosen["row"], chosen["action"]]
    _, wanted = hl_gauss_loss(logits, chosen["target"], support, weight=weights, return_stats=True)
    for impl in IMPLS:
        _, stats = hl_gauss_q_loss(
            hidden, weight, bias, **chosen, support=support, sample_weight=weights, return_stats=True, impl=impl
        )
        for name in ("loss", "value", "td_error", "entropy", "logsumexp", "clipped"):
            torch.testing.assert_close(getattr(stats, name), getattr(wanted, name), msg=name)
            assert not getattr(stats, name).requires_grad


def test_gradients_against_finite_differences() -> None:
    given = layer(states=3, actions=3, features=2)
    chosen = pairs(5, states=3, actions=3)

    def losses(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = hl_gauss_q_loss(hidden, weight, bias, **chosen, support=SUPPORT, reduction="none")
        return loss

    assert torch.autograd.gradcheck(losses, given)


@pytest.mark.parametrize("impl", ["torch", "auto"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_errors_are_no_larger_than_those_of_plain_torch(dtype: torch.dtype, reduction: Reduction, impl: Impl) -> None:
    """Where the C kernels are built, they are what is taken by itself."""
    given = layer(states=33, actions=9, features=40, dtype=dtype)
    with torch.no_grad():
        given[1].mul_(0.3)
    chosen = pairs(101, states=33, actions=9)
    options = {"support": SUPPORT, "reduction": reduction, **chosen}
    exact: Any = tuple(tensor.detach().double().requires_grad_() for tensor in given)
    truth = loss_and_gradients(exact, **options, impl="reference")
    plain = loss_and_gradients(given, **options, impl="reference")
    found = loss_and_gradients(given, **options, impl=impl)
    for name, t, p, f in zip(("loss", "hidden", "weight", "bias"), truth, plain, found, strict=True):
        tolerance = (1e-5 if name == "loss" else 2e-6) if dtype == torch.float32 else torch.finfo(dtype).eps
        error, allowed = (f.double() - t).abs(), (p.double() - t).abs().max() + tolerance * t.abs().max().clamp(min=1)
        worst = error.argmax()
        assert error.max() <= allowed, f"{name}: {f.flatten()[worst]} instead of {t.flatten()[worst]} at {int(worst)}"
        assert f.dtype == (torch.float32 if name == "loss" else dtype)


def test_pair_i_is_of_state_i_without_rows() -> None:
    given = layer(states=20)
    chosen = pairs(20)
    chosen["row"] = torch.arange(20)
    wanted = loss_and_gradients(given, support=SUPPORT, **chosen)
    found = loss_and_gradients(given, support=SUPPORT, **(chosen | {"row": None}))
    assert_same(found, wanted, atol=0, rtol=0)
    plain = loss_and_gradients(given, support=SUPPORT, impl="reference", **(chosen | {"row": None}))
    assert_same(found, plain)


@pytest.mark.parametrize("impl", IMPLS)
def test_pairs_left_out_count_as_samples_of_weight_zero(impl: Impl) -> None:
    """Whatever is in them: their features, target and weights are not even finite."""
    hidden, weight, bias = layer()
    chosen = pairs(12)
    keep = torch.ones(12, dtype=torch.bool)
    keep[[2, 5, 9]] = False
    with torch.no_grad():
        hidden[4] = torch.nan
        weight[6] = torch.inf
    chosen["row"] = chosen["row"] % 4
    few = {name: value[keep] for name, value in chosen.items()}
    chosen["action"][2], chosen["row"][5], chosen["sample_weight"][9] = -1, -3, 0
    chosen["row"][[2, 9]], chosen["action"][[5, 9]] = 4, 6
    chosen["target"][[2, 5, 9]] = torch.tensor([torch.nan, torch.inf, torch.nan], dtype=torch.float64)
    given = hidden, weight, bias
    for reduction, scale in (("sum", 1.0), ("mean", 9 / 12), ("weighted_mean", 1.0)):
        wanted = loss_and_gradients(given, support=SUPPORT, reduction=reduction, impl=impl, **few)
        found = loss_and_gradients(given, support=SUPPORT, reduction=reduction, impl=impl, **chosen)
        assert_same(found, [scale * part for part in wanted])
        assert all(bool(part.isfinite().all()) for part in found)
    loss, stats = hl_gauss_q_loss(*given, support=SUPPORT, reduction="none", return_stats=True, impl=impl, **chosen)
    for part in (loss, stats.loss, stats.value, stats.td_error, stats.entropy, stats.logsumexp):
        assert not part[~keep].any()
        assert bool(part[keep].all())


def test_unweighted_mean_of_those_left_in() -> None:
    given = layer()
    chosen = pairs(8)
    del chosen["sample_weight"]
    chosen["action"][3] = -1
    single = hl_gauss_q_loss(*given, support=SUPPORT, reduction="none", **chosen)
    torch.testing.assert_close(hl_gauss_q_loss(*given, support=SUPPORT, **chosen), single.sum() / 8)
    weighted = hl_gauss_q_loss(*given, support=SUPPORT, reduction="weighted_mean", **chosen)
    torch.testing.assert_close(weighted, single.sum() / 7)


@pytest.mark.parametrize(("states", "actions", "size"), [(0, 3, 0), (4, 3, 0), (1, 1, 1), (1, 1, 9), (17, 1, 5)])
def test_sizes_at_the_edge(states: int, actions: int, size: int) -> None:
    given = layer(states=states, actions=actions)
    chosen = pairs(size, states=max(states, 1), actions=actions)
    for reduction in REDUCTIONS:
        options = {"support": SUPPORT, "reduction": reduction, **chosen}
        found = loss_and_gradients(given, **options)
        assert_same(found, loss_and_gradients(given, **options, impl="reference"))
        if size == 0:
            assert not any(part.any() for part in found[1:])
    value, action = q_max(*given, SUPPORT)
    assert value.shape == action.shape == (states,)
    assert q_values(*given, SUPPORT).shape == (states, actions)


def test_no_bias_and_gradients_of_some_tensors_only() -> None:
    hidden, weight, bias = layer()
    chosen = pairs(9)
    zero = torch.zeros_like(bias, requires_grad=True)
    wanted = loss_and_gradients((hidden, weight, zero), upstream=False, support=SUPPORT, **chosen)
    loss = hl_gauss_q_loss(hidden.detach(), weight, None, support=SUPPORT, **chosen)
    torch.testing.assert_close(torch.autograd.grad(loss, weight)[0], wanted[2])
    loss = hl_gauss_q_loss(hidden, weight.detach(), None, support=SUPPORT, **chosen)
    torch.testing.assert_close(torch.autograd.grad(loss, hidden)[0], wanted[1])
    assert not hl_gauss_q_loss(hidden.detach(), weight.detach(), None, support=SUPPORT, **chosen).requires_grad
    with torch.no_grad():
        assert not hl_gauss_q_loss(hidden, weight, None, support=SUPPORT, **chosen).requires_grad


def test_blocks_of_pairs_and_actions_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    given = layer()
    chosen = pairs(40)
    legal = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    legal[:, 2] = True
    whole = loss_and_gradients(given, support=SUPPORT, **chosen)
    values, best = q_values(*given, SUPPORT), q_max(*given, SUPPORT, legal=legal)
    for elements in (1, 3 * SUPPORT.bins, 7 * SUPPORT.bins + 1):
        monkeypatch.setattr(torch_backend, "_BLOCK_ELEMENTS", elements)
        assert_same(loss_and_gradients(given, support=SUPPORT, **chosen), whole)
        torch.testing.assert_close(q_values(*given, SUPPORT), values)
        found = q_max(*given, SUPPORT, legal=legal)
        torch.testing.assert_close(found[0], best[0])
        assert torch.equal(found[1], best[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_run_gives_the_same_bits(dtype: torch.dtype) -> None:
    given = layer(states=40, actions=30, features=64, dtype=dtype)
    chosen = pairs(2000, states=40, actions=30)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            first = loss_and_gradients(given, support=SUPPORT, **chosen)
            for _ in range(5):
                assert_same(loss_and_gradients(given, support=SUPPORT, **chosen), first, atol=0, rtol=0)
    finally:
        torch.set_num_threads(threads)


def test_backward_twice_gives_the_same_and_double_backward_is_refused() -> None:
    given = layer()
    loss = hl_gauss_q_loss(*given, support=SUPPORT, reduction="none", **pairs(9))
    upstream = torch.linspace(1, 2, 9, dtype=torch.float64)
    first = torch.autograd.grad(loss, given, upstream, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, given, upstream, retain_graph=True), strict=True):
        assert torch.equal(one, other)
    for once in torch.autograd.grad(loss, given, upstream, create_graph=True):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.backward(once.sum(), retain_graph=True)


def test_sparse_gradients_hold_the_dense_ones() -> None:
    hidden, weight, bias = layer()
    chosen = pairs(9)
    dense = loss_and_gradients((hidden, weight, bias), upstream=False, support=SUPPORT, **chosen)
    loss = hl_gauss_q_loss(hidden, weight, bias, support=SUPPORT, sparse_weight_gradient=True, **chosen)
    for gradient, wanted in zip(torch.autograd.grad(loss, (weight, bias)), dense[2:], strict=True):
        assert gradient.is_sparse
        assert gradient.is_coalesced()
        assert torch.equal(gradient.indices()[0], chosen["action"].unique())
        assert torch.equal(gradient.to_dense(), wanted)
        torch.sparse_coo_tensor(gradient.indices(), gradient.values(), gradient.shape, check_invariants=True)


@pytest.mark.parametrize("optimizer", [torch.optim.SparseAdam, torch.optim.SGD])
def test_sparse_gradients_train(optimizer: type[torch.optim.Optimizer]) -> None:
    hidden, weight, bias = layer()
    chosen = pairs(9)
    before = weight.detach().clone()
    steps: Any = optimizer([weight, bias], lr=0.05)  # type: ignore[call-arg]
    losses = []
    for _ in range(20):
        steps.zero_grad()
        loss = hl_gauss_q_loss(hidden.detach(), weight, bias, support=SUPPORT, sparse_weight_gradient=True, **chosen)
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert torch.equal(weight[6], before[6])


def test_sparse_gradients_are_refused_where_processes_average_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    given = layer()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="sparse_weight_gradient is True in a group of 2 processes"):
        hl_gauss_q_loss(*given, support=SUPPORT, sparse_weight_gradient=True, **pairs(3))
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    hl_gauss_q_loss(*given, support=SUPPORT, sparse_weight_gradient=True, **pairs(3))


def test_autocast_rounds_operands_and_keeps_gradients_in_their_dtype() -> None:
    given = layer(states=9, features=33, dtype=torch.float32)
    chosen = pairs(30, states=9)
    rounded: Any = tuple(tensor.detach().bfloat16().double().requires_grad_() for tensor in given)
    wanted = loss_and_gradients(rounded, support=SUPPORT, **chosen)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_and_gradients(given, support=SUPPORT, **chosen)
        mixed = loss_and_gradients(
            (given[0].detach().bfloat16().requires_grad_(), given[1], given[2]), support=SUPPORT, **chosen
        )
        values, best = q_values(*given, SUPPORT), q_max(*given, SUPPORT)
    assert [part.dtype for part in found] == [torch.float32] * 4
    assert_same(found, [part.float() for part in wanted], atol=1e-5, rtol=1e-5)
    assert mixed[1].dtype == torch.bfloat16
    torch.testing.assert_close(mixed[2], found[2])
    torch.testing.assert_close(
        values.double(), q_values(rounded[0], rounded[1], rounded[2], SUPPORT), atol=1e-5, rtol=1e-5
    )
    assert torch.equal(best[0], values.amax(-1))


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the largest tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and not func.is_view:
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_logits_of_every_action_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """B A K is a million elements here, and W a twentieth of it."""
    monkeypatch.setattr(torch_backend, "_BLOCK_ELEMENTS", 10_000)
    given = layer(states=200, actions=400, features=10, dtype=torch.float32)
    chosen = pairs(300, states=200, actions=400)
    everything, weights = 200 * 400 * SUPPORT.bins, 400 * SUPPORT.bins * 10
    with Largest() as largest:  # type: ignore[no-untyped-call]
        hl_gauss_q_loss(*given, support=SUPPORT, **chosen).backward()
    assert weights <= largest.elements < 2 * weights
    rows = torch.arange(200)
    for call in (
        lambda: q_max(*given, SUPPORT),
        lambda: q_values(*given, SUPPORT),
        lambda: td_target(torch.zeros(200), torch.ones(200), *given, SUPPORT, online=given),
        lambda: q_chosen(*given, rows, rows, SUPPORT),
    ):
        with Largest() as largest:  # type: ignore[no-untyped-call]
            call()
        assert 0 < largest.elements <= 200 * 400 < everything / 10
    with Largest() as largest:  # type: ignore[no-untyped-call]
        q_values(*given, SUPPORT, impl="reference")
    assert largest.elements >= everything


@pytest.mark.parametrize("support", SUPPORTS)
def test_values_are_expectations(support: Support) -> None:
    hidden, weight, bias = layer(bins=support.bins)
    logits = torch.einsum("bd,akd->bak", hidden, weight) + bias
    wanted = support.expectation(torch.softmax(logits, -1)).detach()
    row, action = torch.tensor([0, 4, 4, -1]), torch.tensor([6, 0, 0, 2])
    for impl in IMPLS:
        values = q_values(hidden, weight, bias, support, impl=impl)
        torch.testing.assert_close(values, wanted)
        assert not values.requires_grad
        found = q_chosen(hidden, weight, bias, row, action, support, impl=impl)
        torch.testing.assert_close(found[:3], wanted[row[:3], action[:3]])
        assert found[3] == 0


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("share", [0.05, 0.9])
def test_the_best_legal_action(share: float, impl: Impl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few legal actions take another way through the torch backend than many."""
    monkeypatch.setattr(torch_backend, "_GROUP_COST", 10)
    given = layer(states=30, actions=20)
    legal = torch.rand(30, 20, generator=torch.Generator().manual_seed(1)) < share
    legal[torch.arange(30), torch.arange(30) % 20] = True
    values = q_values(*given, SUPPORT, impl="reference")
    value, action = q_max(*given, SUPPORT, legal=legal, impl=impl)
    for b in range(30):
        best = max((values[b, a].item(), a) for a in range(20) if legal[b, a])
        assert action[b] == best[1]
        assert value[b].item() == pytest.approx(best[0])
    value, action = q_max(*given, SUPPORT, impl=impl)
    torch.testing.assert_close(value, values.amax(-1))
    assert torch.equal(action, values.argmax(-1))
    assert action.dtype == torch.int64


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("elements", [1, 2**20])
def test_of_equal_values_the_lowest_action_and_nan_before_all(
    elements: int, impl: Impl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "_BLOCK_ELEMENTS", elements)
    hidden, weight, bias = (tensor.detach() for tensor in layer(states=3, actions=8))
    weight[:], bias[:] = weight[0], bias[0]
    legal = torch.ones(3, 8, dtype=torch.bool)
    legal[1, :3] = False
    assert q_max(hidden, weight, bias, SUPPORT, legal=legal, impl=impl)[1].tolist() == [0, 3, 0]
    bias[4] = torch.nan
    legal[2, 4] = False
    value, action = q_max(hidden, weight, bias, SUPPORT, legal=legal, impl=impl)
    assert action.tolist() == [4, 4, 0]
    assert value.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("impl", IMPLS)
def test_td_targets_by_brute_force(double: bool, impl: Impl) -> None:
    given = layer(states=12)
    chooser: Layer = tuple(tensor.detach() + torch.randn_like(tensor) for tensor in given)  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    legal = torch.rand(12, 7, generator=generator) < 0.5
    legal[:, 3] = True
    reward, discount = torch.randn(12, generator=generator), torch.rand(12, generator=generator)
    values = q_values(*given, SUPPORT, impl="reference")
    ranks = q_values(*chooser, SUPPORT, impl="reference") if double else values
    wanted = []
    for b in range(12):
        best = max((ranks[b, a].item(), a) for a in range(7) if legal[b, a])[1]
        wanted.append(reward[b].item() + discount[b].item() * values[b, best].item())
    found = td_target(reward, discount, *given, SUPPORT, legal=legal, online=chooser if double else None, impl=impl)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    assert not found.requires_grad


@pytest.mark.parametrize("double", [False, True])
def test_nothing_of_what_follows_the_end_reaches_the_target(double: bool) -> None:
    hidden, weight, bias = (tensor.detach() for tensor in layer(states=4))
    legal = torch.ones(4, 7, dtype=torch.bool)
    legal[2] = False
    hidden[2], hidden[3] = torch.nan, torch.inf
    reward, discount = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0.0, 0.0, 0.0])
    online = (hidden, weight, bias) if double else None
    found = td_target(reward, discount, hidden, weight, bias, SUPPORT, legal=legal, online=online)
    value = q_max(hidden[:1], weight, bias, SUPPORT)[0].item()
    assert found.tolist() == [1 + 0.5 * value, 2, 3, 4]
    assert td_target(reward, 0 * discount, hidden, weight, bias, SUPPORT, legal=legal).tolist() == reward.tolist()
    with pytest.raises(ValueError, match="no legal action in 1 of 4 states, such as state 2"):
        q_max(hidden, weight, bias, SUPPORT, legal=legal)


@settings(max_examples=25, deadline=None)
@given(
    states=st.integers(1, 6),
    actions=st.integers(1, 9),
    size=st.integers(0, 30),
    bins=st.integers(2, 9),
    seed=st.integers(0, 1000),
    reduction=st.sampled_from(REDUCTIONS),
    projection=st.sampled_from(PROJECTIONS),
)
def test_any_pairs(
    states: int, actions: int, size: int, bins: int, seed: int, reduction: Reduction, projection: Projection
) -> None:
    """Agreement with the reference, and each used action's bias gradient sums to nothing over the bins."""
    support = Support(-2.0, 3.0, bins)
    given = layer(states=states, actions=actions, bins=bins)
    chosen = pairs(size, states=states, actions=actions, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    chosen["action"][torch.rand(size, generator=generator) < 0.2] = -1
    options: dict[str, Any] = {"support": support, "reduction": reduction, "projection": projection, **chosen}
    found = loss_and_gradients(given, **options)
    assert_same(found, loss_and_gradients(given, **options, impl="reference"))
    if size:
        torch.testing.assert_close(found[3].sum(-1), torch.zeros(actions, dtype=torch.float64), equal_nan=True)
        entropy = target_probabilities(chosen["target"], support, projection)
        entropy = -torch.special.xlogy(entropy, entropy).sum(-1)
        single = hl_gauss_q_loss(*given, **(options | {"reduction": "none", "sample_weight": None}))
        assert bool((single >= torch.where(chosen["action"] < 0, 0, entropy) - 1e-9).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(5)}, r"hidden has shape \(5,\)"),
        ({"hidden": torch.zeros(5, 4, dtype=torch.float64)}, r"weight has shape \(7, 11, 6\), hidden \(5, 4\)"),
        ({"weight": torch.zeros(7, 11, dtype=torch.float64)}, r"weight has shape \(7, 11\)"),
        ({"weight": torch.zeros(7, 10, 6, dtype=torch.float64)}, r"weight has shape \(7, 10, 6\).*11 bins"),
        ({"bias": torch.zeros(7, dtype=torch.float64)}, r"bias has shape \(7,\)"),
        ({"bias": torch.zeros(7, 11)}, "bias has dtype torch.float32, hidden torch.float64"),
        ({"hidden": torch.zeros(5, 6, dtype=torch.int64)}, "hidden has dtype torch.int64"),
        ({"weight": torch.zeros(7, 11, 6, dtype=torch.float64, device="meta")}, "weight is on meta, hidden on cpu"),
        ({"row": torch.zeros(9, dtype=torch.int32)}, "row has dtype torch.int32"),
        ({"row": torch.zeros(8, dtype=torch.int64)}, r"row has shape \(8,\), action \(9,\)"),
        ({"row": None}, r"action has shape \(9,\): without row it must be \(5,\)"),
        ({"action": torch.zeros(9)}, "action has dtype torch.float32"),
        ({"target": torch.zeros(8)}, r"target has shape \(8,\)"),
        ({"target": torch.zeros(9, dtype=torch.int64)}, "target has dtype torch.int64"),
        ({"target": torch.zeros(9, requires_grad=True)}, "target requires a gradient"),
        ({"target": torch.full((9,), math.nan)}, "target has 9 NaN"),
        ({"target": torch.full((9,), 15.0), "out_of_range": "error"}, "target has 9 of 9 outside"),
        ({"out_of_range": "wrap"}, "out_of_range is 'wrap'"),
        ({"sample_weight": torch.zeros(8)}, r"sample_weight has shape \(8,\)"),
        ({"sample_weight": torch.ones(9, requires_grad=True)}, "sample_weight requires a gradient"),
        ({"reduction": "median"}, "reduction is 'median'"),
        ({"projection": "three_hot"}, "projection is 'three_hot'"),
        ({"impl": "cuda"}, "impl is 'cuda'"),
        ({"impl": "triton"}, "impl is 'triton', but hidden has dtype torch.float64"),
        ({"impl": "reference", "sparse_weight_gradient": True}, "impl='reference' has dense gradients only"),
    ],
)
def test_what_is_refused(change: dict[str, Any], message: str) -> None:
    hidden, weight, bias = layer()
    arguments: dict[str, Any] = {"hidden": hidden, "weight": weight, "bias": bias, "support": SUPPORT, **pairs(9)}
    with pytest.raises(ValueError, match=message):
        hl_gauss_q_loss(**(arguments | change))


def test_indices_that_do_not_exist() -> None:
    given = layer()
    chosen = pairs(3)
    with pytest.raises(ValueError, match="action has 7, of 7 actions"):
        hl_gauss_q_loss(*given, **(chosen | {"action": torch.tensor([0, 7, 1])}), support=SUPPORT)
    with pytest.raises(ValueError, match="row has 5, of 5 states"):
        hl_gauss_q_loss(*given, **(chosen | {"row": torch.tensor([0, 5, 1])}), support=SUPPORT)
    with pytest.raises(ValueError, match="row has 5"):
        q_chosen(*given, torch.tensor([5]), torch.tensor([0]), SUPPORT)


@pytest.mark.parametrize(
    ("legal", "message"),
    [
        (torch.ones(5, 7), "legal has dtype torch.float32"),
        (torch.ones(5, 6, dtype=torch.bool), r"legal has shape \(5, 6\): it must be \(5, 7\)"),
        (torch.zeros(5, 7, dtype=torch.bool), "no legal action in 5 of 5 states, such as state 0"),
    ],
)
def test_masks_that_are_refused(legal: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        q_max(*layer(), SUPPORT, legal=legal)
    with pytest.raises(ValueError, match=message):
        td_target(torch.zeros(5), torch.ones(5), *layer(), SUPPORT, legal=legal)


def test_what_targets_refuse() -> None:
    given = layer()
    with pytest.raises(ValueError, match=r"reward has shape \(4,\): it must be \(5,\)"):
        td_target(torch.zeros(4), torch.ones(5), *given, SUPPORT)
    with pytest.raises(ValueError, match=r"online has features \(5, 6\) and weight \(6, 11, 6\)"):
        td_target(torch.zeros(5), torch.ones(5), *given, SUPPORT, online=layer(actions=6))
