"""CartPole with dynamics of one's own, for Gymnasium: ``isogon/CartPole-v1``."""

from __future__ import annotations

import math

import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

CARTPOLE_ID = "isogon/CartPole-v1"


class CartPoleDynamics(CartPoleEnv):
    """Gymnasium's CartPole (Barto, Sutton & Anderson 1983) with the physics given; the defaults are CartPole-v1's.

    Args:
        length: half of the pole's length, in metres.
        masspole: in kilograms.
        masscart: in kilograms.
        gravity: in metres per second squared.
        force_mag: the push to either side, in newtons.

    Raises:
        ValueError: one of them is not above 0 and finite.
    """

    def __init__(
        self,
        *,
        length: float = 0.5,
        masspole: float = 0.1,
        masscart: float = 1.0,
        gravity: float = 9.8,
        force_mag: float = 10.0,
        render_mode: str | None = None,
    ) -> None:
        physics = {
            "length": length,
            "masspole": masspole,
            "masscart": masscart,
            "gravity": gravity,
            "force_mag": force_mag,
        }
        for name, value in physics.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}: it must be a number above 0")
        super().__init__(render_mode=render_mode)
        self.length = length
        self.masspole = masspole
        self.masscart = masscart
        self.gravity = gravity
        self.force_mag = force_mag
        self.total_mass = masspole + masscart
        self.polemass_length = masspole * length


gymnasium.register(
    CARTPOLE_ID, entry_point=f"{__name__}:CartPoleDynamics", max_episode_steps=500, reward_threshold=475.0
)
