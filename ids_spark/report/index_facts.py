"""What the index of all nights says of each night, read from small tables: `nights/`, `incidents/` and `verdicts/`.

What was read from files that have not changed since is taken from the last index: reading the tables of a hundred
nights takes a second, listing their files a hundredth. A file counts as unchanged by name, size and time of
modification; the newest files are always read, as a second version may be written within the same tick of the clock.
"""

import datetime as dt
import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import ids_spark
from ids_spark.alerts import looks
from ids_spark.alerts.severity import SEVERITIES
from ids_spark.base import json_text
from ids_spark.base.logs import printable
from ids_spark.base.names import date_of
from ids_spark.base.text import one_line, short
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import TABLES
from ids_spark.evaluate import precision
from ids_spark.evaluate.precision import Precision
from ids_spark.lake.filesystem import read_bytes
from ids_spark.lake.listing import TICK_NS, listed
from ids_spark.lake.parquet import read_file
from ids_spark.lake.store import Lake
from ids_spark.report import night_findings
from ids_spark.report.night_findings import Night, Row

log = logging.getLogger(__name__)

LISTED_INCIDENTS: Final = 200
"""Incidents of a night that can be found; open ones first, by rank. A page lists no more of one state than 100."""
MOST_NAMES: Final = 200_000
"""Entities of incidents on the index, those of the newest nights: about 8 MB. Incidents of older nights are counted."""
_UNREADABLE: Final = (SchemaMismatch, OSError, ValueError, TypeError, KeyError, pa.ArrowException)
_VERDICT_COLUMNS: Final = ("event_date", "incident_id", "verdict", "created_at", "run_id")
_READERS: Final = 8
_TEXTS: Final = 3  # reasons of a degraded night
_NIGHT_COLUMNS: Final = (
    "role", "model", "model_version", "run_id", "rows_in", "rows_scored", "rows_quarantined", "rows_imputed",
    "flows_flagged", "flows_allowed", "flows_unknown", "incidents", "incidents_shown", "degraded", "stage",
    "drift_moderate", "drift_significant", "expected_false_alarms", "benign_validation_rows", "threshold_logit",
    "smallest_rate", "false_alarm_rates", "code_version", "data_origin", "run_of_night", "runs_per_night",
)  # fmt: skip
_INCIDENT_COLUMNS: Final = (
    "incident_id", "rank", "state", "shown", "severity", "category", "classes", "sources", "devices", "flows", "score",
    "model", "model_version",
)  # fmt: skip
Name = Annotated[str, Field(max_length=2_000)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class Found(_Facts):
    """An incident of a night.

    Attributes:
        id, rank, state, severity, category: As in `tables.INCIDENTS`; rank is null for those that are not open.
        shown: Whether it is one of those to look at.
        classes: Names of predicted classes.
        sources, devices: Their names as they are stored.
        flows: Its flagged flows.
    """

    id: Name
    rank: int | None
    state: Name
    shown: bool
    severity: Name
    category: Name
    classes: tuple[Name, ...]
    sources: tuple[Name, ...]
    devices: tuple[Name, ...]
    flows: int


class OfModel(_Facts):
    """A model of a night: its name, version, incidents to look at and flagged flows."""

    model: Name
    version: Name
    incidents: int
    flagged: int


class NightFacts(_Facts):
    """What the index says of a night.

    Attributes:
        date: The night.
        files: Hash of names, sizes and times of the files that this was read from; null: to be read again.
        state: See `night_findings.state`.
        degraded: The first reasons why the figures do not describe the whole traffic.
        reasons: Number of such reasons.
        stage: `learning`, `provisional`, `operating`, or null.
        runs: Of a date whose flows are not complete yet, the last run and the number of runs; else null.
        rows_in, predicted, quarantined, flagged: Flows.
        drift_moderate, drift_significant: Features.
        champion: The model whose incidents these are.
        challenger: The other one; null without.
        severities: Incidents to look at by severity, worst first.
        folded: Incidents of other states by state.
        incidents: Those that can be found; null where they are too old, or unread.
        run_id, code_version, data_origin: Of the run that scored the night.
    """

    date: dt.date
    files: Name | None
    state: Name
    degraded: tuple[Name, ...]
    reasons: int
    stage: Name | None
    runs: tuple[int, int] | None
    rows_in: int
    predicted: int
    quarantined: int
    flagged: int
    drift_moderate: int
    drift_significant: int
    champion: OfModel
    challenger: OfModel | None
    severities: dict[Name, int]
    folded: dict[Name, int]
    incidents: tuple[Found, ...] | None
    run_id: Name
    code_version: Name
    data_origin: Name

    @property
    def worst(self) -> str | None:
        """The worst severity of the incidents to look at; None without any."""
        return next(iter(self.severities), None)


class Given(_Facts):
    """A verdict: the night and id of its incident, what it says, when it was given, and in which run."""

    date: dt.date
    id: Name
    verdict: Name
    at: dt.datetime
    run: Name


class VerdictFile(_Facts):
    """The verdicts of a file, and its hash as in `NightFacts`."""

    files: Name | None
    given: tuple[Given, ...]


class Stored(_Facts):
    """The data of an index, for search on the page and for the next index.

    Attributes:
        version: Of the package that wrote it; another version reads everything again.
        nights: Ascending.
        verdicts: By name of the file.
    """

    version: Name
    nights: tuple[NightFacts, ...]
    verdicts: dict[Name, VerdictFile]


@dataclass(frozen=True)
class Files:
    """The files that an index is made of.

    Attributes:
        nights: By date of a night with a row in `nights/`, a hash of its files.
        verdicts: By name of a file of verdicts, a hash of it.
        recent: Hashes of files of which another version may be written in the same tick of the clock.
    """

    nights: Mapping[dt.date, str]
    verdicts: Mapping[str, str]
    recent: frozenset[str]

    def settled(self, key: str) -> str | None:
        """Return a hash by which files are recognised the next time; None for recent ones."""
        return None if key in self.recent else key


def files_of(lake: Lake) -> Files:
    """Return the files of a lake that an index is made of."""
    found: dict[dt.date, list[tuple[str, int, int]]] = {}
    tables = listed(lake, ("nights", "incidents", "verdicts"))
    for name in ("nights", "incidents"):
        for path, version in tables[name].items():
            date = _date_of(path.split("/", 1)[1])
            if date is not None and (date in found or name == "nights"):
                found.setdefault(date, []).append((path, *version))
    below = {path.split("/", 1)[1]: version for path, version in tables["verdicts"].items()}
    given = {name: [(name, *version)] for name, version in below.items() if "/" not in name}
    times = {_hash(files): max(time for *_, time in files) for files in (*found.values(), *given.values())}
    newest = max(times.values(), default=0)
    return Files(
        {date: _hash(files) for date, files in sorted(found.items())},
        {name: _hash(files) for name, files in sorted(given.items())},
        frozenset(key for key, time in times.items() if time >= newest - TICK_NS),
    )


def _hash(files: list[tuple[str, int, int]]) -> str:
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()[:20]


def _date_of(path: str) -> dt.date | None:
    name, _, value = path.partition("/")[0].partition("=")
    try:
        return date_of(value) if name == "event_date" else None
    except ValueError:
        return None


def read(lake: Lake, files: Files, earlier: Stored | None) -> Stored:
    """Return what an index says of a lake; nights and verdicts that cannot be read are left out with a warning.

    Args:
        lake: The lake.
        files: From `files_of`.
        earlier: Of the last index; None: everything is read.
    """
    nights = {night.date: night for night in (earlier.nights if earlier else ()) if night.files is not None}
    nights = {date: nights[date] for date, key in files.nights.items() if date in nights and nights[date].files == key}
    given = {
        name: file
        for name, file in (earlier.verdicts if earlier else {}).items()
        if file.files is not None and files.verdicts.get(name) == file.files
    }
    changed = [date for date in files.nights if date not in nights]
    new = [name for name in files.verdicts if name not in given]
    with ThreadPoolExecutor(_READERS) as pool:
        for night in pool.map(lambda date: _night(lake, date, files.settled(files.nights[date])), changed):
            if night is not None:
                nights[night.date] = night
        for name, file in zip(new, pool.map(lambda name: _verdicts(lake, name, files), new), strict=True):
            given[name] = file
    log.info("index nights=%d read=%d verdict_files=%d read=%d", len(nights), len(changed), len(given), len(new))
    ascending = _bounded([nights[date] for date in sorted(nights)])
    return Stored(version=ids_spark.__version__, nights=tuple(ascending), verdicts=dict(sorted(given.items())))


def precision_of(stored: Stored) -> Precision:
    """Return what people decided about the incidents on the index; as `evaluate.precision`."""
    incidents = {
        night.date: [
            {"incident_id": i.id, "category": i.category, "state": i.state, "shown": i.shown,
             "data_origin": night.data_origin}
            for i in night.incidents
        ]
        for night in stored.nights if night.incidents is not None
    }  # fmt: skip
    given = (
        {"event_date": row.date, "incident_id": row.id, "verdict": row.verdict, "created_at": row.at,
         "run_id": row.run, "until": None, "category": None, "entities": (), "learned": ()}
        for file in stored.verdicts.values() for row in file.given
    )  # fmt: skip
    return precision.decided(incidents, given)


def _bounded(nights: Sequence[NightFacts]) -> list[NightFacts]:
    """Return nights without the incidents of those beyond `MOST_NAMES`, counted from the newest."""
    kept, names = [], 0
    for night in reversed(nights):
        names += sum(1 + len(each.sources) + len(each.devices) for each in night.incidents or ())
        kept.append(night if names <= MOST_NAMES else night.model_copy(update={"incidents": None}))
    return kept[::-1]


def _night(lake: Lake, date: dt.date, files: str | None) -> NightFacts | None:
    try:
        return _facts(lake, date, files)
    except _UNREADABLE as error:
        log.warning("not on the index: night=%s error=%s", date, one_line(error))
        return None


def _verdicts(lake: Lake, name: str, files: Files) -> VerdictFile:
    try:
        rows = read_file(lake.uri(f"verdicts/{name}"), TABLES["verdicts"], _VERDICT_COLUMNS, {}).to_pylist()
        given = tuple(
            Given(date=row["event_date"], id=_text(row["incident_id"]), verdict=_text(row["verdict"]),
                  at=row["created_at"], run=_text(row["run_id"]))
            for row in rows
        )  # fmt: skip
    except _UNREADABLE as error:
        log.warning("not on the index: verdicts=%s error=%s", name, one_line(error))
        return VerdictFile(files=None, given=())
    return VerdictFile(files=files.settled(files.verdicts[name]), given=given)


def _facts(lake: Lake, date: dt.date, files: str | None) -> NightFacts | None:
    nights = _rows(lake, "nights", _NIGHT_COLUMNS, date)
    rows = _rows(lake, "incidents", _INCIDENT_COLUMNS, date)
    night = Night(date, rows, (), {date: nights})
    row = night.of(date)
    if row is None:
        log.warning("not on the index: night=%s, as nights/ has no row of a champion", date)
        return None
    listed = [*night.shown, *night.beyond, *(each for rows in night.folded.values() for each in rows)]
    challenger, reasons = night.challenger, row["degraded"] or ()
    return NightFacts(
        date=date,
        files=files,
        state=night_findings.state(night),
        degraded=tuple(_text(each["text"]) for each in reasons[:_TEXTS]),
        reasons=len(reasons),
        stage=row["stage"],
        runs=(row["run_of_night"], row["runs_per_night"]) if looks.partial(row) else None,
        rows_in=row["rows_in"] or 0,
        predicted=night.predicted,
        quarantined=row["rows_quarantined"] or 0,
        flagged=row["flows_flagged"] or 0,
        drift_moderate=row["drift_moderate"] or 0,
        drift_significant=row["drift_significant"] or 0,
        champion=_of_model(row),
        challenger=None if challenger is None else _of_model(challenger),
        severities=night_findings.severities(night.shown),
        folded={state: len(rows) for state, rows in night.folded.items()},
        incidents=tuple(_found(each) for each in listed[:LISTED_INCIDENTS]),
        run_id=_text(row["run_id"]),
        code_version=_text(row["code_version"]),
        data_origin="measured" if row["data_origin"] == "measured" else "synthetic",
    )


def _rows(lake: Lake, name: str, columns: Sequence[str], date: dt.date) -> list[Row]:
    rows: list[Row] = lake.read(name, columns, event_date=date).to_pylist()
    return rows


def _of_model(row: Row) -> OfModel:
    return OfModel(
        model=_text(row["model"]),
        version=_text(row["model_version"]),
        incidents=row["incidents_shown"] or 0,
        flagged=row["flows_flagged"] or 0,
    )


def _found(row: Row) -> Found:
    return Found(
        id=_text(row["incident_id"]),
        rank=row["rank"],
        state=_text(row["state"]),
        shown=bool(row["shown"]),
        severity=_text(row["severity"] or "unknown"),
        category=_text(row["category"]),
        classes=tuple(_text(each["class_name"]) for each in row["classes"] or ()),
        sources=tuple(_text(each["name"]) for each in row["sources"] or ()),
        devices=tuple(_text(each["name"]) for each in row["devices"] or ()),
        flows=row["flows"] or 0,
    )


def _text(value: Any) -> str:
    """Return a value as printable text of limited length."""
    return printable(short("" if value is None else str(value)))[:2_000]


def stored_in(uri: str, start: str, end: str) -> Stored | None:
    """Return the data of an index that was written before; None without one, or if it is of another version.

    Args:
        uri: Of the page.
        start: Text before its data.
        end: Text after it.
    """
    try:
        content = read_bytes(uri).decode()
        data = content.split(start, 1)[1].split(end, 1)[0]
        found = Stored.model_validate(unpacked(json_text.loads(data)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ValidationError) as error:
        log.warning("the last index is not used: page=%s error=%s", uri, one_line(error))
        return None
    return found if found.version == ids_spark.__version__ else None


def packed(stored: Stored) -> dict[str, Any]:
    """Return data as JSON values in which each name of an entity or class is written once.

    An incident is [id, rank, state, shown, severity, category, classes, sources, devices, flows], names by place.
    """
    places: dict[str, int] = {}

    def of(names: Sequence[str]) -> list[int]:
        return [places.setdefault(name, len(places)) for name in names]

    nights = []
    for night in stored.nights:
        fields = night.model_dump(mode="json", exclude={"incidents"})
        incidents = None
        if night.incidents is not None:
            incidents = [
                [i.id, i.rank, *of([i.state]), i.shown, *of([i.severity, i.category]), of(i.classes), of(i.sources),
                 of(i.devices), i.flows]
                for i in night.incidents
            ]  # fmt: skip
        nights.append({**fields, "incidents": incidents})
    verdicts = {name: file.model_dump(mode="json") for name, file in stored.verdicts.items()}
    return {"version": stored.version, "names": list(places), "nights": nights, "verdicts": verdicts}


def unpacked(data: Any) -> dict[str, Any]:
    """Return what `packed` was given, not validated.

    Raises:
        ValueError, LookupError, TypeError: it is something else.
    """
    names = data["names"]

    def of(places: Sequence[int]) -> list[str]:
        return [names[place] for place in places]

    def incident(row: Sequence[Any]) -> dict[str, Any]:
        identity, rank, state, shown, severity, category, classes, sources, devices, flows = row
        return {
            "id": identity, "rank": rank, "state": names[state], "shown": shown, "severity": names[severity],
            "category": names[category], "classes": of(classes), "sources": of(sources), "devices": of(devices),
            "flows": flows,
        }  # fmt: skip

    nights = [
        {**night, "incidents": None if night["incidents"] is None else [incident(row) for row in night["incidents"]]}
        for night in data["nights"]
    ]
    return {"version": data["version"], "nights": nights, "verdicts": data["verdicts"]}


def counts_of(nights: Sequence[NightFacts]) -> Counter[str]:
    """Return incidents to look at by severity, worst first."""
    found: Counter[str] = Counter()
    for night in nights:
        found.update(night.severities)
    order: dict[str, int] = {name: i for i, name in enumerate(SEVERITIES)}
    return Counter(dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order)))))
