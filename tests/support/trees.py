"""A tiny model of boosted trees, trained in a moment, and its blend with a network."""

import dataclasses
import functools

import numpy as np
import xgboost

from ids_spark.config.boost import BoostConfig
from ids_spark.config.train import ModelConfig
from ids_spark.models.artifact import ModelCard, model_name
from tests.support.models import CARD

BOOSTING = BoostConfig(rounds=4, max_depth=3, max_bin=16)


def trees_card(card: ModelCard = CARD, boosting: BoostConfig = BOOSTING) -> ModelCard:
    """Return the card of trees with the classes and features of another model."""
    return dataclasses.replace(
        card,
        name=model_name("xgboost", card.classes, card.feature_set),
        architecture="xgboost",
        hyperparameters=boosting.model_dump(mode="json"),
    )


def blend_card(card: ModelCard, share: float = 0.25) -> ModelCard:
    """Return the card of a blend of a network, whose card is given, with trees."""
    return dataclasses.replace(
        card,
        name=model_name("blend", card.classes, card.feature_set),
        architecture="blend",
        hyperparameters={
            "share": share,
            "network": card.architecture,
            "network_hyperparameters": ModelConfig.model_validate(card.hyperparameters).model_dump(mode="json"),
            "boosting": BOOSTING.model_dump(mode="json"),
        },
    )


@functools.cache
def trained(n_features: int, outputs: int, binary: bool = False, rounds: int = 4) -> xgboost.Booster:
    """Return trees that learned classes of which each depends on two of the first three features."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(400, n_features)).astype(np.float32)
    scores = rows[:, :1] * np.linspace(-2, 2, outputs) + rows[:, 1:2] * np.cos(np.arange(outputs))
    labels = (scores + 0.2 * rng.normal(size=scores.shape)).argmax(axis=1)
    labels[:outputs] = np.arange(outputs)
    objective = {"objective": "binary:logistic"} if binary else {"objective": "multi:softprob", "num_class": outputs}
    return xgboost.train(
        objective | {"max_depth": 3, "max_bin": 16, "nthread": 1, "seed": 1}, xgboost.DMatrix(rows, labels), rounds
    )


def booster_of(card: ModelCard, binary: bool = False) -> bytes:
    """Return tiny trees that fit a card, as XGBoost writes them."""
    outputs = card.classes - len(card.classes_absent_in_train)
    return bytes(trained(len(card.features), outputs, binary).save_raw("json"))
