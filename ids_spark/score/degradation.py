"""Reasons why a night is degraded: its figures do not describe the whole traffic of that date.

A degraded night is committed like any other. Its reasons stand in `nights/`, first on its page and in the audit, and
the job ends with the exit code for it.
"""

import contextlib
import datetime as dt
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

import pyarrow.fs as pafs

from ids_spark.alerts import looks, quarantined
from ids_spark.base.logs import printable
from ids_spark.base.text import shown
from ids_spark.config.score import ScoreConfig
from ids_spark.ingest import files
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake.filesystem import absolute, entries_in, exists, is_file, resolve
from ids_spark.lake.store import Lake
from ids_spark.report.packet_counts import kinds
from ids_spark.score import night_files
from ids_spark.score.identifiers import PLAIN, Identifiers
from ids_spark.score.night_files import NightFile, NightMissing, NightSource
from ids_spark.score.night_packets import packets_of
from ids_spark.score.night_tasks import NightCounts

MISSING: Final = "missing"
"""Reason of a night without flow logs."""
SHARE_ON_PAGE: Final = 0.01
"""Share of refused rows that is never usual, however many the nights before had."""
_TIMES_USUAL: Final = 2.0
FEWEST_NIGHTS: Final = 3
"""Earlier nights with flows; from fewer, no usual number of flows is computed."""
_NAMED: Final = 3
_OPENED: Final = 20  # files beside the folders of nights
Row = dict[str, Any]


def was_scored(lake: Lake, date: dt.date) -> bool:
    """Return whether the lake holds the result of flow logs of a date."""
    return any(row["files"] for row in lake.read("nights", ["files"], event_date=date).to_pylist())


def empty_night(config: ScoreConfig, event_date: dt.date) -> NightSource:
    """Return a night without files.

    Raises:
        NightMissing: the folder of all nights does not exist.
    """
    root = absolute(config.flow_logs or "").rstrip("/")
    if not exists(root):
        raise NightMissing(f"score.flow_logs is {root}, which does not exist; expected folders event_date=YYYY-MM-DD")
    origin = "synthetic" if exists(f"{root}/{SYNTHETIC_MARK}") else "measured"
    return NightSource(event_date, (), (), (), origin)


def similar_folders(config: ScoreConfig, event_date: dt.date) -> list[str]:
    """Return the folders of flow logs that hold the date of a night in another spelling, such as `dt=20261124`."""
    root = absolute(config.flow_logs or "")
    if is_file(root):
        return []
    fs, path = resolve(root)
    names = [name for name, kind in entries_in(root).items() if kind == pafs.FileType.Directory]
    similar = [name for name in names if event_date in _dates_in(unquote(name))]
    for year, month, day in (("%Y", "%m", "%d"), ("%Y", "%-m", "%-d")):
        nested = f"{event_date:year={year}/month={month}/day={day}}"
        if nested not in similar and fs.get_file_info(f"{path}/{nested}").type == pafs.FileType.Directory:
            similar.append(nested)
    return sorted(name for name in similar if name != f"event_date={event_date}")


def _dates_in(name: str) -> list[dt.date]:
    """Return the dates in the name of a folder: year, month and day, or day, month and year, with any separators."""
    found = re.findall(r"(\d{4})[^\d]?(\d{1,2})[^\d]?(\d{1,2})", name)
    found += [parts[::-1] for parts in re.findall(r"(\d{1,2})[^\d](\d{1,2})[^\d](\d{4})", name)]
    dates = []
    for year, month, day in found:
        with contextlib.suppress(ValueError):
            dates.append(dt.date(int(year), int(month), int(day)))
    return dates


def other_files(config: ScoreConfig, event_date: dt.date, identifiers: Identifiers) -> list[str]:
    """Return notes on the files in the folder of a night without flow logs, such as hidden ones: names and reasons.

    Packet captures and logs of other programs are named also if they lie in the folder of all nights.
    """
    root = absolute(config.flow_logs or "").rstrip("/")
    found = night_files.listed_files(f"{root}/event_date={event_date}", root, identifiers)
    beside = [replace(file, name=identifiers.file(file.name)) for file in _no_flows(root)]
    return files.unread_notes([*found, *beside], _NAMED)


