"""Which network stands before the value head."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from ..plugins import PluginConfig
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


class PictureNetworkConfig(Settings):
    """Reads pictures."""

    kind: str
    hidden: int = Field(512, ge=1, description="units of the ReLU layer behind the convolutions")
    grey_levels: ClassVar[bool] = True
    """Whether a picture's numbers are levels from 0 to 255, rather than 0 and 1."""


class NatureConfig(PictureNetworkConfig):
    """The network of DQN (Mnih et al. 2015): three convolutions."""

    kind: Literal["nature"] = "nature"


class ImpalaConfig(PictureNetworkConfig):
    """The residual network of IMPALA (Espeholt et al. 2018): six blocks of two convolutions."""

    kind: Literal["impala"] = "impala"
    hidden: int = Field(256, ge=1, description="units of the ReLU layer behind the convolutions")
    width: int = Field(1, ge=1, description="times 16, 32 and 32 channels")


class MinAtarNetworkConfig(PictureNetworkConfig):
    """The network of MinAtar (Young and Tian 2019): one convolution over a board of zeros and ones."""

    kind: Literal["minatar"] = "minatar"
    hidden: int = Field(128, ge=1, description="units of the ReLU layer behind the convolution")
    filters: int = Field(16, ge=1, description="channels of the convolution")
    grey_levels: ClassVar[bool] = False


class CustomNetworkConfig(PluginConfig):
    """A network of one's own: an nn.Module, constructed with (spec, **kwargs), with an attribute ``features``."""

    kind: Literal["custom"] = "custom"


NetworkConfig: TypeAlias = Annotated[
    MLPConfig
    | NatureConfig
    | ImpalaConfig
    | MinAtarNetworkConfig
    | LetterTiedConfig
    | LetterBeliefConfig
    | LetterUntiedConfig
    | CustomNetworkConfig,
    Field(discriminator="kind"),
]
