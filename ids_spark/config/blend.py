"""Settings of blends of a network and boosted trees."""

from typing import Annotated

from pydantic import Field

from ids_spark.config.boost import BoostConfig
from ids_spark.config.score import Section
from ids_spark.config.train import ModelConfig, ModelName

BlendShare = Annotated[float, Field(gt=0, lt=1)]


class BlendParts(Section):
    """Hyperparameters of a stored blend: its probability is share · network + (1 - share) · trees.

    Attributes:
        share: Of the network.
        network: Its architecture.
        network_hyperparameters: Of the network.
        boosting: Of the trees.
    """

    share: BlendShare
    network: ModelName
    network_hyperparameters: ModelConfig
    boosting: BoostConfig