def _no_flows(root: str) -> list[files.File]:
    """Return captures and logs of other programs among the first files in a folder, or the one file that it is."""
    uris = [root]
    if not is_file(root):
        uris = [f"{root}/{name}" for name, kind in entries_in(root).items() if kind == pafs.FileType.File]
    return [file for file in map(files.single, uris[:_OPENED]) if file.reason in files.NO_FLOWS]


def missing(text: str) -> Row:
    """Return the reason of a night without flow logs; `text` is from `not_found`."""
    return _reason(MISSING, text)


def not_found(config: ScoreConfig, date: dt.date, identifiers: Identifiers = PLAIN) -> str:
    """Return a sentence on a night without flow logs: what was found instead, and what to do."""
    text = (
        f"{absolute(config.flow_logs or '')}/event_date={date} holds no flow logs; expected parquet files of that night"
    )
    return "; ".join([text, *similar_notes(config, date, identifiers), *other_files(config, date, identifiers)])


def similar_notes(config: ScoreConfig, date: dt.date, identifiers: Identifiers = PLAIN) -> list[str]:
    """Return a note on folders that hold the date in another spelling, if there are any; they are not read."""
    similar = [identifiers.folder(name) for name in similar_folders(config, date)]
    return [f"found {shown(similar, _NAMED)}, expected event_date={date}; rename it"] if similar else []


def usual_refused(date: dt.date, nights: Mapping[dt.date, Sequence[Mapping[str, Any]]]) -> float:
    """Return the highest share of refused rows that is usual.

    Twice the median share of the nights before `date` that have flows, at least `quarantined.FIRST_SHARE`, which holds
    if they are too few, and at most `SHARE_ON_PAGE`, so that many nights of more and more refused rows do not make them
    usual.
    """
    shares = [refused / rows for refused, rows in _refused_of(date, nights)]
    usual = _TIMES_USUAL * statistics.median(shares) if len(shares) >= FEWEST_NIGHTS else 0.0
    return min(max(usual, quarantined.FIRST_SHARE), SHARE_ON_PAGE)


def refused_before(date: dt.date, nights: Mapping[dt.date, Sequence[Mapping[str, Any]]]) -> tuple[int, int]:
    """Return the refused rows, and all rows, of the nights before `date`.

    Of each night at most `SHARE_ON_PAGE` of its rows count, so that bad nights do not make many refused rows usual.
    """
    found = _refused_of(date, nights)
    return sum(min(refused, int(SHARE_ON_PAGE * rows)) for refused, rows in found), sum(rows for _, rows in found)


def _refused_of(date: dt.date, nights: Mapping[dt.date, Sequence[Mapping[str, Any]]]) -> list[tuple[int, int]]:
    """Return refused rows and all rows of each night before `date` that has flows."""
    return [
        (row.get("rows_quarantined") or 0, row["rows_in"])
        for other, rows in nights.items()
        for row in rows
        if other < date and row["role"] == "champion" and row["rows_in"]
    ]


