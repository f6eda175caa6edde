"""What is known and accepted: flagged flows that are no incident, each entry with a reason, an owner and a last night.

Entries are written with the plain values of pass-through columns. Flows are therefore compared before their values are
pseudonymised, in the task that scores them, which alone has the raw values.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from ids_spark.alerts.policy_file import read_checked
from ids_spark.alerts.severity import known_name, lineage_of
from ids_spark.base.arrays import Counts, Mask
from ids_spark.base.errors import InputError
from ids_spark.config.score import Section

LONGEST_DAYS: Final = 366
"""An entry ends at most so many days after the day it is read on: what is accepted for ever nobody looks at again."""
_MINUTES_A_DAY: Final = 24 * 60
_MICROSECONDS_A_DAY: Final = 86_400_000_000
_TIME: Final = pa.timestamp("us", tz="UTC")


class AllowListUnusable(InputError):
    """Raised when an allow-list cannot be read or an entry is not as expected; the message lists every fault."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> Any:
    """Refuse what YAML made no text of: 0123 is 83 there, 11:22:33:44:55:06 a number, yes is true."""
    if not isinstance(value, str):
        raise ValueError(f"expected text; put it in quotes; found {value!r}")
    return value


def _clock(value: Any) -> Any:
    """Return a time of day where YAML made a number of it: it reads 12:10 without quotes as 730, 12:10:05 as 43805."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 60 * _MINUTES_A_DAY:
        minutes, seconds = (value, 0) if value < _MINUTES_A_DAY else divmod(value, 60)
        return dt.time(minutes // 60, minutes % 60, seconds)
    return value


def _carried(column: str, info: ValidationInfo) -> str:
    columns = (info.context or {}).get("columns")
    if columns is not None and column not in columns:
        raise ValueError(f"no such column in score.pass_through; expected one of {', '.join(columns)}")
    return column


def _utc(at: dt.time) -> dt.time:
    if at.tzinfo is not None:
        raise ValueError(f"expected a time of day in UTC without a time zone; found {at}")
    return at


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Column = Annotated[str, AfterValidator(_carried)]
Values = Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(min_length=1)]
Names = Annotated[tuple[Annotated[str, AfterValidator(known_name)], ...], BeforeValidator(_listed), Field(min_length=1)]
Clock = Annotated[dt.time, BeforeValidator(_clock), AfterValidator(_utc)]


class Entry(Section):
    """One thing that is accepted. A flow is covered when every condition of the entry holds.

    Attributes:
        reason: Why; stands in the audit and on the page.
        owner: Who answers for it.
        expires: The last night that it covers.
        where: Pass-through columns and the values that a flow may have in each; at least one column, since an entry
            about a class alone would silence that attack on every device. A flow without a value does not match.
        class_name: Predicted classes, at any level; `Attack` is all of them. Default: any.
        category: Predicted categories. Default: any.
        starts: Time of day in UTC, written `from`. A flow without an event time is outside every such stretch.
        ends: First moment after it, written `until`; before `starts` where the stretch holds midnight.
    """

    reason: Text
    owner: Text
    expires: dt.date
    where: Annotated[dict[Column, Values], Field(min_length=1)]
    class_name: Names | None = None
    category: Names | None = None
    starts: Clock | None = Field(default=None, alias="from")
    ends: Clock | None = Field(default=None, alias="until")

    @field_validator("expires")
    @classmethod
    def _ends_soon_enough(cls, expires: dt.date, info: ValidationInfo) -> dt.date:
        today = (info.context or {}).get("today")
        if today is not None and expires > today + dt.timedelta(days=LONGEST_DAYS):
            raise ValueError(f"{expires} is more than {LONGEST_DAYS} days after today, {today}; renew it when it ends")
        return expires

    @model_validator(mode="after")
    def _stretch_of_time(self) -> "Entry":
        if (self.starts is None) != (self.ends is None):
            raise ValueError("from and until go together; found one of them")
        if self.starts is not None and self.starts == self.ends:
            raise ValueError(f"from and until are both {self.starts}; leave both out for the whole day")
        return self

    def stated(self, hidden: Collection[str] = ()) -> dict[str, str | dt.date]:
        """Return the entry in words for page and audit; of columns that are `hidden`, only how many values it names."""
        said = {c: f"{len(v)} value(s)" if c in hidden else ", ".join(v) for c, v in self.where.items()}
        for key, names in (("class_name", self.class_name), ("category", self.category)):
            if names is not None:
                said[key] = ", ".join(names)
        said |= {key: f"{at:%H:%M}" for key, at in (("from", self.starts), ("until", self.ends)) if at is not None}
        return {"reason": self.reason, "owner": self.owner, "expires": self.expires, **said}

    def covers(self, table: pa.Table, lineages: list[frozenset[str]], codes: NDArray[np.int64]) -> Mask:
        """Return which flows meet every condition, whatever the night; shape (rows,).

        Args:
            table: As in `AllowList.covers`.
            lineages: By code, what a class may be called by.
            codes: Of every flow's class.
        """
        covered = np.ones(len(table), dtype=np.bool_)
        for wanted in (self.class_name, self.category):
            if wanted is not None:
                covered &= np.array([not names.isdisjoint(wanted) for names in lineages], dtype=np.bool_)[codes]
        for column, values in self.where.items():
            if column not in table.column_names:
                return np.zeros(len(table), dtype=np.bool_)
            found = pc.is_in(table[column].cast(pa.string()), value_set=pa.array(values, pa.string()))
            covered &= np.asarray(found)
        if self.starts is not None and self.ends is not None:
            covered &= _within(table, self.starts, self.ends)
        return covered


class AllowList(Section):
    """All entries, in the order of the file.

    Attributes:
        entries: May be none.
    """

    entries: tuple[Entry, ...] = ()

    def sha256(self) -> str:
        """Return a hash of what the entries say, in hex."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def expired(self, night: dt.date) -> list[Entry]:
        """Return the entries that ended before a night and cover nothing of it."""
        return [entry for entry in self.entries if entry.expires < night]

    def covers(self, table: pa.Table, night: dt.date) -> tuple[Mask, Counts]:
        """Return which flows are accepted, and how many each entry covers.

        Args:
            table: Flagged flows: pass-through columns with raw values, not pseudonyms; `class_name`, the predicted
                class of any level; `event_time` as a timestamp with time zone, where the logs have it.
            night: Date of the flow logs; entries that ended before it cover nothing.

        Returns:
            A mask of shape (rows,), and counts of shape (entries,). A flow that two entries cover counts for both, so
            the mask says how many flows are accepted. Counts of pieces add up to those of the night.

        Raises:
            UnknownClass: a class name is that of no class.
        """
        mask, counts = np.zeros(len(table), dtype=np.bool_), np.zeros(len(self.entries), dtype=np.int64)
        if not self.entries or not len(table):
            return mask, counts
        encoded = table["class_name"].cast(pa.string()).combine_chunks().dictionary_encode()
        lineages = [*(lineage_of(name) for name in encoded.dictionary.to_pylist()), frozenset[str]()]
        codes = encoded.indices.cast(pa.int64()).fill_null(len(lineages) - 1).to_numpy(zero_copy_only=False)
        for i, entry in enumerate(self.entries):
            if entry.expires >= night:
                covered = entry.covers(table, lineages, codes)
                counts[i] = np.count_nonzero(covered)
                mask |= covered
        return mask, counts

    def notes(self, night: dt.date, counts: Iterable[int]) -> list[str]:
        """Return sentences for the audit: what each entry covered, and which expired; no value of a column is named."""
        said = []
        for i, (entry, covered) in enumerate(zip(self.entries, counts, strict=True), start=1):
            named = f"allow-list entry {i} ({entry.reason}; {entry.owner})"
            if entry.expires < night:
                said.append(f"{named} expired on {entry.expires} and covers nothing; renew it or take it out")
            elif covered:
                said.append(f"{named} covered {covered:,} flagged flow(s) of {night}; it ends after {entry.expires}")
        return said


