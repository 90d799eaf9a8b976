"""Networks that read pictures: against the sizes that papers give, and the layers put together by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from isogon.learners.encodings.spec import ArraySpec, EnvironmentSpec
from isogon.learners.networks.config import ImpalaConfig, MinAtarNetworkConfig, NatureConfig, PictureNetworkConfig
from isogon.learners.networks.convolutional import PictureTorso
from isogon.learners.networks.value_module import build_value_module
from isogon.learners.values.config import ValueConfig

ATARI = EnvironmentSpec("atari pong", {"observation": ArraySpec((84, 84), "uint8")}, 6, history=4)
SEEN = EnvironmentSpec("atari pong", {"observation": ArraySpec((4, 84, 84), "uint8")}, 6)
MINATAR = EnvironmentSpec("minatar breakout", {"observation": ArraySpec((4, 10, 10), "uint8")}, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count(module: torch.nn.Module) -> int:
    return sum(part.numel() for part in module.parameters())


@pytest.mark.parametrize(
    ("network", "kind", "spec", "parameters"),
    [
        # Mnih et al. 2015 with 6 actions: 1,687,206.
        (NatureConfig(), "mse", ATARI, 1_687_206),
        (NatureConfig(), "hl_gauss", ATARI, 1_684_128 + 513 * 6 * 51),
        # Espeholt et al. 2018: 15 convolutions over four frames, 32 channels of 11 x 11 to 256 units.
        (ImpalaConfig(), "mse", ATARI, 592 + 4 * 2_320 + 4_640 + 9 * 9_248 + 3_873 * 256 + 257 * 6),
        # Young and Tian 2019, breakout.
        (MinAtarNetworkConfig(), "mse", MINATAR, 592 + 1_025 * 128 + 129 * 3),
    ],
)
def test_sizes(network: PictureNetworkConfig, kind: str, spec: EnvironmentSpec, parameters: int) -> None:
    value = ValueConfig.model_validate({"kind": kind, "form": "full", "bins": 51, "vmin": -10.0, "vmax": 10.0})
    module = build_value_module(network, value, spec, generator())  # type: ignore[arg-type]
    assert count(module) == parameters


def test_nature_is_its_layers_on_levels_from_0_to_1() -> None:
    torso = PictureTorso(NatureConfig(), SEEN, generator())
    frames = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    weights = dict(torso.named_parameters())
    x = frames.double() / 255
    for index, stride in ((0, 4), (2, 2), (4, 1)):
        weight, bias = (weights[f"convolutions.{index}.{name}"].double() for name in ("weight", "bias"))
        x = functional.conv2d(x, weight, bias, stride).relu()
    x = (x.flatten(1) @ weights["linear.weight"].double().T + weights["linear.bias"].double()).relu()
    torch.testing.assert_close(torso({"observation": frames}).double(), x, rtol=1e-4, atol=1e-5)


def test_impala_is_its_layers() -> None:
    torso = PictureTorso(ImpalaConfig(width=2), SEEN, generator())
    frames = torch.randint(256, (2, 4, 84, 84), dtype=torch.uint8)
    weights = {name: part.double() for name, part in torso.named_parameters()}

    def convolved(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    x = frames.double() / 255
    for stack, channels in enumerate((32, 64, 64)):
        at = 4 * stack
        x = functional.max_pool2d(convolved(f"convolutions.{at}", x), 3, stride=2, padding=1)
        assert x.shape[1] == channels
        for block in (at + 2, at + 3):
            inner = convolved(f"convolutions.{block}.first", x.relu())
            x = x + convolved(f"convolutions.{block}.second", inner.relu())
    assert x.shape[2:] == (11, 11)
    x = (x.relu().flatten(1) @ weights["linear.weight"].T + weights["linear.bias"]).relu()
    torch.testing.assert_close(torso({"observation": frames}).double(), x, rtol=1e-4, atol=1e-5)


def test_minatar_takes_ones_as_ones() -> None:
    torso = PictureTorso(MinAtarNetworkConfig(), MINATAR, generator())
    board = torch.randint(2, (3, 4, 10, 10), dtype=torch.uint8)
    x = functional.conv2d(board.float(), torso.convolutions[0].weight, torso.convolutions[0].bias).relu().flatten(1)  # type: ignore[arg-type]
    torch.testing.assert_close(torso({"observation": board}), torso.linear(x).relu())


def test_first_weights_are_the_generators_and_uniform_as_torchs() -> None:
    one, again, other = (PictureTorso(NatureConfig(), SEEN, generator(seed)) for seed in (0, 0, 1))
    for left, right in zip(one.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    assert (one.linear.weight != other.linear.weight).any()
    first = one.convolutions[0].weight
    assert isinstance(first, torch.Tensor)
    bound = (4 * 8 * 8) ** -0.5
    assert 0.99 * bound < float(first.detach().abs().max()) <= bound
    assert float(first.detach().std()) == pytest.approx(bound / np.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    ("network", "fields", "message"),
    [
        (NatureConfig(), {"a": ArraySpec((84, 84), "uint8"), "b": ArraySpec((2,), "float32")}, "reads one picture"),
        (NatureConfig(), {"observation": ArraySpec((8,), "uint8")}, r"is uint8\[8\]: use mlp"),
        (NatureConfig(), {"observation": ArraySpec((84, 84), "float32")}, "reads pictures in bytes"),
        (NatureConfig(), {"observation": ArraySpec((4, 10, 10), "uint8")}, "reads larger pictures than 10 x 10"),
    ],
)
def test_what_is_no_picture_is_refused(
    network: PictureNetworkConfig, fields: dict[str, ArraySpec], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PictureTorso(network, EnvironmentSpec("thing", fields, 2), generator())
