from __future__ import annotations

from typing import Literal, get_args

import pytest
import torch

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
