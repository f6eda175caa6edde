"""The hash chain of `audit/`: each row names the newest rows before it by the SHA-256 of their content.

Rows that no other row names are heads. A run names all heads that it finds (`previous`), so the rows of two runs at
once are merged by the next one. A row that is changed or removed no longer fits to the row that names it.

The hash has no key: whoever can write the lake can also write the whole chain anew, or remove its newest rows. That
shows only against a hash that is kept elsewhere, which is why every run logs that of its row.

Rows of versions without a chain have no hash. The chain begins with the first row that has one.
"""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from ids_spark.base.errors import InputError
from ids_spark.base.text import one_line
from ids_spark.lake.filesystem import files_in, newest_files
from ids_spark.lake.parquet import SUFFIX, read_row
from ids_spark.lake.store import Lake

Row = Mapping[str, Any]

_FOLDER: Final = "audit"
_NEWEST: Final = 32
"""Rows among which heads are looked for, by time of writing and as many by name: more than runs at once."""
_READERS: Final = 16
_LATER: Final = dt.timedelta(hours=1)
"""A run that starts so long after another has ended sees its row: longer than a commit and its recovery take."""
_RUN_TIME: Final = "%Y%m%dT%H%M%SZ"  # names of rows begin so
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_MOST_PREVIOUS: Final = 1_000  # more than runs at once
_UNREADABLE: Final = (OSError, ValueError, TypeError, KeyError)


class AuditMissing(InputError):
    """Raised when there is no audit to check."""


def sha256_of(row: Row) -> str:
    """Return the SHA-256 of the content of a row: its columns but `sha256`, as JSON with sorted keys.

    All columns of the file count, so that rows of other versions have the hash that they were written with.
    """
    content = {name: value for name, value in row.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=_time)
    return hashlib.sha256(text.encode()).hexdigest()


def _time(value: object) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in an audit row")


def heads(lake: Lake) -> list[str]:
    """Return the hashes of the rows that no other row names, sorted; none before the first row with a hash.

    They are looked for among the newest rows only, so that the time does not grow with the audit. Files that are no
    rows, which anyone can add, do not count among them.
    """
    links: dict[str, _Link | None] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        most = _NEWEST
        while more := set(newest_files(lake.uri(_FOLDER), SUFFIX, most)) - links.keys():
            links |= zip(more, pool.map(_link, more), strict=True)
            most = _NEWEST + sum(link is None for link in links.values())
    found = [link for link in links.values() if link is not None]
    named = {name for _, previous in found for name in previous}
    return sorted({own for own, _ in found if own is not None} - named)


_Link = tuple[str | None, Sequence[str]]


def _link(uri: str) -> _Link | None:
    """Return the hash of a row, if it has one, and those that it names; None for a file that is no row."""
    try:
        row = read_row(uri, ["run_id", "sha256", "previous"])
        own, previous = row.get("sha256"), row.get("previous") or []
        links = [name for name in previous if _is_hash(name)]
    except _UNREADABLE:
        return None
    return ((own if _is_hash(own) else None), links) if "run_id" in row else None


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


@dataclass
class Checked:
    """The result of a check of the audit.

    Attributes:
        rows: Rows with a hash.
        before: Rows without one, from before the chain.
        heads: Hashes of the rows that no other row names.
        faults: Every fault in the order of the rows, one line each; empty for a chain as it was written.
    """

    rows: int = 0
    before: int = 0
    heads: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check(lake: Lake, head: str | None = None) -> Checked:
    """Check every row of the audit, and every link.

    Args:
        lake: The lake.
        head: Hash that a run logged; its row must be there.

    Raises:
        AuditMissing: the lake has no row.
    """
    uris, now = files_in(lake.uri(_FOLDER), SUFFIX), dt.datetime.now(dt.UTC)
    with ThreadPoolExecutor(_READERS) as pool:
        # Also rows in folders, which other readers of `audit/` find: none of them takes the place of another.
        names = [uri.removeprefix(f"{lake.uri(_FOLDER)}/") for uri in uris]
        read = dict(zip(names, pool.map(_read, uris), strict=True))
    rows = {name: row for name, row in read.items() if isinstance(row, dict)}
    if not uris:
        raise AuditMissing(f"{lake.uri(_FOLDER)} holds no audit row; expected a lake that a job has written; set lake")
    order = sorted(rows, key=lambda name: (rows[name]["finished_at"], name))
    chained = {name: rows[name] for name in order if rows[name].get("sha256") is not None}
    links = _Links(chained, now)
    found = {name: [reason] for name, reason in read.items() if isinstance(reason, str)}
    for name in order:
        of_links = links.faults(name) if name in chained else links.faults_without_hash(rows[name])
        found[name] = [*_name_fault(name, rows[name]), *_time_fault(rows[name], now), *of_links]
    faults = [
        f"audit/{name}: {text}"
        for name in sorted(found, key=lambda name: f"{rows[name]['finished_at']:{_RUN_TIME}}" if name in rows else name)
        for text in found[name]
    ]
    if head is not None and head not in links.sound:
        faults.append(
            f"no row has the SHA-256 {head} of verify.head: rows up to it were removed, or the chain was written anew"
        )
    return Checked(len(chained), len(rows) - len(chained), links.heads, faults)


