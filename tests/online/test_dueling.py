"""The dueling form: against Wang et al. 2016, equation 9, in float64, for every loss; and both streams are taught."""

from __future__ import annotations

import pytest
import torch

from isogon.learners.values import ValueConfig, build_head
from isogon.learners.values.dueling import Dueling
from isogon.learners.values.head import ValueHead
from isogon.learners.values.kinds import CategoricalTarget, Target

FEATURES, ACTIONS, BINS = 12, 5, 21
KINDS = ["hl_gauss", "two_hot", "c51", "mse_softmax", "mse"]


def head(kind: str, units: int | None) -> ValueHead:
    config = ValueConfig.model_validate(
        {"kind": kind, "form": "dueling", "bins": BINS, "vmin": -2.0, "vmax": 2.0, "stream_units": units}
    )
    made = build_head(config, FEATURES, ACTIONS, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for part in made.parameters():
            part.copy_(torch.randn(part.shape, generator=torch.Generator().manual_seed(part.numel())) * 0.5)
    return made


def by_equation_9(form: Dueling, features: torch.Tensor) -> torch.Tensor:
    """``[B, A, W]``: the two streams each by itself, then put together."""
    features = features.double()
    state = action = features
    if form.streams is not None:
        weight, bias = (part.double() for part in form.streams.parameters())
        both = (features @ weight.T + bias).relu()
        state, action = both.chunk(2, dim=1)
    value = state @ form.state_weight.double().T + form.state_bias.double()
    advantage = torch.einsum("bu,awu->baw", action, form.action_weight.double()) + form.action_bias.double()
    return value[:, None] + advantage - advantage.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("units", [None, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_the_equation(kind: str, units: int | None) -> None:
    made = head(kind, units)
    features = torch.randn(9, FEATURES, generator=torch.Generator().manual_seed(1))
    assert isinstance(made.form, Dueling)
    expected = by_equation_9(made.form, features)
    row, action = torch.arange(9).repeat(ACTIONS), torch.arange(ACTIONS).repeat_interleave(9)
    torch.testing.assert_close(
        made.form.logits(features, row, action).double(), expected[row, action], rtol=1e-5, atol=1e-5
    )
    shared = made.form.logits_shared(features, torch.tensor([3, 0]))
    torch.testing.assert_close(shared.double(), expected[:, [3, 0]], rtol=1e-5, atol=1e-5)
    values = made.kind.value(expected.float())
    torch.testing.assert_close(made.values(features), values, rtol=1e-4, atol=1e-4)
    best, which = made.best(features)
    torch.testing.assert_close(best, values.max(dim=1).values, rtol=1e-4, atol=1e-4)
    assert torch.equal(which, values.argmax(dim=1))


@pytest.mark.parametrize("units", [None, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_both_streams_are_taught(kind: str, units: int | None) -> None:
    """Where the mean goes over bins instead, or the state has one number for all bins, its stream learns nothing."""
    made = head(kind, units)
    features = torch.randn(6, FEATURES, generator=torch.Generator().manual_seed(1))
    target: Target = torch.linspace(-1.5, 1.5, 6)
    if kind == "c51":
        target = CategoricalTarget(
            torch.linspace(-1, 1, 6), torch.full((6,), 0.9), torch.softmax(torch.randn(6, BINS), 1)
        )
    made.loss(features, torch.arange(6), torch.arange(6) % ACTIONS, target).loss.mean().backward()  # type: ignore[no-untyped-call]
    assert isinstance(made.form, Dueling)
    state, action = made.form.state_weight.grad, made.form.action_weight.grad
    assert state is not None
    assert action is not None
    assert float(state.abs().max()) > 0.1 * float(action.abs().max())
    # What all actions gain alike is the state's affair.
    torch.testing.assert_close(action.sum(dim=0), torch.zeros_like(action[0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["hl_gauss", "mse"])
def test_a_full_map_of_the_same_outputs_has_the_same_loss(kind: str) -> None:
    """The fused kernels see one linear layer."""
    made = head(kind, None)
    config = ValueConfig.model_validate({"kind": kind, "form": "full", "bins": BINS, "vmin": -2.0, "vmax": 2.0})
    full = build_head(config, FEATURES, ACTIONS, generator=torch.Generator().manual_seed(0))
    features = torch.randn(6, FEATURES, generator=torch.Generator().manual_seed(1))
    _, weight, bias = made.form.layer(features) or pytest.fail("no layer")
    with torch.no_grad():
        full.form.weight.copy_(weight)  # type: ignore[operator]
        full.form.bias.copy_(bias)  # type: ignore[operator]
    row, action, target = torch.arange(6), torch.arange(6) % ACTIONS, torch.linspace(-1.5, 1.5, 6)
    losses = [each.loss(features, row, action, target).loss for each in (made, full)]
    torch.testing.assert_close(*losses)
