"""The Q-head's functions under `torch.compile`, as one graph without a break, against themselves in eager mode.

B states, A actions, P pairs, D features, K bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from isogon.kernels import HLGaussStats, Impl, Reduction, Support
from isogon.kernels.q_head import hl_gauss_q_loss, q_chosen, q_max, q_values
from isogon.kernels.td_targets import td_target

from .test_q_head import REDUCTIONS, SUPPORT, SUPPORTS, Layer, layer, pairs

# Torch's own compiler uses what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


q_loss: Any = hl_gauss_q_loss
"""Its arguments come in dicts here."""


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def poisoned(size: int = 24, states: int = 5) -> dict[str, Any]:
    """Pairs of which some are left out in each of the three ways; their targets are NaN."""
    chosen = pairs(size, states)
    chosen["action"][2], chosen["row"][5], chosen["sample_weight"][9] = -1, -3, 0
    chosen["target"][[2, 5, 9]] = torch.nan
    return {name: value.float() if value.dtype == torch.float64 else value for name, value in chosen.items()}


def graph_of(function: Callable[..., Any], backend: str = "aot_eager", **options: Any) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, backend=backend, **options)


def loss_and_gradients(function: Callable[..., Any], given: Layer, **chosen: Any) -> tuple[list[torch.Tensor], Any]:
    """The loss and its gradients in whatever requires one, and the stats."""
    result = function(*given, **chosen)
    loss, stats = result if isinstance(result, tuple) else (result, None)
    uneven = torch.linspace(-1, 2, max(loss.numel(), 2), dtype=loss.dtype)[-loss.numel() :].reshape(loss.shape)
    wanted = [tensor for tensor in given if tensor is not None and tensor.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, wanted, uneven)], stats


def assert_compiles(
    function: Callable[..., Any], given: Layer, chosen: dict[str, Any], compiled: Callable[..., Any] | None = None
) -> None:
    """Loss, gradients and stats are the same, of the same dtype."""
    wanted, seen = loss_and_gradients(function, given, **chosen)
    found, compiled_seen = loss_and_gradients(compiled or graph_of(function), given, **chosen)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for name in HLGaussStats.__dataclass_fields__ if seen is not None else ():
        part = getattr(compiled_seen, name)
        assert not part.requires_grad
        torch.testing.assert_close(part, getattr(seen, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions(reduction: Reduction, weighted: bool) -> None:
    chosen = poisoned()
    if not weighted:
        weight = chosen.pop("sample_weight")
        chosen["action"][weight == 0] = -1

    def loss(*given: Any, **options: Any) -> Any:
        return q_loss(*given, support=SUPPORT, reduction=reduction, return_stats=True, **options)

    assert_compiles(loss, layer(dtype=torch.float32), chosen)


@pytest.mark.parametrize("impl", ["native", "torch", "reference"])
@pytest.mark.parametrize("support", SUPPORTS)
def test_supports_and_backends(support: Support, impl: Impl) -> None:
    if impl == "native":
        pytest.importorskip("isogon.kernels._native")

    def loss(*given: Any, **options: Any) -> Any:
        return q_loss(*given, support=support, projection="two_hot", return_stats=True, impl=impl, **options)

    assert_compiles(loss, layer(bins=support.bins, dtype=torch.float32), poisoned())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_pair_i_is_of_state_i_without_rows_and_other_dtypes(dtype: torch.dtype) -> None:
    """Without a bias, and without a gradient of the features, as of a frozen body."""
    hidden, weight, _ = layer(states=24, dtype=dtype)
    chosen = poisoned(states=24) | {"row": None}
    chosen["target"].nan_to_num_()

    def loss(hidden: torch.Tensor, weight: torch.Tensor, **options: Any) -> Any:
        return q_loss(hidden, weight, None, support=SUPPORT, **options)

    given: Any = hidden.detach(), weight
    assert_compiles(loss, given, chosen)


def test_under_autocast() -> None:
    """Autocast's dtype belongs to the graph: it is no longer on when the graph runs backward."""

    def loss(*given: Any, **options: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return q_loss(*given, support=SUPPORT, return_stats=True, **options)

    def values(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return q_values(hidden, weight, bias, SUPPORT)

    given = layer(dtype=torch.float32)
    assert_compiles(loss, given, poisoned())
    assert torch.equal(graph_of(values)(*given), values(*given))
    assert not torch.equal(values(*given), q_values(*given, SUPPORT))


def test_inductor_with_sizes_that_vary() -> None:
    """Compiled once for any number of pairs and states, amid other operations."""

    def loss(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, **options: Any) -> Any:
        target = options.pop("target") + 1
        return q_loss(hidden.relu(), 2 * weight, bias, target=target, support=SUPPORT, **options)

    compiled = graph_of(loss, backend="inductor", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for states, size in ((5, 24), (9, 31), (6, 17)):
            given = layer(states=states, dtype=torch.float32)
            assert_compiles(loss, given, poisoned(size, states), compiled)


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_the_best_action(masked: bool, impl: Impl) -> None:
    given = layer(dtype=torch.float32)
    chosen = poisoned()
    legal = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    legal[:, 3] = True

    def values(legal: torch.Tensor) -> tuple[torch.Tensor, ...]:
        best = q_max(*given, SUPPORT, legal=legal if masked else None, impl=impl)
        pair = q_chosen(*given, chosen["row"], chosen["action"], SUPPORT, impl=impl)
        return (*best, pair, q_values(*given, SUPPORT, impl=impl))

    for found, wanted in zip(graph_of(values)(legal), values(legal), strict=True):
        assert not found.requires_grad
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("double", [False, True])
def test_targets_of_states_some_of_which_end(double: bool) -> None:
    """What follows the end is NaN and without a legal action."""
    hidden, weight, bias = layer(dtype=torch.float32)
    online = layer(actions=7, states=5, dtype=torch.float32) if double else None
    legal = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    legal[:, 2] = True
    discount = torch.tensor([0.9, 0, 1, 0, 0.5])
    with torch.no_grad():
        hidden[1] = torch.nan
        legal[1] = False
        if online is not None:
            online[0].neg_()
            online[0][1] = torch.nan

    def target(reward: torch.Tensor) -> torch.Tensor:
        return td_target(reward, discount, hidden, weight, bias, SUPPORT, legal=legal, online=online)

    reward = torch.arange(5.0)
    torch.testing.assert_close(graph_of(target)(reward), target(reward))


def test_what_is_refused_is_refused_when_the_graph_runs() -> None:
    given = layer(dtype=torch.float32)
    chosen = poisoned()
    compiled = graph_of(hl_gauss_q_loss)
    wrong: dict[str, dict[str, Any]] = {
        "action has 7, of 7 actions": {"action": torch.full_like(chosen["action"], 7)},
        "row has 5, of 5 states": {"row": torch.full_like(chosen["row"], 5)},
        "target has 21 NaN": {"target": torch.full_like(chosen["target"], torch.nan)},
        "target has 21 of 21 outside": {"target": torch.full_like(chosen["target"], 9), "out_of_range": "error"},
        "impl is 'cuda'": {"impl": "cuda"},
        "sparse_weight_gradient is True under torch.compile": {"sparse_weight_gradient": True},
    }
    for message, change in wrong.items():
        with pytest.raises(ValueError, match=message):
            compiled(*given, support=SUPPORT, **(chosen | change))
    with pytest.raises(ValueError, match="action has 8, of 7 actions"):
        graph_of(q_chosen)(*given, None, torch.full((5,), 8), SUPPORT)
    stuck = torch.ones(5, 7, dtype=torch.bool)
    stuck[3] = False
    with pytest.raises(ValueError, match="legal has no legal action in 1 of 5 states, such as state 3"):
        graph_of(q_max)(*given, SUPPORT, legal=stuck)
    with pytest.raises(Exception, match=r"out_of_range is 'error' under torch\.compile"):
        compiled(*given, support=SUPPORT, impl="reference", out_of_range="error", **chosen)
