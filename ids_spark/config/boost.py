"""Settings of boosted trees."""

from typing import Annotated, Final

from pydantic import Field

from ids_spark.config.score import Count, Section

MOST_DEPTH: Final = 16
"""Of a tree: deeper ones hold most of the train rows, and stored files are checked against it."""


class BoostConfig(Section):
    """Hyperparameters of boosted trees (XGBoost, `tree_method=hist`).

    Attributes:
        rounds: Boosting rounds; each adds a tree for each class.
        learning_rate: Factor of each tree.
        max_depth: Maximum depth of a tree.
        min_child_weight: Smallest sum of second derivatives of the loss on each side of a split.
        subsample: Share of the rows of each round.
        colsample_bytree: Share of the features of each tree.
        max_bin: Maximum number of quantile bins of a feature.
        reg_lambda: L2 penalty of the values of leaves.
    """

    rounds: Annotated[int, Field(ge=1, le=10_000)] = 120
    learning_rate: Annotated[float, Field(ge=1e-6, le=1)] = 0.1
    max_depth: Annotated[int, Field(ge=1, le=MOST_DEPTH)] = 6
    min_child_weight: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    subsample: Annotated[float, Field(ge=1e-6, le=1)] = 0.8
    colsample_bytree: Annotated[float, Field(ge=1e-6, le=1)] = 0.6
    max_bin: Annotated[int, Field(ge=2, le=65_536)] = 256
    reg_lambda: Annotated[float, Field(ge=0, le=1e9)] = 1.0


class BoostJobConfig(BoostConfig):
    """`jobs/boost.py`: boosted trees of XGBoost, for `train.classes`, `train.feature_sets` and `train.variant`.

    Attributes:
        rounds: Boosting rounds; each adds a tree for each class.
        learning_rate: Factor of each tree.
        max_depth: Maximum depth of a tree.
        min_child_weight: Smallest sum of second derivatives of the loss on each side of a split.
        subsample: Share of the rows of each round.
        colsample_bytree: Share of the features of each tree.
        max_bin: Maximum number of quantile bins of a feature.
        reg_lambda: L2 penalty of the values of leaves.
        workers: Spark tasks that train one model together; each has the threads of `spark.task.cpus`, in local mode all
            slots. The trees depend on it.
        open_network: Allow more than one worker. XGBoost neither authenticates nor encrypts their connections, and they
            accept them on every interface: use a network that only machines of the cluster can reach.
    """

    workers: Count = 1
    open_network: bool = False

    @property
    def hyperparameters(self) -> BoostConfig:
        """What determines the trees, and is stored with them."""
        return BoostConfig.model_validate({name: getattr(self, name) for name in BoostConfig.model_fields})
