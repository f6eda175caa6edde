"""A small synthetic model as stored in a directory, for tests that read one."""

import dataclasses

import numpy as np

from ids_spark.dataset.features import RELEASE_39
from ids_spark.features.moments import Moments
from ids_spark.features.preprocess import Recipe, fit
from ids_spark.models import novelty
from ids_spark.models.artifact import ModelCard
from ids_spark.models.threshold import validation_scores_of
from ids_spark.train.checkpoint import TrainingState

DROPPED = RELEASE_39.features.index("IAT")
MOMENTS = [Moments(9, 0.5 * i, 0.0 if i == DROPPED else 9.0 + i, -1.0, 40.0) for i in range(39)]
PREPROCESSOR = fit(
    Recipe("paper", RELEASE_39, "none", 1e-8, "synthetic"), MOMENTS, np.linspace(-1, 40, 39 * 5).reshape(5, 39)
)
WITH_DERIVED = fit(
    dataclasses.replace(PREPROCESSOR.recipe, ratios=("Header_Length / AVG",)),
    [*MOMENTS, Moments(9, 0.5, 9.0, -1.0, 40.0)],
    np.linspace(-1, 40, 40 * 5).reshape(5, 40),
)
DERIVED = ("Rate", "Header_Length", "Header_Length / AVG")
"""Features of a model that reads `AVG` only in a derived feature."""
WEIGHTS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(3, np.float32), np.array(7, np.int64)]
WEIGHTS += [
    np.full(1, i, np.float32) for i in range(12)
]  # more than ten, so that the order of unpadded numbers as text is wrong
SCORES = np.linspace(-9.0, 9.0, 50)
VALIDATION_SCORES = validation_scores_of(
    SCORES,
    np.where(SCORES < 3, 0, 4).astype(np.int32),
    np.full(50, 4, np.int32),
    np.array([30, 0, 0, 0, 20, 0]),
    np.array([0.5, -0.5]),
)
_BENIGN = np.random.default_rng(3).normal(size=(200, 2)).astype(np.float32)
_FITTED = novelty.fit(_BENIGN[:150])
assert _FITTED is not None
NOVELTY = _FITTED.calibrated(_FITTED.distances(_BENIGN[150:]), np.arange(50) > 3)
CARD = ModelCard(
    name="dnn-6-paper",
    version="20240501T000000Z-ab",
    architecture="dnn",
    variant="",
    hyperparameters={"dense": [64, 32], "dropout": 0.3},
    classes=6,
    feature_set="paper",
    recipe="paper",
    features=("Rate", "Header_Length"),
    data_origin="synthetic",
    classes_absent_in_train=("Recon",),
    training={"history": [{"loss": 0.5}], "seconds": 1.5},
)


def training_state() -> TrainingState:
    """Return the state of a training run of such a model."""
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3) + i for i in range(12)]
    history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    return TrainingState(arrays, [np.array(7, np.int64), *arrays[:3]], arrays[::-1], 0.25, 2, history, 3.5)
