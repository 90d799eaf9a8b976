"""The learner's switches for speed: what they change of the numbers, and what they do not."""

from __future__ import annotations

import pytest
import torch

from isogon import load_config
from isogon.learners.encodings.spec import ArraySpec, EnvironmentSpec
from isogon.system.builder import build_learner
from isogon.system.config.files import ConfigError

SPEC = EnvironmentSpec("atari pong", {"observation": ArraySpec((84, 84), "uint8")}, 6, history=4)


def updated(*switches: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of three updates, and the weights after them."""
    learner = build_learner(load_config("atari", ["network.hidden=32", *switches]), SPEC)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(3):
        frames = torch.randint(256, (2, 8, 4, 84, 84), dtype=torch.uint8, generator=generator)
        batch = {
            "observation_tm1": {"observation": frames[0]},
            "action_tm1": torch.arange(8) % 6,
            "reward_t": torch.linspace(-1, 1, 8),
            "discount_t": torch.full((8,), 0.99),
            "observation_t": {"observation": frames[1]},
        }
        losses.append(learner.update(batch, 0.5).loss)
    return losses, {name: part for name, (part, _) in learner.shared().items()}


def test_channels_last_changes_no_number_but_its_last_digits() -> None:
    losses, weights = updated()
    other_losses, other = updated("learner.channels_last=true")
    assert other["torso.convolutions.0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert losses == pytest.approx(other_losses, rel=1e-5)
    for name, part in weights.items():
        torch.testing.assert_close(part, other[name], rtol=1e-3, atol=2e-4)


def test_bf16_multiplies_in_bf16_and_keeps_weights_in_fp32() -> None:
    losses, _ = updated()
    other_losses, other = updated("learner.precision=bf16")
    assert {part.dtype for part in other.values()} == {torch.float32}
    assert losses != other_losses
    assert losses == pytest.approx(other_losses, rel=1e-2)


def test_bf16_is_refused_where_a_network_has_no_use_for_it() -> None:
    with pytest.raises(ConfigError, match=r"learner\.precision is bf16, and network\.kind letter_"):
        load_config("wordle", ["learner.precision=bf16"])
