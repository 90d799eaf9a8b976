from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from isogon.actors.environments.cartpole_dynamics import CARTPOLE_ID
from isogon.actors.environments.gymnasium_vector import GymnasiumEnvironment, gymnasium_episode_steps
from isogon.learners.randomness import stream


def falls(env_id: str, kwargs: Mapping[str, Any] | None = None) -> np.ndarray:
    """Observations ``[T, N, 4]`` of four poles from one seed, always pushed to the right."""
    environment = GymnasiumEnvironment(env_id, kwargs or {}, 4)
    environment.reset(stream(0, "poles"))
    seen = [environment.step(np.ones(4, np.int64)).observation["observation"] for _ in range(8)]
    environment.close()
    return np.stack(seen)


def test_its_defaults_are_cartpoles() -> None:
    np.testing.assert_array_equal(falls(CARTPOLE_ID), falls("CartPole-v1"))
    assert gymnasium_episode_steps(CARTPOLE_ID, {}, None) == 500


@pytest.mark.parametrize(
    "physics", [{"length": 1.0}, {"masspole": 0.5}, {"masscart": 2.0}, {"gravity": 20.0}, {"force_mag": 5.0}]
)
def test_other_physics_move_otherwise(physics: dict[str, float]) -> None:
    assert np.abs(falls(CARTPOLE_ID) - falls(CARTPOLE_ID, physics))[-1].max() > 0.01


def test_one_step_is_the_equations_of_motion() -> None:
    """Florian 2007, "Correct equations for the dynamics of the cart-pole system", eqs. 23 and 24 without friction."""
    length, pole, cart, gravity, force = 1.3, 0.4, 1.7, 5.0, 7.0
    environment = GymnasiumEnvironment(
        CARTPOLE_ID,
        {"length": length, "masspole": pole, "masscart": cart, "gravity": gravity, "force_mag": force},
        4,
    )
    x = environment.reset(stream(0, "poles"))["observation"].astype(np.float64)
    after = environment.step(np.ones(4, np.int64)).observation["observation"]
    speed, angle, turn = x[:, 1], x[:, 2], x[:, 3]
    sine, cosine, mass = np.sin(angle), np.cos(angle), cart + pole
    push = (-force - pole * length * turn**2 * sine) / mass
    turning = (gravity * sine + cosine * push) / (length * (4 / 3 - pole * cosine**2 / mass))
    moving = (force + pole * length * (turn**2 * sine - turning * cosine)) / mass
    expected = np.stack([x[:, 0] + 0.02 * speed, speed + 0.02 * moving, angle + 0.02 * turn, turn + 0.02 * turning], 1)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("physics", "message"), [({"length": 0.0}, "length is 0.0"), ({"weight": 1.0}, "weight")])
def test_impossible_physics_are_refused(physics: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GymnasiumEnvironment(CARTPOLE_ID, physics, 1)
