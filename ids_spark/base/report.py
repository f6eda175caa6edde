"""The report of a job, from which its audit row is made."""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ids_spark.base.errors import NotReconciled


def combined_origin(*origins: str | None) -> str:
    """Return `synthetic` if any origin of a result's inputs is synthetic, else `measured`."""
    return "synthetic" if "synthetic" in origins else "measured"


class FollowUp(NamedTuple):
    """What a job does once its tables are committed, such as telling another system.

    Attributes:
        name: What `audit/` calls it, in the row of one that failed.
        act: Does it; returns why it is incomplete, in one sentence, or None.
    """

    name: str
    act: Callable[[], str | None]


@dataclass
class Report:
    """The facts of one run of a job.

    Attributes:
        rows_in: Rows read.
        rows_out: Rows written.
        rows_quarantined: Rows refused.
        rows_duplicate: Rows dropped as duplicates.
        rows_joined: Rows that are part of another row that was written.
        rows_left_out: Rows that the result does not describe, by design: packets in no window, local rows beyond the
            most rows of a setting, local rows that may be attacks.
        rows_imputed: Rows refused that were scored as well, with the only feature at fault at its benign median.
        tables: Staged tables to commit.
        counts: Rows by (kind, split, class name or None); a kind is for example `flows` or `quarantined: missing`.
        notes: Sentences for the reader of the audit.
        models: `name/version` of every model read or written.
        aliases: Time of the newest change, and SHA-256 of the file, of aliases that were used or written, by model.
        inputs: Files that were read, if the job names them.
        feature_schema: Name of the feature schema, if the job has one.
        data_origin: `measured` or `synthetic`; None when no row was read.
        degraded: Why the result is incomplete, one sentence each; empty for a complete result.
        lines: What the job prints on the terminal once its tables are committed.
        index: Whether the index of all nights is to be written although no committed table changes it: `changed` for
            the nights that changed, `all` to read every night again.
        after_commit: What the job does once its tables are committed; the tables stay, whatever becomes of it.
    """

    rows_in: int = 0
    rows_out: int = 0
    rows_quarantined: int = 0
    rows_duplicate: int = 0
    rows_joined: int = 0
    rows_left_out: int = 0
    rows_imputed: int = 0
    tables: list[str] = field(default_factory=list)
    counts: dict[tuple[str, str, str | None], int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    aliases: dict[str, tuple[dt.datetime, str]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    feature_schema: str | None = None
    data_origin: str | None = None
    degraded: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    index: Literal["", "changed", "all"] = ""
    after_commit: list[FollowUp] = field(default_factory=list)

    def degrade(self, reason: str) -> None:
        """Add a reason why the result is incomplete, also to the notes."""
        self.degraded.append(reason)
        self.notes.append(f"degraded: {reason}")

    def count(self, kind: str, rows: Mapping[tuple[str, str], int]) -> None:
        """Add counts by (split, class name)."""
        for (split, class_name), n in sorted(rows.items()):
            self.counts[kind, split, class_name] = n

    def add(self, other: "Report") -> None:
        """Add the report of another part of the same run; of equal notes one is kept."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.rows_quarantined += other.rows_quarantined
        self.rows_duplicate += other.rows_duplicate
        self.rows_joined += other.rows_joined
        self.rows_left_out += other.rows_left_out
        self.rows_imputed += other.rows_imputed
        self.tables += other.tables
        self.counts |= other.counts
        self.notes += [note for note in other.notes if note not in self.notes]
        self.degraded += other.degraded
        self.lines += other.lines
        self.after_commit += other.after_commit
        self.aliases |= other.aliases
        self.inputs += other.inputs
        self.models += [model for model in other.models if model not in self.models]
        origins = [origin for origin in (self.data_origin, other.data_origin) if origin is not None]
        self.data_origin = combined_origin(*origins) if origins else None

    def add_scored(self, name: str, version: str, rows_in: int, scored: int, quarantined: Mapping[str, int]) -> None:
        """Add the rows of one model's scoring; a run with several models counts every flow once for each."""
        self.models.append(f"{name}/{version}")
        self.rows_in += rows_in
        self.rows_out += scored
        self.rows_quarantined += sum(quarantined.values())
        self.counts[f"scored by {name}", "", None] = scored
        for reason, rows in sorted(quarantined.items()):
            self.counts[f"not scored by {name}: {reason}", "", None] = rows

    def reconcile(self) -> None:
        """Check that every row read is accounted for.

        Raises:
            NotReconciled: rows in differ from the sum of rows out, quarantined, duplicate, joined and left out.
        """
        apart = self.rows_quarantined + self.rows_duplicate + self.rows_joined + self.rows_left_out
        accounted = self.rows_out + apart
        if self.rows_in != accounted:
            raise NotReconciled(
                f"{self.rows_in} rows in, but {accounted} accounted for ({self.rows_out} out,"
                f" {self.rows_quarantined} quarantined, {self.rows_duplicate} duplicate, {self.rows_joined} joined,"
                f" {self.rows_left_out} left out); nothing was committed"
            )
