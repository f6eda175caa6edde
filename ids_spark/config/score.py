"""Settings of `jobs/score.py`, of alerts, and of the jobs on scored nights: verdict, report, promote, purge."""

import datetime as dt
import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from ids_spark.base.errors import InputError
from ids_spark.base.names import NAME

Count = Annotated[int, Field(ge=1, le=10**9)]
Days = Annotated[int, Field(ge=1, le=36_500)]
LearningNights = Annotated[int, Field(ge=0, le=28)]
NightDate = Annotated[dt.date, Field(ge=dt.date(1970, 1, 1), le=dt.date(2200, 12, 31))]
ColumnName = Annotated[str, Field(min_length=1)]
PathPart = Annotated[str, Field(pattern=f"^{NAME}$")]
"""A name that becomes one part of a path in the lake."""
ColumnGroup = Literal["levels", "top3", "attributions", "lineage"]
_MLFLOW_URI: Final = (
    r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?|databricks(://[A-Za-z0-9_.-]+)?"
)
_UNITY_CATALOG: Final = r"databricks-uc(://[A-Za-z0-9_.-]+)?"
_MLFLOW_SECRETS: Final = (
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_SECRET"),
)
Verdict = Literal["true", "benign", "mute", "close", "unlearn"]


def _yes_is_true(value: Any) -> Any:
    """Return the verdict `true`, which YAML reads as a truth value."""
    return "true" if value is True else value


def _ids(value: Any) -> Any:
    """Return ids of one text as a list; refuse those that YAML reads as numbers: 012345 would become 5349."""
    listed = value.replace(",", " ").split() if isinstance(value, str) else value
    if any(isinstance(item, int | float) for item in (listed if isinstance(listed, list | tuple) else [listed])):
        raise ValueError(f"an id of digits only must be in quotes; found {value!r}")
    return listed


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ScoreConfig(Section):
    """`jobs/score.py`: nights of flow logs if `flow_logs` is set, else a labelled split.

    Attributes:
        source: Labelled flows as parquet; default: split `split` of `flows/`.
        split: Split to score, and its name in `metrics/`.
        models: Names below `models/`, such as `gru_dnn-19-operational`; empty: all. A night is scored by exactly one.
        version: A version, or `latest`; for splits. Nights use the champion.
        trusted_keys: Files of Ed25519 public keys in PEM, outside the lake. With any, only models and aliases that one
            of them signed are used; without, no signature is checked.
        batch_rows: Flows in one forward pass.
        flow_logs: Folder of flow logs: parquet files below `event_date=YYYY-MM-DD/`.
        date: Night to score.
        first_date: First night of a range; needs `last_date`.
        last_date: Last night of the range.
        last_days: Score the last N days before today in UTC, so that late data are included; with `runs_per_night` also
            today.
        pending_nights: Score every night of `flow_logs` without a result of the champion for its present files: new
            nights, nights with late files, and all of them after another model or version became champion. With
            `last_days` or a range only its nights; of these, a night without flow logs is reported once.
        runs_per_night: Runs at a date, evenly spread over it, which share its budget of false incidents; 24: a page
            every hour. Each scores the flows that have arrived so far. 1: the date is scored when it is over.
        as_of: Time that counts as the present for `runs_per_night` and `last_days`, such as `2026-11-24T07:05:00Z`;
            default: the clock. For nights of the past, replayed.
        challenger: Whether the challenger scores the night too.
        pass_through: Columns that are copied to predictions and are never features; null where a file has none. As of
            features, names count without case, blanks and punctuation; a column may be in the path
            (`device_id=pump-7/`). The default is `flow_id`, `event_time`, `device_id`, `src_device`, `src_ip`,
            `src_mac`, `dst_ip`, `packets`, `capture_file`; of these, those that no file of a night has are left out.
        event_time: Column of `pass_through` with the time of a flow; may be absent from the logs.
        column_aliases: Column name in the logs → official feature name.
        pseudonymise: Columns of `pass_through` to replace by a keyed hash, beside those that no setting declares; not
            set: all but those of `not_identifiers`; empty: none, and flow logs are stored as they are. Without a key, a
            night that has such columns is refused.
        not_identifiers: Columns of `pass_through` that identify nobody.
        pseudonym_key_env: Environment variable with the key.
        pseudonym_key_file: File with the key, readable by its owner only; takes precedence over the variable.
        columns: Groups of optional columns in a night's predictions; fewer groups are faster.
        inventory: CSV file of the devices, with the columns `address` (IPv4 or MAC), `device`, and any of `type`,
            `department`, `patient_connected`, `criticality`, `owner`, `maintenance`.
        volume_factor: A night is degraded if its number of flows differs by more than this factor from the median of
            the nights with flows in the six days before it, of which there must be three.
        max_rejected_share: A night is degraded if a larger share of its flows is quarantined.
        max_invisible_share: A night is degraded if a larger share of the packets of its captures is in no flow, so that
            no model can see them, such as IPv6.
        learning_nights: A site is learning until so many nights of the last 28 dates were scored, unless its champion
            has learned local nights. While it learns, only incidents with strong evidence are open; 0: never.
        provisional_nights: Then it is provisional until its champion has scored so many nights, and the last so many
            of them had no more false incidents than their budgets promised.
        device_learning_nights: A device learns in its first so many scored nights, at a site with as many earlier ones:
            incidents of such devices with weak evidence are not open; 0: never.
    """

    source: str | None = None
    split: PathPart = "test"
    models: tuple[PathPart, ...] = ()
    version: PathPart = "latest"
    trusted_keys: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    batch_rows: Count = 16_384
    flow_logs: str | None = None
    date: NightDate | None = None
    first_date: NightDate | None = None
    last_date: NightDate | None = None
    last_days: Days | None = None
    pending_nights: bool = False
    runs_per_night: Annotated[int, Field(ge=1, le=96)] = 1
    as_of: AwareDatetime | None = None
    challenger: bool = True
    pass_through: tuple[ColumnName, ...] = (
        *("flow_id", "event_time", "device_id", "src_device", "src_ip", "src_mac", "dst_ip", "packets", "capture_file"),
    )
    event_time: str = "event_time"
    column_aliases: dict[str, str] = {}
    pseudonymise: tuple[ColumnName, ...] | None = None
    not_identifiers: tuple[ColumnName, ...] = ("packets",)
    pseudonym_key_env: str = "IDS_SPARK_PSEUDONYM_KEY"
    pseudonym_key_file: str | None = None
    columns: tuple[ColumnGroup, ...] = ("levels", "top3", "attributions")
    inventory: str | None = None
    volume_factor: Annotated[float, Field(gt=1)] = 3.0
    max_rejected_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    max_invisible_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    learning_nights: LearningNights = 14
    provisional_nights: Annotated[int, Field(ge=1, le=28)] = 7
    device_learning_nights: LearningNights = 7

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Columns of `pass_through` that identify somebody: those of `pseudonymise`, and those that nothing declares.

        None if `pseudonymise` is empty.
        """
        if self.pseudonymise == ():
            return ()
        named, others = self.pseudonymise or (), (self.event_time, *self.not_identifiers)
        return tuple(column for column in self.pass_through if column in named or column not in others)

    @model_validator(mode="after")
    def _one_way_to_name_nights(self) -> "ScoreConfig":
        several = {
            "score.first_date and score.last_date": self.first_date is not None or self.last_date is not None,
            "score.last_days": self.last_days is not None,
        }
        ways = {"score.date": self.date is not None, **several, "score.pending_nights": self.pending_nights}
        chosen = [way for way, given in ways.items() if given]
        if self.flow_logs is None and chosen:
            raise ValueError(f"{chosen[0]} names nights of score.flow_logs, which is not set")
        if self.pending_nights and len(chosen) == 2 and chosen[0] in several:
            chosen = chosen[:1]  # those of the range that are pending
        if self.flow_logs is not None and len(chosen) != 1:
            raise ValueError(f"score.flow_logs needs exactly one of {', '.join(ways)}; found {len(chosen)}")
        if (self.first_date is None) != (self.last_date is None):
            raise ValueError("score.first_date and score.last_date go together")
        if self.first_date and self.last_date and self.first_date > self.last_date:
            raise ValueError(f"score.first_date {self.first_date} is after score.last_date {self.last_date}")
        chosen_columns = self.pseudonymise or ()
        not_passed = sorted(set(chosen_columns) - set(self.pass_through))
        if self.event_time in chosen_columns:
            raise ValueError(f"score.pseudonymise names {self.event_time}, which is a time; remove it")
        if self.event_time not in self.pass_through:
            raise ValueError(f"score.event_time is {self.event_time}, not in score.pass_through")
        if not_passed:
            raise ValueError(f"score.pseudonymise names {', '.join(not_passed)}, not in score.pass_through")
        return self


class AlertsConfig(Section):
    """Incidents of a night: budget of false ones, most lines, entities, severities.

    Attributes:
        false_incidents: Budget: expected number of incidents of a night of benign flows only.
        most_lines: Most incidents on the page and in exports; all are in `incidents/`.
        entities: Columns of `pass_through` that identify devices and sources; of each, the first with a value is used.
        sources: Those of `entities` with the name or address of the source of a flow.
        target: Column of `pass_through` with the address that a flow went to: whom a device attacks that is the source
            itself; may be absent from the logs.
        window_minutes: Length of a window; flagged flows are counted for each entity and category in a window.
        attributions: Features listed for each explained flow.
        explained_rows: Maximum flagged flows that get an explanation, per row group and class, where an entity has
            several: first the highest of each device, source and window, then the highest scores of the rest.
        severity_policy: YAML file with severities; default: the table in `conf/severity.yaml`.
        allow_list: YAML file with accepted behaviour, each entry with an expiry date.
    """

    false_incidents: Annotated[float, Field(gt=0.0, le=1_000.0)] = 1.0
    most_lines: Count = 50
    entities: tuple[ColumnName, ...] = ("device_id", "src_device", "src_ip", "src_mac")
    sources: tuple[ColumnName, ...] = ("src_device", "src_ip", "src_mac")
    target: str = "dst_ip"
    window_minutes: Annotated[int, Field(ge=1, le=1440)] = 60
    attributions: Annotated[int, Field(ge=1, le=10)] = 3
    explained_rows: Count = 16
    severity_policy: str | None = None
    allow_list: str | None = None


class VerdictConfig(Section):
    """`jobs/verdict.py`: what people decided about incidents, given by these settings or by a file.

    Attributes:
        date: Night of the incidents.
        incidents: Their ids, or the first characters of each, at least 6.
        verdict: `true` or `benign`: what they were; `mute` or `close`: how they are handled; `unlearn` removes these.
        until: Last night of a `mute`, at most 366 days after today.
        owner: Who decided.
        reason: Why.
        file: CSV file instead, with the columns `date`, `incident_id`, `verdict`, `until`, `owner`, `reason`.
    """

    date: NightDate | None = None
    incidents: Annotated[tuple[str, ...], BeforeValidator(_ids)] = ()
    verdict: Annotated[Verdict | None, BeforeValidator(_yes_is_true)] = None
    until: NightDate | None = None
    owner: str | None = None
    reason: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one_way_to_give_verdicts(self) -> "VerdictConfig":
        beside = [
            f"verdict.{name}" for name in self.model_fields_set - {"file"} if getattr(self, name) not in (None, ())
        ]
        if self.file is not None and beside:
            raise ValueError(f"verdict.file holds all verdicts; remove {', '.join(sorted(beside))}")
        return self


class ReportConfig(Section):
    """`jobs/report.py`.

    Attributes:
        nights: Newest scored nights whose verdicts are counted.
    """

    nights: Days = 28


class PromoteConfig(Section):
    """`jobs/promote.py`: makes a version of a model its champion or challenger.

    Attributes:
        model: Name below `models/`.
        version: A version, `latest`, or `previous`: the version that had the alias before.
        alias: Alias to set.
        force: Make a version champion although the recall of a class fell; needs `reason`.
        reason: Why, for the audit and the history of the alias.
        sign: Sign the version and the aliases with `train.sign_key`, whatever signatures they have: for models that are
            older than the key, and for a new key.
        mlflow_uri: MLflow tracking server (`https://HOST:PORT`, or `databricks`) whose model registry gets a copy of
            every promoted version and of the aliases, also from `adapt` and `score`; not set: none. Credentials are
            those of MLflow's environment variables.
        mlflow_prefix: What precedes a model's name there, so that several lakes can have models in one registry.
    """

    model: PathPart = "gru_dnn-19-operational"
    version: PathPart = "latest"
    alias: Literal["champion", "challenger"] = "champion"
    force: bool = False
    reason: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    sign: bool = False
    mlflow_uri: str | None = None
    mlflow_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$", max_length=100)] = ""

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """Names of the environment variables with MLflow's credentials; none without `mlflow_uri`."""
        return () if self.mlflow_uri is None else _MLFLOW_SECRETS

    def registry_uri(self, given: str | None) -> str | None:
        """Return the address of the model registry: `mlflow_uri`, or what MLflow's environment variable names.

        Args:
            given: Value of `MLFLOW_REGISTRY_URI`.

        Raises:
            InputError: it may hold credentials, or is no server; the message does not show it.
        """
        if not given or self.mlflow_uri is None:
            return self.mlflow_uri
        if re.fullmatch(f"{_MLFLOW_URI}|{_UNITY_CATALOG}", given) is None:
            raise InputError(
                "MLFLOW_REGISTRY_URI is something else than expected: https://HOST:PORT/PATH, http://…, databricks or"
                " databricks-uc, without user, password and query; correct or unset it"
            )
        return given

    @field_validator("mlflow_uri", mode="before")
    @classmethod
    def _holds_no_credentials(cls, value: object) -> object:
        """Refuse other addresses without showing them: the configuration is in logs and in the audit."""
        if value is None or (isinstance(value, str) and re.fullmatch(_MLFLOW_URI, value)):
            return value
        raise ValueError(
            "found something else; expected https://HOST:PORT/PATH, http://… or databricks, without user, password and"
            " query: MLflow reads MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and MLFLOW_TRACKING_TOKEN"
        )

    @model_validator(mode="after")
    def _force_has_a_reason(self) -> "PromoteConfig":
        if self.force and (self.reason is None or not self.reason.strip()):
            raise ValueError("promote.force needs promote.reason: why this version becomes champion all the same")
        return self


class VerifyConfig(Section):
    """`jobs/verify.py`: checks the hash chain of the audit and, with `score.trusted_keys`, the signatures of models.

    Attributes:
        head: Hash that a run logged (`head=`): the row of that run must be in the audit.
    """

    head: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class PurgeConfig(Section):
    """`jobs/purge.py`: retention.

    Attributes:
        older_than_days: What is of a date before `today` minus this number of days is removed.
        today: Date to count back from; default: today in UTC.
    """

    older_than_days: Days = 90
    today: NightDate | None = None
