"""Settings of `jobs/train.py`: models, their hyperparameters and their training."""

import re
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, field_validator, model_validator

from ids_spark.config.score import Count, Section

ModelName = Literal["dnn", "gru_dnn", "lstm"]
Classes = Literal[2, 6, 19]
FeatureSetName = Literal["paper", "operational"]
_LIKE_A_KEY: Final = (
    r"[\r\n]|-----|^[0-9a-fA-F]{64}$|^[A-Za-z0-9+/]{43}=$|^[A-Za-z0-9+/]{64}$|^env:(?![A-Za-z_][A-Za-z0-9_]*$)"
)


class ModelConfig(Section):
    """Hyperparameters of one model; `models/architectures.py` builds the layers. Defaults are those of the study.

    Attributes:
        bins: Bins of the piecewise linear encoding of each feature, an input beside its scaled value; 0: no encoding.
        embedding: Units of a dense layer for the bins of each feature; 0: no embedding. Needs `bins`.
        ensemble_size: Members of a BatchEnsemble with shared kernels and averaged probabilities; `dnn` only.
        units: Units of the recurrent layer; no effect on `dnn`.
        dense: Units of each hidden dense layer.
        dropout: Dropout rate after every dense layer of `dnn`, or after the recurrent layer.
        dense_dropout: Dropout rate after the dense layers that follow a recurrent layer.
    """

    bins: Annotated[int, Field(ge=0, le=128)] = 0
    embedding: Annotated[int, Field(ge=0, le=64)] = 0
    ensemble_size: Annotated[int, Field(ge=1, le=64)] = 1
    units: Count = 64
    dense: tuple[Count, ...] = (64, 32)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    dense_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _depends_on_other_settings(self) -> "ModelConfig":
        if self.ensemble_size > 1 and not self.dense:
            raise ValueError(
                f"ensemble_size is {self.ensemble_size}, but dense is empty; an ensemble needs a hidden layer"
            )
        if self.embedding and not self.bins:
            raise ValueError(f"embedding is {self.embedding}, but bins is 0; an embedding needs bins")
        return self


