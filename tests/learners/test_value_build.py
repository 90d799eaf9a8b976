import math
from typing import Any

import pytest
import torch

from isogon.kernels import Support
from isogon.learners.values import VALUE_PRESETS, LinearScorer, ValueConfig, ValueHead, build_head, support_of


def build(config: ValueConfig, seed: int = 0, **arguments: Any) -> ValueHead:
    return build_head(config, 16, 5, generator=torch.Generator().manual_seed(seed), **arguments)


@pytest.mark.parametrize(
    ("preset", "kind", "support"),
    [
        ("stop_regressing", "hl_gauss", Support(-10.0, 10.0, 51)),
        ("searchless_chess", "hl_gauss", Support(0.0, 1.0, 128)),
        ("catgpt", "hl_gauss", Support(0.0, 1.0, 81)),
        ("tdmpc2", "two_hot", Support(-10.0, 10.0, 101, anchor="atoms", transform="symlog")),
        ("dreamerv3", "two_hot", Support(-20.0, 20.0, 255, anchor="atoms", transform="symexp")),
        ("mrq_reward", "two_hot", Support(-10.0, 10.0, 65, anchor="atoms", transform="symexp")),
        ("simbav2", "c51", Support(-5.0, 5.0, 101, anchor="atoms")),
        ("fasttd3", "c51", Support(-250.0, 250.0, 101, anchor="atoms")),
    ],
)
def test_presets(preset: str, kind: Any, support: Support) -> None:
    assert support_of(ValueConfig(kind=kind, preset=preset)) == support
    assert VALUE_PRESETS[preset].kind == kind
    assert VALUE_PRESETS[preset].source
    assert VALUE_PRESETS[preset].meaning


def test_reppo_needs_a_range_and_names_outer_centres() -> None:
    with pytest.raises(ValueError, match="vmin, vmax not set: preset 'reppo' leaves the range to the environment"):
        support_of(ValueConfig(kind="hl_gauss", preset="reppo"))
    config = ValueConfig(kind="hl_gauss", preset="reppo", vmin=-100.0, vmax=300.0)
    assert support_of(config) == Support(-100.0, 300.0, 151, anchor="atoms")


def test_the_config_overrides_its_preset() -> None:
    config = ValueConfig(preset="stop_regressing", bins=101, vmax=20.0, sigma_ratio=1.5)
    assert support_of(config) == Support(-10.0, 20.0, 101, sigma_ratio=1.5)
    assert support_of(
        ValueConfig(kind="two_hot", preset="dreamerv3", transform="none", vmin=-1.0, vmax=1.0)
    ) == Support(-1.0, 1.0, 255, anchor="atoms")
    assert support_of(ValueConfig(bins=9, vmin=0.0, vmax=2.0, transform="symlog")) == Support(
        0.0, 2.0, 9, transform="symlog"
    )


@pytest.mark.parametrize(
    ("kind", "anchor"), [("hl_gauss", "edges"), ("mse_softmax", "edges"), ("two_hot", "atoms"), ("c51", "atoms")]
)
def test_one_word_changes_the_loss_of_a_preset(kind: Any, anchor: Any) -> None:
    for preset in ("stop_regressing", None):
        config = ValueConfig(kind=kind, preset=preset, bins=51, vmin=-10.0, vmax=10.0)
        assert support_of(config) == Support(-10.0, 10.0, 51, anchor=anchor)
    assert support_of(ValueConfig(kind="mse", preset="stop_regressing")) is None


def test_missing_and_unknown_things_are_named() -> None:
    with pytest.raises(ValueError, match="bins, vmin, vmax not set: set them, or a preset"):
        support_of(ValueConfig())
    with pytest.raises(ValueError, match=r"value.kind is 'c51' and vmax not set"):
        support_of(ValueConfig(kind="c51", bins=51, vmin=0.0))
    for kind in ("hl_gauss", "mse"):
        with pytest.raises(ValueError, match=r"value.preset is 'stop_regresing': did you mean 'stop_regressing'\?"):
            support_of(ValueConfig(kind=kind, preset="stop_regresing"))
    with pytest.raises(ValueError, match=r"vmin is 10\.0 and vmax 10\.0"):
        support_of(ValueConfig(preset="stop_regressing", vmin=10.0))


@pytest.mark.parametrize("form", ["full", "tilt"])
@pytest.mark.parametrize("preset", [name for name in VALUE_PRESETS if name != "reppo"])
def test_values_begin_near_the_middle(preset: str, form: Any) -> None:
    head = build(ValueConfig(kind=VALUE_PRESETS[preset].kind, preset=preset, form=form))
    support = head.kind.support
    assert support is not None
    values = head.values(torch.randn(64, 16))
    share = (support.to_grid(values) - support.vmin) / (support.vmax - support.vmin)
    assert (share - 0.5).abs().mean() < 0.03
    assert (share - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("form", ["full", "tilt"])
@pytest.mark.parametrize("kind", ["hl_gauss", "two_hot", "c51", "mse", "mse_softmax"])
def test_weights_are_fixed_by_the_generator(kind: Any, form: Any) -> None:
    config = ValueConfig(kind=kind, form=form, preset="stop_regressing")
    first, again, other = (build(config, seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    restored = build(config, 9)
    restored.load_state_dict(first)
    x = torch.randn(3, 16)
    assert torch.equal(restored.values(x), build(config, 4).values(x))


def test_initial_loss_is_that_of_a_uniform_distribution() -> None:
    head = build(ValueConfig(preset="stop_regressing"))
    result = head.loss(torch.randn(64, 16), torch.arange(64), torch.zeros(64, dtype=torch.int64), torch.zeros(64))
    assert result.loss.mean().item() == pytest.approx(math.log(51), rel=0.02)


def test_bad_arguments_are_named() -> None:
    scorer = LinearScorer(16, 5, torch.Generator())
    with pytest.raises(ValueError, match=r"scorer is a LinearScorer and value.form 'full'"):
        build(ValueConfig(preset="catgpt"), scorer=scorer)
    assert build(ValueConfig(preset="catgpt", form="tilt"), scorer=scorer).form.scorer is scorer
    with pytest.raises(ValueError, match="features is 0"):
        build_head(ValueConfig(kind="mse"), 0, 5, generator=torch.Generator())
