"""Every setting of every job: name, type, default, meaning. `loader` reads and checks them."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from ids_spark.base.errors import InputError
from ids_spark.config.adapt import AdaptConfig
from ids_spark.config.blend import BlendConfig
from ids_spark.config.boost import BoostJobConfig
from ids_spark.config.extract import ExtractConfig
from ids_spark.config.score import (
    AlertsConfig,
    Count,
    Days,
    NightDate,
    PromoteConfig,
    PurgeConfig,
    ReportConfig,
    ScoreConfig,
    Section,
    VerdictConfig,
    VerifyConfig,
)
from ids_spark.config.synthetic import SynthesizeCapturesConfig, SynthesizeNightConfig
from ids_spark.config.train import TrainConfig

Share = Annotated[float, Field(ge=0.0, le=1.0)]
_SUBSET = r"^(sqrt|onethird|log2|all|0\.\d+|[1-9]\d*)$"


class SynthesizeConfig(Section):
    """`jobs/synthesize.py`: synthetic flows in the shape of CICIoMT2024.

    Attributes:
        target: Folder to write; must not exist, or hold an earlier synthetic data set.
        scale: Number of rows relative to the data set; 1 gives 7,160,831 train and 1,614,182 test rows.
        min_rows_per_file: Minimum rows of each file, so that small classes do not vanish at small scales.
        feature_schema: Release of CICIoMT2024 to imitate.
        format: File format.
        capture_day_iat: Whether `IAT` of the first release contains the date of the capture, as in the data set.
    """

    target: str = "synthetic"
    scale: Annotated[float, Field(gt=0, le=10)] = 0.002
    min_rows_per_file: Count = 40
    feature_schema: Literal["original45", "release39"] = "original45"
    format: Literal["parquet", "csv"] = "parquet"
    capture_day_iat: bool = True


class IngestConfig(Section):
    """`jobs/ingest.py`.

    Attributes:
        source: Folder with the official layout, or one table with a column of labels; CSV (also gzip) or parquet.
        label_column: Column with the name of a row's capture file; may be in the path of the files (`label=…`).
        column_aliases: Column name in the source → official feature name, where case and punctuation do not suffice.
        ignored_columns: Columns to ignore, in addition to labels, index, identifiers, times and endpoints.
        window: Rows of windows of 10 packets are joined to windows of this many packets, a multiple of 10, for nights
            with such windows (`extract.window`); only the official files of the second release, complete and in their
            order, or the same files as parquet. Default: windows as they are.
        max_rejected_share: The source is refused when a larger share of its rows is quarantined.
        rows_per_file: Rows in a file of `flows/`; a task holds this many rows in memory.
        local: Folder of flow logs of the site's own nights, as `score.flow_logs`: their flows become benign rows of
            `flows/split=local`. With or without `source`.
        local_dates: Nights of `local` to take; default: all of them.
        local_nights: Of these, only the newest N.
        local_rows: Most rows of all of these nights, chosen by hash.
        local_rows_per_device: Most rows of one device, so that a device with much traffic does not hide the others.
    """

    source: str | None = None
    label_column: Annotated[str, Field(min_length=1)] = "label"
    column_aliases: dict[str, str] = Field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()
    window: Annotated[int, Field(ge=20, le=1_000, multiple_of=10)] | None = None
    max_rejected_share: Share = 0.05
    rows_per_file: Count = 500_000
    local: str | None = None
    local_dates: tuple[NightDate, ...] = ()
    local_nights: Days | None = None
    local_rows: Count = 1_000_000
    local_rows_per_device: Count = 50_000


class FeaturesConfig(Section):
    """`jobs/features.py`.

    Attributes:
        recipe: Name of the fitted preprocessor and its table.
        transform: Before standardisation: `none`, or `signed_log`, sign(x) · log(1 + 1000 |x|), for heavy tails.
        ratios: Also derive features from raw ones: the pause before a window, the payload, ratios and differences of
            packet lengths, shares of TCP flags among TCP packets.
        min_std: A feature is dropped when its population standard deviation over train is at most this.
        sample_rows: Approximate number of train rows from which the quantiles of each feature are computed.
        validation_share: Share of the train rows held out for validation, selected by row hash.
        blocked_share: Share of the benign train rows held out as blocks: runs of rows of a source file, in the order of
            their capture, selected by hash. They show how the rate of false alarms differs between times; the
            threshold is the higher one of all validation rows and of these. 0: none.
        block_rows: Rows of a block in the source file: more rows are a longer time, and fewer blocks.
        local: Whether the rows of `flows/split=local` that are not left out join those of the data set.
        local_held_out: Share of the local nights that is held out for the threshold: the last dates; with one date or
            none, the last rows of each source file.
        files: Minimum number of files of each split, each with at least one row group; at least `train.ranks`.
        rows_per_row_group: Rows of a row group; a rank reads one at a time.
    """

    recipe: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "paper"
    transform: Literal["none", "signed_log"] = "none"
    ratios: bool = False
    min_std: Annotated[float, Field(ge=0)] = 1e-8
    sample_rows: Count = 100_000
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    blocked_share: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    block_rows: Count = 200
    local: bool = True
    local_held_out: Annotated[float, Field(gt=0, lt=1)] = 0.25
    files: Count = 8
    rows_per_row_group: Count = 50_000


class ForestConfig(Section):
    """`jobs/forest.py`: Spark ML's random forest, for `train.classes` and `train.feature_sets`.

    Attributes:
        trees: Trees of a forest.
        max_depth: Maximum depth of a tree; Spark ML allows 30.
        max_bins: Maximum number of quantile bins of a feature.
        features_per_split: Features considered at each split: `sqrt`, `onethird`, `log2`, `all`, a share or a number.
        subsampling_rate: Rows of each tree, sampled with replacement, relative to the train rows.
        min_rows_per_leaf: Minimum rows on each side of a split.
        rows_per_partition: Rows of a partition. Each one shuffles a histogram for each node, so fewer are faster.
        at_once: Forests trained concurrently.
    """

    trees: Count = 100
    max_depth: Annotated[int, Field(ge=1, le=30)] = 20
    max_bins: Annotated[int, Field(ge=2)] = 32
    features_per_split: Annotated[str, Field(coerce_numbers_to_str=True, pattern=_SUBSET)] = "sqrt"
    subsampling_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_rows_per_leaf: Count = 1
    rows_per_partition: Count = 100_000
    at_once: Count = 2


class ExportConfig(Section):
    """`jobs/export.py`, and the end of every job that writes tables.

    Attributes:
        delta: Folder or S3 URI of Delta tables with the rows of `predictions/`, `incidents/`, `alerts/`, `nights/`,
            `drift/`, `metrics/`, `audit/`, `verdicts/` and the refused rows of nights; every job brings them to the
            state of the lake. A place beside the lake, not in it. Default: none.
        keep_days: Days for which replaced versions of the Delta tables can be read.
    """

    delta: Annotated[str, Field(min_length=1)] | None = None
    keep_days: Days = 30

    def target(self) -> str:
        """Return `delta`.

        Raises:
            InputError: it is not set.
        """
        if self.delta is None:
            raise InputError("export.delta is not set; expected the folder or S3 URI of the Delta tables")
        return self.delta


class LeakageConfig(Section):
    """`jobs/leakage.py`.

    Attributes:
        pairs: Pairs of classes for which the AUC of every single feature is computed. Default: classes of one tool or
            protocol captured on two days, and classes that models confuse. Pairs with an absent class are reported.
        sample_rows: Maximum train rows of a class for the AUC.
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
    """The whole configuration of a run.

    Attributes:
        lake: Root URI or folder of every table.
        seed: Seed of initial weights, dropout, batch order, trees, forests and synthetic flows; less than 2^32.
        open_cluster: Also run on a cluster whose connections are not authenticated and encrypted as in
            `conf/cluster/security.conf`; default: such a cluster is refused.
    """

    lake: str = "lake"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    open_cluster: bool = False
    synthesize: SynthesizeConfig = SynthesizeConfig()
    synthesize_night: SynthesizeNightConfig = SynthesizeNightConfig()
    synthesize_captures: SynthesizeCapturesConfig = SynthesizeCapturesConfig()
    extract: ExtractConfig = ExtractConfig()
    ingest: IngestConfig = IngestConfig()
    features: FeaturesConfig = FeaturesConfig()
    train: TrainConfig = TrainConfig()
    boost: BoostJobConfig = BoostJobConfig()
    blend: BlendConfig = BlendConfig()
    forest: ForestConfig = ForestConfig()
    score: ScoreConfig = ScoreConfig()
    alerts: AlertsConfig = AlertsConfig()
    verdict: VerdictConfig = VerdictConfig()
    report: ReportConfig = ReportConfig()
    promote: PromoteConfig = PromoteConfig()
    adapt: AdaptConfig = AdaptConfig()
    purge: PurgeConfig = PurgeConfig()
    verify: VerifyConfig = VerifyConfig()
    leakage: LeakageConfig = LeakageConfig()
    export: ExportConfig = ExportConfig()

    def as_json(self) -> str:
        """Return the whole configuration as JSON with sorted keys, without the free text of a verdict's reason."""
        found = self.model_dump(mode="json")
        if self.verdict.reason is not None:
            found["verdict"]["reason"] = "see verdicts/"  # the audit, which is never purged, keeps the configuration
        return json.dumps(found, sort_keys=True)

    def sha256(self) -> str:
        """Return the SHA-256 of `as_json`, in hex."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()
