"""Settings of `jobs/train.py`: models, their hyper-parameters, and how they are trained."""

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ids_spark.config.score import Count, Section

ModelName = Literal["dnn", "gru_dnn", "lstm"]
Classes = Literal[2, 6, 19]
FeatureSetName = Literal["paper", "operational"]


class ModelConfig(Section):
    """Hyper-parameters of one model; `models` says which layers they make. Defaults are the study's, where it has any.

    Attributes:
        bins: Piecewise linear bins of each feature, given to the network beside its scaled value; 0 for none.
        embedding: Units of a dense layer that each feature has for its own bins; 0 for none.
        ensemble_size: Networks in one, which share their kernels and vote; `dnn` only.
        units: Of the recurrent layer; no effect on `dnn`.
        dense: Units of each hidden dense layer.
        dropout: Share of units left out in training: after every dense layer of `dnn`, after the recurrent layer.
        dense_dropout: The same after the dense layers behind a recurrent layer.
    """

    bins: Annotated[int, Field(ge=0, le=128)] = 0
    embedding: Annotated[int, Field(ge=0, le=64)] = 0
    ensemble_size: Annotated[int, Field(ge=1, le=64)] = 1
    units: Count = 64
    dense: tuple[Count, ...] = (64, 32)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    dense_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _has_what_it_builds_on(self) -> "ModelConfig":
        if self.ensemble_size > 1 and not self.dense:
            raise ValueError(
                f"ensemble_size is {self.ensemble_size}, but dense is empty; an ensemble needs a hidden layer"
            )
        if self.embedding and not self.bins:
            raise ValueError(f"embedding is {self.embedding}, but bins is 0; an embedding needs bins")
        return self


class TrainConfig(Section):
    """`jobs/train.py`: every model in `models` at every level in `classes` for every feature_set in `feature_sets`.

    Attributes:
        feature_sets: `paper` sees every kept feature, `operational` leaves out what names the lab.
        variant: Goes into the models' names, so that one architecture trained in two ways gives two models.
        batch_size: Global batch: rows of one step over all ranks together.
        learning_rate: Adam's, for the global batch of `reference_batch` rows, or of `batch_size` where that is not set.
        reference_batch: Where set, the learning rate grows with the batch: learning_rate · batch_size / reference_batch
            (Goyal et al. 2017, arXiv:1706.02677).
        warmup_epochs: Epochs over which the learning rate rises from 0 (ibid.).
        schedule: After that: `constant`, or `cosine` down to 0 at the last epoch.
        label_smoothing: Share of each label that is spread over all classes.
        monitor: Which epoch's weights are kept, and when training stops: best `loss` or `accuracy` of validation; or
            the `last`, as suits a learning rate that ends at 0 and few validation rows.
        patience: Epochs without a better one before training stops.
        min_delta: How much better counts.
        cache_memory_mb: In which each rank may keep its rows. Where they do not fit, it reads them anew at every epoch.
        steps_per_execution: Steps that Keras runs between two looks at the host; at most the steps of an epoch.
        xla: Compile each step with XLA: some seconds at the start, more rows/s after.
        loss: Cross-entropy of one-hot labels (as the study) or of integer ids; the same value.
        start_timeout: Seconds that the ranks may take to start.
        resume: Go on after the last epoch of an interrupted run with the same settings.
        tensorboard: Write `tensorboard/<model>/<version>` in the lake, an event an epoch.
    """

    models: Annotated[tuple[ModelName, ...], Field(min_length=1)] = ("dnn", "gru_dnn")
    classes: Annotated[tuple[Classes, ...], Field(min_length=1)] = (2, 6, 19)
    feature_sets: Annotated[tuple[FeatureSetName, ...], Field(min_length=1)] = ("paper",)
    variant: Annotated[str, Field(pattern=r"^[a-z0-9_]*$")] = ""
    ranks: Count = 2
    epochs: Count = 50
    batch_size: Count = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    reference_batch: Count | None = None
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    monitor: Literal["loss", "accuracy", "last"] = "loss"
    patience: Count = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    cache_memory_mb: Annotated[int, Field(ge=0)] = 1_000
    steps_per_execution: Count = 32
    xla: bool = False
    loss: Literal["one_hot", "sparse"] = "sparse"
    start_timeout: Count = 120
    resume: bool = False
    tensorboard: bool = False
    dnn: ModelConfig = ModelConfig()
    gru_dnn: ModelConfig = ModelConfig()
    lstm: ModelConfig = ModelConfig()

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up."""
        return self.learning_rate * self.batch_size / (self.reference_batch or self.batch_size)

    def products(self, architecture: str, n_features: int, n_classes: int) -> int:
        """Return about how many numbers the layers of a model multiply for one row, forward."""
        hyperparameters: ModelConfig = getattr(self, architecture)
        inputs = n_features * (1 + (hyperparameters.embedding or hyperparameters.bins))
        encoding = n_features * hyperparameters.bins * hyperparameters.embedding
        recurrent = 0
        if architecture != "dnn":
            recurrent, inputs = inputs * 3 * hyperparameters.units, hyperparameters.units
        dense = sum(a * b for a, b in itertools.pairwise((inputs, *hyperparameters.dense, n_classes)))
        return encoding + recurrent + hyperparameters.ensemble_size * dense

    @model_validator(mode="after")
    def _ensembles_are_dense(self) -> "TrainConfig":
        for name in ("gru_dnn", "lstm"):
            if getattr(self, name).ensemble_size > 1:
                raise ValueError(
                    f"{name}.ensemble_size is {getattr(self, name).ensemble_size}; only dnn may be an ensemble"
                )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrainConfig":
        if self.batch_size % self.ranks:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of ranks {self.ranks}")
        return self