def reasons(
    source: NightSource,
    counts: NightCounts,
    before: Mapping[dt.date, Sequence[Mapping[str, Any]]],
    config: ScoreConfig,
    alike: float = 0.0,
    partial: bool = False,
) -> list[Row]:
    """Return why a night with flow logs is degraded, most important first; empty for a usual night.

    Args:
        source: The night.
        counts: Of all its tasks.
        before: Rows of `nights/` of earlier nights by date.
        config: `volume_factor`, `max_rejected_share` and `max_invisible_share`.
        alike: Refused rows that all entities have alike, from `quarantined.alike`.
        partial: Whether flows of the date are still to come, so that few are no fault.

    Returns:
        `reason`, a name, and `text`, a sentence for people, as in the column `degraded` of `nights/`.
    """
    rows, refused = counts.rows_read, counts.quarantined.total()
    found = []
    if not counts.rows_scored:
        text = f"none of {rows:,} flow(s) was scored{' as it is' if counts.rows_imputed else ''}{_by_reason(counts)}"
        if counts.rows_imputed:
            text += f"; {counts.rows_imputed:,} were scored with one feature at its benign median"
        found.append(_reason("nothing_scored", text))
    elif refused > config.max_rejected_share * rows:
        share = f"{refused:,} of {rows:,} flows ({refused / rows:.1%}) were refused"
        limit = f"more than score.max_rejected_share ({config.max_rejected_share:.1%})"
        found.append(_reason("rows_refused", f"{share}, {limit}{_by_reason(counts)}"))
    if counts.rows_scored and alike > usual_refused(source.event_date, before) * rows:
        text = (
            f"devices or sources have faulty flows alike, {refused:,} of {rows:,} ({refused / rows:.1%}): look at the"
        )
        found.append(_reason("rows_refused_alike", f"{text} exporter of the flow logs{_by_reason(counts)}"))
    unknown = [f"{file.name} ({file.reason})" for file in source.flow_files if _rows_unknown(file)]
    if unknown:
        text = f"{len(unknown):,} of {len(source.flow_files):,} file(s) could not be read, so their flows are unknown"
        found.append(_reason("files_unreadable", f"{text}: {shown(unknown, _NAMED)}"))
    lost = [file.name for file in source.flow_files if file.rows and not counts.scored_by_file[file.name]]
    if lost and counts.rows_scored:
        text = f"no flow of {len(lost):,} file(s) of {len(source.flow_files):,} was scored"
        found.append(_reason("files_not_scored", f"{text}: {shown(lost, _NAMED)}"))
    packets = packets_of(source)
    if packets is not None and packets.invisible_share > config.max_invisible_share:
        row = packets.row()
        text = f"no model can see {packets.invisible_share:.1%} of {packets.seen:,} packet(s), more than"
        text += f" score.max_invisible_share ({config.max_invisible_share:.1%})"
        found.append(_reason("packets_invisible", f"{text}: {kinds(row['invisible'], packets.seen)}"))
    usual = usual_flows(source.event_date, before)
    if usual is not None and not usual / config.volume_factor <= rows <= usual * config.volume_factor:
        few = rows < usual
        if few and partial:
            return found
        text = f"{rows:,} flow(s), far {'fewer' if few else 'more'} than usual: the median of the nights before is"
        found.append(_reason("few_flows" if few else "many_flows", f"{text} {usual:,.0f}"))
    return found


def usual_flows(date: dt.date, nights: Mapping[dt.date, Sequence[Mapping[str, Any]]]) -> float | None:
    """Return the median number of flows of the nights before `date` that have any; None if they are too few."""
    found = [
        row["rows_in"]
        for other, rows in nights.items()
        for row in rows
        if other < date and row["role"] == "champion" and row["rows_in"] and not looks.partial(row)
    ]
    return statistics.median(found) if len(found) >= FEWEST_NIGHTS else None


def _rows_unknown(file: NightFile) -> bool:
    """Return whether a file may hold flows that could not be counted."""
    return file.reason is not None and not file.rows and file.reason != "no_rows"


def challenger(reason: str) -> Row:
    """Return the reason of a night that the champion scored alone, although there is a challenger.

    Args:
        reason: Why the challenger could not be used.
    """
    return _reason("challenger_refused", f"the challenger was not used: {reason}")


def _reason(name: str, text: str) -> Row:
    return {"reason": name, "text": printable(text)}


def _by_reason(counts: NightCounts) -> str:
    found = ", ".join(f"{reason} {n:,}" for reason, n in counts.quarantined.most_common(_NAMED))
    return f": {found}" if found else ""