def read_allow_list(uri: str | None, today: dt.date, columns: Collection[str]) -> AllowList:
    """Return the allow-list of a YAML file, a list of entries; an empty one where no file is named.

    Args:
        uri: The file, local or a URI.
        today: No entry may end more than `LONGEST_DAYS` after this day.
        columns: That entries may speak of: `score.pass_through` without the event time.

    Raises:
        AllowListUnusable: lists every fault of every entry, such as a missing `expires`, or one too far ahead.
    """
    if uri is None:
        return AllowList()
    return read_checked(
        uri, AllowList, AllowListUnusable, "conf/allow_list.yaml", {"today": today, "columns": tuple(columns)}
    )


def _within(table: pa.Table, starts: dt.time, ends: dt.time) -> Mask:
    if "event_time" not in table.column_names:
        return np.zeros(len(table), dtype=np.bool_)
    times = table["event_time"].cast(_TIME, safe=False)
    known = np.asarray(pc.is_valid(times))
    of_day = times.cast(pa.int64()).fill_null(0).to_numpy() % _MICROSECONDS_A_DAY
    first, last = _microseconds(starts), _microseconds(ends)
    inside = (of_day >= first) & (of_day < last) if first < last else (of_day >= first) | (of_day < last)
    return np.asarray(known & inside)


def _microseconds(at: dt.time) -> int:
    return ((at.hour * 60 + at.minute) * 60 + at.second) * 1_000_000 + at.microsecond
