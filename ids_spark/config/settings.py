"""Every setting of every job: names, types, defaults, and what they mean. `config` reads and checks them."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from ids_spark.config.score import AlertsConfig, Count, PromoteConfig, PurgeConfig, ScoreConfig, Section
from ids_spark.config.synthetic import SynthesizeNightConfig
from ids_spark.config.train import TrainConfig

Share = Annotated[float, Field(ge=0.0, le=1.0)]
_SUBSET = r"^(sqrt|onethird|log2|all|0\.\d+|[1-9]\d*)$"


class SynthesizeConfig(Section):
    """`jobs/synthesize.py`: synthetic flows in the shape of CICIoMT2024.

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


class ForestConfig(Section):
    """`jobs/forest.py`: Spark ML's random forest, for `train.classes` and `train.feature_sets`.

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
    synthesize: SynthesizeConfig = SynthesizeConfig()
    synthesize_night: SynthesizeNightConfig = SynthesizeNightConfig()
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