class TrainConfig(Section):
    """`jobs/train.py`: each of `models` for each number of classes in `classes` and each of `feature_sets`.

    Attributes:
        models: Architectures to train.
        classes: Numbers of classes to train each of them for.
        feature_sets: `paper`: every kept feature; `operational`: without features that identify the lab's captures.
        variant: Suffix of the models' names, to distinguish models of one architecture with different settings.
        ranks: Horovod workers; each is a Spark task, so at most the cores of the cluster. `auto` (or 0): for each
            architecture the number that a cost model expects to be fastest, from batch size, multiplications of the
            network, task slots and row groups. The audit states it; it never depends on measured times.
        epochs: Maximum epochs of a training run.
        batch_size: Global batch size: rows of one step, over all ranks. A multiple of `ranks`.
        learning_rate: Of Adam, for a global batch of `reference_batch` rows, or of `batch_size` if that is not set.
        reference_batch: If set, the learning rate scales with the batch: learning_rate · batch_size / reference_batch
            (Goyal et al. 2017, arXiv:1706.02677).
        warmup_epochs: Epochs over which the learning rate rises linearly from 0 (ibid.).
        schedule: Learning rate after warm-up: `constant`, or `cosine` decay to 0 at the last epoch.
        label_smoothing: Share of each label that is distributed over all classes.
        local_weight: Mean weight of a row of the site's own nights in the loss, where one of the data set has weight 1;
            rows of a device with n rows weigh n ** -1/2 of one that is alone. Default: so that all of them together
            weigh a tenth of all rows of the data set, but at most 10.
        monitor: Keep the weights of the epoch with the best validation `loss` or `accuracy`, with early stopping; or
            those of the `last` epoch, without early stopping, for a learning rate that decays to 0 and few
            validation rows.
        patience: Epochs without improvement before training stops.
        min_delta: Smallest change that counts as an improvement; no effect with `last`.
        cache_memory_mb: Memory (MB) a worker may use to cache its shard; a larger shard is read anew in each epoch.
        steps_per_execution: Training steps in one call of the compiled loop; at most the steps of an epoch.
        xla: Compile each step with XLA; compilation takes some seconds.
        loss: Cross-entropy of one-hot labels (as in the study) or of integer labels; both give the same value.
        start_timeout: Seconds until all ranks must have started.
        all_reduce: Library that ranks exchange gradients with. `xgboost`: XGBoost's collective, on tasks of a barrier
            stage, without Horovod; the proof that there is a way out of Horovod, not yet measured on clusters.
        open_network: Allow more than one rank with `all_reduce=xgboost`, which neither authenticates nor encrypts its
            connections and accepts them on every interface: use a network that only machines of the cluster can reach.
        resume: Continue an interrupted run with the same settings after its last complete epoch.
        tensorboard: Write an event for each epoch to `tensorboard/<model>/<version>` in the lake.
        sign_key: Signs models and aliases in `train`, `adapt` and `promote`: file of an Ed25519 private key (PEM, or 64
            hexadecimal digits), readable by its owner only, or `env:NAME`, an environment variable with one.
    """

    models: Annotated[tuple[ModelName, ...], Field(min_length=1)] = ("dnn", "gru_dnn")
    classes: Annotated[tuple[Classes, ...], Field(min_length=1)] = (2, 6, 19)
    feature_sets: Annotated[tuple[FeatureSetName, ...], Field(min_length=1)] = ("paper",)
    variant: Annotated[str, Field(pattern=r"^[a-z0-9_]*$")] = ""
    ranks: Annotated[int, Field(ge=0)] = 2
    epochs: Count = 50
    batch_size: Count = 64
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    reference_batch: Count | None = None
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    local_weight: Annotated[float, Field(gt=0, le=1_000)] | None = None
    monitor: Literal["loss", "accuracy", "last"] = "loss"
    patience: Count = 5
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    cache_memory_mb: Annotated[int, Field(ge=0)] = 1_000
    steps_per_execution: Count = 32
    xla: bool = False
    loss: Literal["one_hot", "sparse"] = "sparse"
    start_timeout: Count = 120
    all_reduce: Literal["horovod", "xgboost"] = "horovod"
    open_network: bool = False
    resume: bool = False
    tensorboard: bool = False
    sign_key: str | None = None
    dnn: ModelConfig = ModelConfig()
    gru_dnn: ModelConfig = ModelConfig()
    lstm: ModelConfig = ModelConfig()

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up."""
        return self.learning_rate * self.batch_size / (self.reference_batch or self.batch_size)

    @field_validator("models", "classes", "feature_sets")
    @classmethod
    def _listed_once(cls, listed: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if len(set(listed)) < len(listed):
            raise ValueError(f"found {', '.join(map(str, listed))}; expected each once")
        return listed

    @field_validator("ranks", mode="before")
    @classmethod
    def _auto_is_zero(cls, value: object) -> object:
        return 0 if value == "auto" else value

    @field_validator("sign_key", mode="before")
    @classmethod
    def _names_a_key(cls, value: object) -> object:
        """Refuse a key in place of its name, without showing it: the configuration is in logs and in the audit."""
        if value is None or (isinstance(value, str) and value and not re.search(_LIKE_A_KEY, value)):
            return value
        raise ValueError("found something else, perhaps the key itself; expected the path of a file, or env:NAME")

    @model_validator(mode="after")
    def _ensembles_are_dense(self) -> "TrainConfig":
        for name in get_args(ModelName):
            if name != "dnn" and getattr(self, name).ensemble_size > 1:
                raise ValueError(
                    f"{name}.ensemble_size is {getattr(self, name).ensemble_size}; only dnn may be an ensemble"
                )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrainConfig":
        if self.ranks and self.batch_size % self.ranks:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of ranks {self.ranks}")
        return self
