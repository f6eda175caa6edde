"""Settings of blends of a network and boosted trees."""

from typing import Annotated, Literal

from pydantic import Field

from ids_spark.config.boost import BoostConfig
from ids_spark.config.score import PathPart, Section
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


class BlendConfig(Section):
    """`jobs/blend.py`: a network and boosted trees, for `train.classes`, `train.feature_sets` and `train.variant`.

    Attributes:
        network: Title of the network: its architecture, with its variant if it has one, such as `dnn-best`.
        network_version: Its version; `latest`: the newest.
        trees: Title of the boosted trees.
        trees_version: Their version; `latest`: the newest.
        share: Of the network in the probabilities; `validation`: that of 0.1, 0.2, … 0.9 with the lowest cross-entropy
            of the validation rows.
    """

    network: PathPart = "dnn"
    network_version: PathPart = "latest"
    trees: PathPart = "xgboost"
    trees_version: PathPart = "latest"
    share: BlendShare | Literal["validation"] = 0.5
