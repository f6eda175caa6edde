"""Settings of `jobs/score.py`, of what follows from a night's scores, and of `jobs/promote.py` and `jobs/purge.py`."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
ColumnName = Annotated[str, Field(min_length=1)]
ColumnGroup = Literal["levels", "top3", "attributions", "lineage"]


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ScoreConfig(Section):
    """`jobs/score.py`: a split of the lake's flows, or, where `flow_logs` is set, nights of flow logs.

    Attributes:
        source: Parquet of flows; default: split `split` of the lake's flows.
        split: Which split, and the name that metrics carry.
        models: Names below `models/`, such as `gru_dnn-19-paper`; empty: all. A night takes the champion of one.
        version: A version, or `latest`. A night takes the champion.
        event_date: Partition of `predictions/` when a split is scored; default: today in UTC.
        batch_rows: Flows that one forward pass takes.
        flow_logs: Folder that holds `event_date=YYYY-MM-DD/` with the parquet files of each night.
        date: The night to score.
        first_date: First of a range of nights; goes with `last_date`.
        last_date: Last of it.
        last_days: The last so many days before today in UTC, for data that arrive late.
        challenger: Whether the challenger scores the night too, beside the champion.
        pass_through: Columns that predictions repeat and that are never features; those that a file lacks are null.
        event_time: The one of them that says when a flow was seen; may be absent from the logs.
        column_aliases: Official feature name by the name that the logs use for it.
        pseudonymise: Those of `pass_through` whose values are replaced by a keyed hash.
        pseudonym_key_env: Environment variable that holds the key.
        pseudonym_key_file: File that holds it; wins over the variable. Readable by its owner alone.
        columns: Groups of optional columns of a night's predictions; fewer are faster.
    """

    source: str | None = None
    split: str = "test"
    models: tuple[str, ...] = ()
    version: str = "latest"
    event_date: dt.date | None = None
    batch_rows: Count = 16_384
    flow_logs: str | None = None
    date: dt.date | None = None
    first_date: dt.date | None = None
    last_date: dt.date | None = None
    last_days: Count | None = None
    challenger: bool = True
    pass_through: tuple[ColumnName, ...] = ("flow_id", "event_time", "device_id", "src_ip")
    event_time: str = "event_time"
    column_aliases: dict[str, str] = {}
    pseudonymise: tuple[ColumnName, ...] = ()
    pseudonym_key_env: str = "IDS_SPARK_PSEUDONYM_KEY"
    pseudonym_key_file: str | None = None
    columns: tuple[ColumnGroup, ...] = ("levels", "top3", "attributions")

    @model_validator(mode="after")
    def _one_way_to_name_nights(self) -> "ScoreConfig":
        ways = {
            "score.date": self.date is not None,
            "score.first_date and score.last_date": self.first_date is not None or self.last_date is not None,
            "score.last_days": self.last_days is not None,
        }
        chosen = [way for way, given in ways.items() if given]
        if self.flow_logs is None and chosen:
            raise ValueError(f"{chosen[0]} names nights of score.flow_logs, which is not set")
        if self.flow_logs is not None and len(chosen) != 1:
            raise ValueError(f"score.flow_logs needs exactly one of {', '.join(ways)}; found {len(chosen)}")
        if (self.first_date is None) != (self.last_date is None):
            raise ValueError("score.first_date and score.last_date go together")
        if self.first_date and self.last_date and self.first_date > self.last_date:
            raise ValueError(f"score.first_date {self.first_date} is after score.last_date {self.last_date}")
        strangers = sorted(set(self.pseudonymise) - set(self.pass_through))
        if self.event_time in self.pseudonymise:
            raise ValueError(f"score.pseudonymise names {self.event_time}, which is a time; leave it out")
        if self.event_time not in self.pass_through:
            raise ValueError(f"score.event_time is {self.event_time}, not in score.pass_through")
        if strangers:
            raise ValueError(f"score.pseudonymise names {', '.join(strangers)}, not in score.pass_through")
        return self


class AlertsConfig(Section):
    """What a night's scores become: a threshold from a budget, incidents, severities.

    Attributes:
        per_night: Budget: most incidents of a night, and the false alarms that the threshold aims at.
        entities: Pass-through columns that say who is concerned, best first.
        window_minutes: Flagged flows of one entity and class within such a window are one incident.
        attributions: Features named with each alerted flow.
        explained_rows: Of each row group and class, so many flagged flows carry reasons: first the highest score of
            each incident, then the highest of all.
        severity_policy: YAML file with the severities; default: the table that comes with the project.
        allow_list: YAML file with what is known and accepted, each entry with an expiry date.
    """

    per_night: Count = 50
    entities: tuple[ColumnName, ...] = ("device_id", "src_ip")
    window_minutes: Annotated[int, Field(ge=1, le=1440)] = 60
    attributions: Annotated[int, Field(ge=1, le=10)] = 3
    explained_rows: Count = 16
    severity_policy: str | None = None
    allow_list: str | None = None


class PromoteConfig(Section):
    """`jobs/promote.py`: which version of a model is its champion or challenger.

    Attributes:
        model: Name below `models/`.
        version: Version, or `latest`, or `previous`: the one that held the alias before.
        alias: The role.
    """

    model: str = "gru_dnn-19-paper"
    version: str = "latest"
    alias: Literal["champion", "challenger"] = "champion"


class PurgeConfig(Section):
    """`jobs/purge.py`: retention.

    Attributes:
        older_than_days: Partitions of dates before today minus this are removed.
        today: Counted from here; default: today in UTC.
    """

    older_than_days: Count = 90
    today: dt.date | None = None
