from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import pytest
import torch

from isogon import kernels
from isogon.learners.values import ValueConfig, build_head

from .value_head_suite import Case, ValueHeadSuite

KIND = Literal["hl_gauss", "two_hot", "c51", "mse", "mse_softmax"]
FORM = Literal["full", "tilt"]


def random_head(
    kind: KIND, form: FORM, transform: Literal["none", "symlog", "symexp"] = "none", *, mapping: bool = False
) -> Case:
    config = ValueConfig(kind=kind, form=form, bins=11, vmin=-2.0, vmax=3.0, transform=transform)
    generator = torch.Generator().manual_seed(3)
    head = build_head(config, 4, 5, generator=generator).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    hidden = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    if mapping:
        return Case(head, {"features": hidden, "board": torch.zeros(3)}, 5, -1.5, 2.5)
    return Case(head, hidden, 5, -1.5, 2.5)


class TestKindsAndForms(ValueHeadSuite):
    @pytest.fixture(params=get_args(FORM))
    def form(self, request: pytest.FixtureRequest) -> FORM:
        form: FORM = request.param
        return form

    @pytest.fixture(params=get_args(KIND))
    def case(self, request: pytest.FixtureRequest, form: FORM) -> Case:
        return random_head(request.param, form)


class TestTransforms(ValueHeadSuite):
    @pytest.fixture(params=["symlog", "symexp"])
    def case(self, request: pytest.FixtureRequest) -> Case:
        form: FORM = "tilt" if request.param == "symlog" else "full"
        return random_head("two_hot", form, request.param)


class TestMappingAsHidden(ValueHeadSuite):
    @pytest.fixture(params=get_args(FORM))
    def case(self, request: pytest.FixtureRequest) -> Case:
        return random_head("hl_gauss", request.param, mapping=True)


class TestGatheredWeights(ValueHeadSuite):
    """The full map's way for many actions and few pairs."""

    @pytest.fixture
    def case(self, monkeypatch: pytest.MonkeyPatch) -> Case:
        monkeypatch.setattr("isogon.learners.values.forms._DENSE_ACTIONS_PER_PAIR", 0)
        return random_head("hl_gauss", "full")


class TestKernelsOfManyActions(ValueHeadSuite):
    """What large heads do: losses and values straight from the layer's weights."""

    @pytest.fixture(params=["hl_gauss", "two_hot", "c51", "mse_softmax"])
    def case(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
        monkeypatch.setattr("isogon.learners.values.kinds._DENSE_OUTPUTS_PER_PAIR", 0)
        monkeypatch.setattr("isogon.learners.values.head._FEW_OUTPUTS", 0)
        return random_head(request.param, "full")


def test_a_head_of_many_actions_gives_what_a_small_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a scale of returns and importance weights; and it takes the kernels, which are counted."""
    config = ValueConfig(kind="hl_gauss", bins=11, vmin=-2.0, vmax=3.0, normalise_returns=True)
    generator = torch.Generator().manual_seed(3)
    head = build_head(config, 4, 400, generator=generator)
    assert head.scale is not None
    head.scale.fill_(3.0)
    hidden = torch.randn(7, 4, generator=generator)
    row, action = torch.arange(7), torch.randint(400, (7,), generator=generator)
    target, weight = 6 * torch.randn(7, generator=generator), torch.rand(7, generator=generator)
    legal = torch.rand(7, 400, generator=generator) < 0.5

    def all_of_it() -> list[torch.Tensor]:
        head.zero_grad()
        loss = head.loss(hidden, row, action, target, weight)
        loss.loss.sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            values = [head.values(hidden), head.values_at(hidden, action[:, None]), *head.best(hidden, legal)]
        gradients = [p.grad.clone() for p in head.parameters() if p.grad is not None]
        return [loss.loss.detach(), loss.value, loss.td_error, *values, *gradients]

    monkeypatch.setattr("isogon.learners.values.kinds._DENSE_OUTPUTS_PER_PAIR", 10**9)
    wanted = all_of_it()
    monkeypatch.setattr("isogon.learners.values.kinds._DENSE_OUTPUTS_PER_PAIR", 4)
    monkeypatch.setattr("isogon.learners.values.head._FEW_OUTPUTS", 0)
    called: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            called.append(name)
            return getattr(kernels, name)(*arguments, **options)

        return run

    for module, name in (("kinds", "hl_gauss_q_loss"), ("head", "q_values"), ("head", "q_chosen"), ("head", "q_max")):
        monkeypatch.setattr(f"isogon.learners.values.{module}.{name}", counted(name))
    for one, other in zip(all_of_it(), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert called == ["hl_gauss_q_loss", "q_values", "q_chosen", "q_max"]
