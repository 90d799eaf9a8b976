"""Atari scores beside those of a random player and of a human tester."""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from ...learners.settings import Settings
from . import atari_reference


@dataclass(frozen=True)
class ReferenceScores:
    """Mean returns of a game, unclipped.

    Attributes:
        random: of a player that draws its actions uniformly.
        human: of a human tester.
    """

    random: float
    human: float


def game_played(environment: Settings) -> str | None:
    """The Atari game of an environment's config; None where it is none."""
    settings = environment.model_dump(include={"kind", "game"})
    return settings["game"] if settings.get("kind") == "atari" else None


@cache
def reference_scores() -> dict[str, ReferenceScores]:
    """The reference by game, in ALE's names such as ``ms_pacman``; 57 of ALE's games have one."""
    with (files(atari_reference) / "scores.csv").open(encoding="utf-8") as file:
        return {row["game"]: ReferenceScores(float(row["random"]), float(row["human"])) for row in csv.DictReader(file)}


def human_normalised(game: str, returns: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """``(return - random) / (human - random)``, of any shape: 0 plays as a random player does, 1 as a human tester.

    (Mnih et al. 2015, "Human-level control through deep reinforcement learning", extended data table 2.)

    Raises:
        ValueError: the game has no reference.
    """
    if game not in reference_scores():
        near = difflib.get_close_matches(game, reference_scores(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"there are no reference scores of the game {game!r}: {hint}{len(reference_scores())} games have some, "
            "and returns of others are compared as they are"
        )
    reference = reference_scores()[game]
    return (np.asarray(returns, np.float64) - reference.random) / (reference.human - reference.random)
