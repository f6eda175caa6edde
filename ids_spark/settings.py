"""Every setting of every job: names, types, defaults, and what they mean. `config` reads and checks them."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ids_spark.replica_night_settings import ReplicaNightConfig
from ids_spark.score_settings import AlertsConfig, Count, PromoteConfig, PurgeConfig, ScoreConfig, Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ModelName = Literal["dnn", "gru_dnn", "lstm"]
Classes = Literal[2, 6, 19]
_SUBSET = r"^(sqrt|onethird|log2|all|0\.\d+|[1-9]\d*)$"
ProfileName = Literal["paper", "operational"]


class ReplicaConfig(Section):
    """`jobs/replica.py`: synthetic flows in the shape of CICIoMT2024.

    Attributes:
        target: Folder to write; must not exist or be an earlier replica.
        scale: Rows relative to the data set; 1 gives 7,160,831 train and 1,614,182 test rows.
        min_rows_per_file: Small classes keep at least so many rows at small scales.
        feature_schema: Which release to imitate.
        format: File format of the tree.
        capture_day_iat: Whether `IAT` of the first release names the capture's day, as it does in the data set.
    """

    target: str = "replica"
    scale: Annotated[float, Field(gt=0, le=10)] = 0.002
    min_rows_per_file: Count = 40
    feature_schema: Literal["original45", "release39"] = "original45"
    format: Literal["parquet", "csv"] = "parquet"
    capture_day_iat: bool = True


class IngestConfig(Section):
    """`jobs/ingest.py`.

    Attributes:
        source: Folder of the official layout, or one table with a `label` column; CSV or parquet.
        max_rejected_share: The job fails when a larger share of rows is quarantined.
        rows_per_file: Rows of a file of `flows/`; what a task holds in memory.
    """

    source: str | None = None
    max_rejected_share: Share = 0.05
    rows_per_file: Count = 500_000


class FeaturesConfig(Section):
    """`jobs/features.py`.

    Attributes:
        recipe: Name of the fitted preprocessor and its table.
        transform: Before standardisation: `none`, or `signed_log` for heavy tails: sign(x) · log(1 + 1000 |x|).
        min_std: A feature is dropped when its population standard deviation over train is at most this.
        sample_rows: About so many train rows give the quantiles of each feature.
        validation_share: Share of the train rows held out by row hash.
        files: Least number of files, and so of row groups, of each split; at least the number of ranks.
        rows_per_row_group: Rows that a training rank reads at once.
    """

    recipe: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "paper"
    transform: Literal["none", "signed_log"] = "none"
    min_std: Annotated[float, Field(ge=0)] = 1e-8
    sample_rows: Count = 100_000
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    files: Count = 8
    rows_per_row_group: Count = 50_000


class ModelConfig(Section):
    """Hyper-parameters of one model; `models` says which layers they make. Defaults are the study's, where it has any.

    Attributes:
        bins: Piecewise linear bins of each feature, given to the network beside its scaled value; 0 for none.
        embedding: Units of a dense layer that each feature has for its own bins; 0 for none.
        members: Networks in one, which share their kernels and vote; `dnn` only.
        units: Of the recurrent layer; no effect on `dnn`.
        dense: Units of each hidden dense layer.
        dropout: Share of units left out in training: after every dense layer of `dnn`, after the recurrent layer.
        dense_dropout: The same after the dense layers behind a recurrent layer.
    """

    bins: Annotated[int, Field(ge=0, le=128)] = 0
    embedding: Annotated[int, Field(ge=0, le=64)] = 0
    members: Annotated[int, Field(ge=1, le=64)] = 1
    units: Count = 64
    dense: tuple[Count, ...] = (64, 32)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    dense_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _has_what_it_builds_on(self) -> "ModelConfig":
        if self.members > 1 and not self.dense:
            raise ValueError(f"members is {self.members}, but dense is empty; members need a hidden layer")
        if self.embedding and not self.bins:
            raise ValueError(f"embedding is {self.embedding}, but bins is 0; an embedding needs bins")
        return self


class TrainConfig(Section):
    """`jobs/train.py`: every model in `models` at every level in `classes` for every profile in `profiles`.

    Attributes:
        profiles: `paper` sees every kept feature, `operational` leaves out what names the lab.
        variant: Goes into the models' names, so that one architecture trained in two ways gives two models.
        batch_size: Global batch: rows of one step over all ranks together.
        learning_rate: Adam's, for the global batch of `reference_batch` rows, or of `batch_size` where that is not set.
        reference_batch: Where set, the learning rate grows with the batch: learning_rate · batch_size / reference_batch
            (Goyal et al. 2017, arXiv:1706.02677).
        warmup_epochs: Epochs over which the learning rate rises from 0 (ibid.).
        schedule: After that: `constant`, or `cosine` down to 0 at the last epoch.
        label_smoothing: Share of each label that is spread over all classes.
        monitor: What says which epoch was best, and when to stop: the `loss` or the `accuracy` of validation.
        patience: Epochs without a better one before training stops.
        min_delta: How much better counts.
        steps_per_execution: Steps that Keras runs between two looks at the host; at most the steps of an epoch.
        xla: Compile each step with XLA: some seconds at the start, more rows/s after.
        loss: Cross-entropy of one-hot labels (as the study) or of integer ids; the same value.
        start_timeout: Seconds that the ranks may take to start.
        resume: Go on after the last epoch of an interrupted run with the same settings.
        tensorboard: Write `tensorboard/<model>/<version>` in the lake, an event an epoch.
    """

    models: Annotated[tuple[ModelName, ...], Field(min_length=1)] = ("dnn", "gru_dnn")
    classes: Annotated[tuple[Classes, ...], Field(min_length=1)] = (2, 6, 19)
    profiles: Annotated[tuple[ProfileName, ...], Field(min_length=1)] = ("paper",)
    variant: Annotated[str, Field(pattern=r"^[a-z0-9_]*$")] = ""
    ranks: Count = 2
    epochs: Count = 50
    batch_size: Count = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    reference_batch: Count | None = None
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    monitor: Literal["loss", "accuracy"] = "loss"
    patience: Count = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0
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

    @model_validator(mode="after")
    def _members_are_dense(self) -> "TrainConfig":
        for name in ("gru_dnn", "lstm"):
            if getattr(self, name).members > 1:
                raise ValueError(f"{name}.members is {getattr(self, name).members}; only dnn may have several members")
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrainConfig":
        if self.batch_size % self.ranks:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of ranks {self.ranks}")
        return self


class ForestConfig(Section):
    """`jobs/forest.py`: Spark ML's random forest, for `train.classes` and `train.profiles`.

    Attributes:
        trees, max_depth: Of each forest and each tree; Spark ML allows a depth of 30.
        max_bins: Quantile bins of a feature.
        features_per_split: That each split chooses from: `sqrt`, `onethird`, `log2`, `all`, or a share or number.
        subsampling_rate: Rows of each tree, drawn with replacement, relative to the rows of train.
        min_rows_per_leaf: No split leaves fewer rows on a side.
        rows_per_partition: Every partition shuffles a histogram of each node that is being split, so few are fast.
        at_once: Forests that are grown at the same time.
    """

    trees: Count = 100
    max_depth: Annotated[int, Field(ge=1, le=30)] = 20
    max_bins: Annotated[int, Field(ge=2)] = 32
    features_per_split: Annotated[str, Field(coerce_numbers_to_str=True, pattern=_SUBSET)] = "sqrt"
    subsampling_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_rows_per_leaf: Count = 1
    rows_per_partition: Count = 100_000
    at_once: Count = 2


class LeakageConfig(Section):
    """`jobs/leakage.py`.

    Attributes:
        pairs: Classes that a single feature is asked to tell apart; by default those of one tool or protocol captured
            on two days, and those that models confuse. Pairs whose classes are absent are listed as such.
        sample_rows: Most train rows of a class that the AUC is measured on.
    """

    pairs: tuple[tuple[str, str], ...] = (
        ("DDoS-ICMP", "DoS-ICMP"),
        ("DDoS-SYN", "DoS-SYN"),
        ("DDoS-TCP", "DoS-TCP"),
        ("DDoS-UDP", "DoS-UDP"),
        ("MQTT-DDoS-Connect_Flood", "MQTT-DoS-Connect_Flood"),
        ("MQTT-DDoS-Publish_Flood", "MQTT-DoS-Publish_Flood"),
        ("MQTT-DoS-Connect_Flood", "MQTT-Malformed_Data"),
        ("Benign", "ARP_Spoofing"),
        ("Benign", "MQTT-Malformed_Data"),
        ("MQTT-Malformed_Data", "Recon-VulScan"),
        ("Recon-OS_Scan", "Recon-Port_Scan"),
        ("Recon-VulScan", "Recon-Ping_Sweep"),
    )
    sample_rows: Count = 50_000


class Config(Section):
    """Everything a run is told.

    Attributes:
        lake: Root URI or folder of every table.
        seed: Of weights, dropout, batch order, forests, replica.
    """

    lake: str = "lake"
    seed: int = 7
    replica: ReplicaConfig = ReplicaConfig()
    replica_night: ReplicaNightConfig = ReplicaNightConfig()
    ingest: IngestConfig = IngestConfig()
    features: FeaturesConfig = FeaturesConfig()
    train: TrainConfig = TrainConfig()
    forest: ForestConfig = ForestConfig()
    score: ScoreConfig = ScoreConfig()
    alerts: AlertsConfig = AlertsConfig()
    promote: PromoteConfig = PromoteConfig()
    purge: PurgeConfig = PurgeConfig()
    leakage: LeakageConfig = LeakageConfig()

    def as_json(self) -> str:
        """Return the whole configuration as JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    def sha256(self) -> str:
        """Return the SHA-256 of `as_json`, in hex."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()
