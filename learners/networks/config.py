"""Which network stands before the value head."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ..settings import Settings


class MLPConfig(Settings):
    """A multi-layer perceptron over the flattened observation."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (128, 128), min_length=1, description="units of each ReLU layer"
    )


class WordNetworkConfig(Settings):
    """Reads Wordle boards and scores words."""

    hidden: int = Field(256, ge=1, description="units of each of the two board layers")
    channels: int = Field(8, ge=1, description="scores a letter gets at each position")


class LetterTiedConfig(WordNetworkConfig):
    """Wordle: words are scored by their letters, with weights shared by all letters: unseen words have values too."""

    kind: Literal["letter_tied"] = "letter_tied"
    dense_channels: int = Field(2, ge=0, description="channels to which untied letter weights are added")


class LetterBeliefConfig(WordNetworkConfig):
    """Wordle: as letter_tied, by a player that also weighs which words of the list each board leaves likely."""

    kind: Literal["letter_belief"] = "letter_belief"
    dense_channels: int = Field(2, ge=0, description="channels to which untied letter weights are added")


class LetterUntiedConfig(WordNetworkConfig):
    """Wordle: as letter_tied, but each letter, position and count has weights of its own: for comparisons."""

    kind: Literal["letter_untied"] = "letter_untied"


NetworkConfig: TypeAlias = Annotated[
    MLPConfig | LetterTiedConfig | LetterBeliefConfig | LetterUntiedConfig, Field(discriminator="kind")
]