class _Links:
    """The links of all rows with a hash, which are in the order of their end."""

    def __init__(self, rows: Mapping[str, Row], now: dt.datetime) -> None:
        self._rows = rows
        self._named = {name for row in rows.values() for name in _previous(row)}
        self._stated = {row["sha256"] for row in rows.values()}
        self.sound = {row["sha256"] for row in rows.values() if sha256_of(row) == row["sha256"]}
        self.heads = sorted(self._stated - self._named)
        ended = [row["finished_at"] for row in rows.values()]
        self._first_end = min(ended, default=None)
        started = [row["started_at"] for row in rows.values() if row["started_at"] - now < _LATER]
        self._last_start = max(started, default=None)

    def faults(self, name: str) -> Iterator[str]:
        """Yield what is wrong with a row that has a hash."""
        row = self._rows[name]
        own = row["sha256"]
        if (found := sha256_of(row)) != own:  # which may be that of another row
            yield f"was changed: its content has the SHA-256 {found}, it states {own}"
        for previous in _previous(row):
            if previous not in self._stated:
                yield f"the row before it, SHA-256 {previous}, is not in audit/: it was removed or changed"
        if not _previous(row) and self._first_end is not None and row["started_at"] - self._first_end > _LATER:
            yield "names no row before it, although there were some: it was inserted, or a row between them removed"
        if own not in self._named and self._last_start is not None and self._last_start - row["finished_at"] > _LATER:
            yield "is named by no later row, although there are some: it was inserted, or a row after it removed"

    def faults_without_hash(self, row: Row) -> Iterator[str]:
        """Yield what is wrong with a row that has no hash."""
        if self._first_end is not None and self._first_end < row["started_at"]:
            yield (
                "has no hash, although the chain began before it: it was inserted or changed, or an older version of"
                " this program wrote it"
            )


def _read(uri: str) -> dict[str, Any] | str:
    """Return a row, or why it is none."""
    try:
        row = read_row(uri)
        times = [row[name] for name in ("started_at", "finished_at")]
        if not all(isinstance(time, dt.datetime) and time.tzinfo is not None for time in times):
            raise ValueError("its times are no times")
        if not (isinstance(row["run_id"], str) and isinstance(row["job"], str)):
            raise ValueError("run_id and job are no texts")
        hashes = [*_previous(row), *([] if row.get("sha256") is None else [row["sha256"]])]
        if len(hashes) > _MOST_PREVIOUS or not all(map(_is_hash, hashes)):
            raise ValueError("sha256 and previous are no SHA-256")
        sha256_of(row)
    except _UNREADABLE as error:
        return f"is no audit row ({one_line(error)})"
    return row


def _previous(row: Row) -> Sequence[Any]:
    return row.get("previous") or ()


def _time_fault(row: Row, now: dt.datetime) -> Iterator[str]:
    last = max(row["started_at"], row["finished_at"])
    if last - now > _LATER:
        yield f"states {last}, which is to come: it was inserted, or the clock of its machine was wrong"


def _name_fault(name: str, row: Row) -> Iterator[str]:
    expected = f"{row['run_id']}-{row['job']}{SUFFIX}"
    if name != expected:
        yield f"is the row of another file, {expected}: it was copied or renamed"
