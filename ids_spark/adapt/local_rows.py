"""From the flow logs of a site's own nights to `flows/split=local`: benign rows for training and thresholds.

The logs are found and checked as those of a scored night are, and pass the same shuffle as the rows of the data set:
equal rows are adjacent, and all but the first of them are marked.
"""

import contextlib
import datetime as dt
import logging
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import SparkContext

from ids_spark.adapt.local_caps import Caps, caps_of
from ids_spark.alerts.evidence import entity_keys
from ids_spark.base.arrays import Ids, Ints, Keys
from ids_spark.base.errors import NotReconciled
from ids_spark.base.report import Report, combined_origin
from ids_spark.base.spark_tasks import balanced, run_each
from ids_spark.base.text import shown
from ids_spark.config.score import ScoreConfig
from ids_spark.config.settings import Config
from ids_spark.dataset.features import FEATURE_SCHEMAS, RELEASE_39, FeatureSchema, SchemaMismatch
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.features.local_split import Survey, survey
from ids_spark.ingest import row_hash, shuffle
from ids_spark.ingest.dedup import marks_of
from ids_spark.ingest.shuffle import IngestCounts, Record, ShufflePlan
from ids_spark.ingest.sources import scoring_tasks
from ids_spark.lake.filesystem import absolute, copy_all, exists, files_in, make_folder, resolve, sizes_in, write_json
from ids_spark.lake.parquet import SUFFIX, keep_only, open_part, part_name, part_writer, write_part
from ids_spark.lake.store import TABLE_FACTS, Lake
from ids_spark.score import night_files, night_reader
from ids_spark.score.identifiers import Identifiers, identifiers_of
from ids_spark.score.night_files import NightMissing, NightRowGroup, NightSource, Purpose
from ids_spark.score.night_reader import NightRows, ReadSpec

log = logging.getLogger(__name__)

TABLE: Final = "flows/split=local"
QUARANTINE_TABLE: Final = "quarantine/job=ingest"
SPLIT: Final = "local"
_BENIGN: Final = CLASS19[BENIGN_ID]
_CAPTURE: Final = "capture_file"
_JOB: Final = "jobs/ingest.py with ingest.local"
FILE_START: Final = "local"
"""Start of the names of those files of the quarantine that hold rows of nights."""
_OFFICIAL_WINDOWS: Final = (10, 100)
"""Packets in a window of the official rows of the second release."""
_PURPOSE: Final = Purpose(
    "the release of the data set in this lake",
    "Nothing was ingested",
    "use flow logs of that release, or a lake with the other release of the data set",
)


@dataclass(frozen=True)
class _Place:
    """A row group of a night.

    Attributes:
        date: The night.
        row_group: The row group.
        offset: Added to row numbers of flows of a capture, which may have several files.
        before: Rows of the capture in files before this one; 0 where the file does not say that it is of one capture.
        rows: Of this capture, or of this file.
    """

    date: dt.date
    row_group: NightRowGroup
    offset: int = 0
    before: int = 0
    rows: int = 0

    @property
    def file(self) -> str:
        """The file below the folder of the logs."""
        return f"event_date={self.date}/{self.row_group.row_group.name}"

    @property
    def file_hash(self) -> int:
        """A hash of the file."""
        return zlib.crc32(self.file.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class _Task:
    """What every task needs; small, as it is sent with each.

    Attributes:
        read_spec: Columns to read.
        entities: Columns that name a device, in order of preference.
        identifiers: What of the flow logs identifies somebody, and the key of its pseudonyms.
        caps: Which rows are kept.
        plan: Of the shuffle.
    """

    read_spec: ReadSpec
    entities: tuple[str, ...]
    identifiers: Identifiers
    caps: Caps
    plan: ShufflePlan


def write_local(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    config: Config,
    run_id: str,
    data_set: Mapping[str, Any] | None = None,
) -> Report:
    """Stage the rows of chosen nights as `flows/split=local`, and rows that cannot be used in the quarantine.

    Args:
        spark_context: Its executors read and write.
        lake: Its flows give the release that the logs must have; a lake without flows takes that of the logs.
        staged: Returns the URI of the staged version of a table.
        config: `ingest.local…` choose nights and rows; `score.…` names columns of flow logs and pseudonyms; the
            columns of `alerts.entities` name devices.
        run_id: Of the run.
        data_set: Facts of flows of the data set that the same run has staged; default: those of the lake.

    Returns:
        The report, which lists the staged tables.

    Raises:
        NightMissing: the logs hold none of the nights, or no flow that can be used.
        SchemaMismatch: the logs of a night are of another release than the flows of the data set.
        KeyUnusable: the flow logs have identifiers, and there is no key.
    """
    score = _reading(config)
    identifiers = identifiers_of(score)
    known = _facts_of(lake) if data_set is None else data_set
    expected = None if known is None else FEATURE_SCHEMAS[known["feature_schema"]]
    nights = _nights(score, _dates(config), expected, identifiers)
    schema, sources = nights
    for source in sources:
        identifiers.require_key(source.columns, f"{score.flow_logs}/event_date={source.event_date}", score)
    places = _places(sources)
    rows = sum(source.rows for source in sources)
    origin = combined_origin(*(source.data_origin for source in sources))
    ingest = config.ingest
    buckets = {SPLIT: max(1, -(-min(rows, ingest.local_rows) // ingest.rows_per_file))}
    plan = ShufflePlan(
        *(schema, buckets, staged("flows"), staged(QUARANTINE_TABLE), run_id, origin, ingest.rows_per_file, rows),
        origin="local",
    )
    spec = ReadSpec(schema, schema.features, score.pass_through, score.event_time, run_id)
    entities = tuple(name for name in config.alerts.entities if name in score.pass_through)
    task = _Task(spec, entities, identifiers, Caps(), plan)
    items = _items(spark_context, places)
    task = replace(task, caps=_caps(spark_context, items, task, config, rows))
    counts = shuffle.shuffled(spark_context, list(enumerate(items)), lambda item: _scatter(*item, task), plan)
    counts.reconcile()
    if counts.read.total() != rows:
        raise NotReconciled(f"{rows} rows in the files of the nights, {counts.read.total()} read")
    if not counts.flows.total():  # an empty table would replace good local rows
        reasons = shown([f"{n} {reason}" for (*_, reason), n in counts.quarantined.most_common()])
        raise NightMissing(
            f"{score.flow_logs}: none of the {rows} flows of the nights can be used ({reasons}). Nothing was"
            " ingested; correct the flow logs, or choose other nights"
        )
    if data_set is None:
        copy_other_quarantine(lake, plan.quarantine)
    found = survey(spark_context, files_in(staged(TABLE), SUFFIX))
    lengths = _window_lengths(sources)
    facts = {"run_id": run_id, "feature_schema": schema.name, "data_origin": origin}
    write_json(
        f"{staged(TABLE)}/{TABLE_FACTS}",
        facts | _rows_facts(found) | {"window_lengths": lengths, "rows_left_out": counts.left_out.total()},
    )
    report = _report(sources, counts, found, config)
    report.notes += identifiers.notes()
    report.feature_schema, report.data_origin = schema.name, origin
    if known is not None and schema == RELEASE_39 and lengths:
        report.notes += _window_notes(lengths, known.get("window"))
    log.info("local rows=%d nights=%d devices=%d", found.rows.total(), len(found.dates), len(found.devices))
    return report


def keep_local(lake: Lake, staged: Callable[[str], str], schema: str, window: int | None) -> list[str]:
    """Copy the local rows of the lake beside flows of the data set that are being replaced, if they are of one kind.

    Args:
        lake: Holds the local rows, or none.
        staged: Returns the URI of the staged version of a table.
        schema: Name of the feature schema of the new flows.
        window: Packets of the windows to which their rows are joined; None: as they are.

    Returns:
        Notes on what was kept, or dropped and why; none if the lake has no local rows.
    """
    if not exists(lake.uri(f"{TABLE}/{TABLE_FACTS}")):
        return []
    facts, before = lake.facts(TABLE, _JOB), _facts_of(lake)
    old = before.get("window") if before is not None else None
    nights = f"{facts['rows'][SPLIT]} local rows of {shown(sorted(facts['dates']))}"
    again = f"ingest them again with {_JOB}"
    if facts["feature_schema"] != schema:
        return [f"{nights} were removed: they are of {facts['feature_schema']}, the data set now of {schema}"]
    if before is not None and old != window:
        return [f"{nights} were removed: the windows of the data set have another length now; {again}"]
    _copy(lake.uri(TABLE), staged(TABLE), lambda _: True)
    _copy(lake.uri(QUARANTINE_TABLE), staged(QUARANTINE_TABLE), lambda name: name.startswith(f"{FILE_START}-"))
    log.info("kept %s", nights)
    return [f"{nights} are kept"]


def copy_other_quarantine(lake: Lake, target: str) -> None:
    """Copy the files of the quarantine with rows of the data set to a folder."""
    _copy(lake.uri(QUARANTINE_TABLE), target, lambda name: not name.startswith(f"{FILE_START}-"))


def rewrite(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    change: Callable[[pa.Table], pa.Table],
    run_id: str,
) -> Survey:
    """Stage `flows/split=local` with some of its rows, or with other reasons to leave rows out.

    Args:
        spark_context: Its executors read and write.
        lake: Holds the table.
        staged: Returns the URI of the staged version of a table.
        change: Returns the rows of a file to write, in their order, as `tables.flows_contract`; runs in tasks.
        run_id: Of the run.

    Returns:
        What the rows of the new table are.

    Raises:
        TableMissing: there are no local rows.
    """
    facts = lake.facts(TABLE, _JOB)
    schema, target = FEATURE_SCHEMAS[facts["feature_schema"]], staged(TABLE)

    def write(numbered: tuple[int, str]) -> str:
        index, uri = numbered
        with open_part(uri) as file:
            table = file.read(file.schema.names)
            metadata = {key.decode(): value.decode() for key, value in (file.schema.metadata or {}).items()}
        table = change(table.replace_schema_metadata()).combine_chunks()
        columns = [table[name].to_numpy() for name in schema.features]
        marks = marks_of(table["row_key"].to_numpy(), table["label19"].to_numpy(), columns)
        place = table.column_names.index("duplicate")
        table = table.set_column(place, table.field("duplicate"), pa.array(marks.duplicate))
        groups = (table.slice(i, shuffle.ROW_GROUP_ROWS) for i in range(0, len(table), shuffle.ROW_GROUP_ROWS))
        name = part_name(index)
        own = {key: value for key, value in metadata.items() if key.startswith("ids_spark.")}
        complete = shuffle.complete_columns(table.schema)
        write_part(target, name, groups, table.schema, own, shuffle.TEXT_COLUMNS, complete)
        return name

    uris = files_in(lake.uri(TABLE), SUFFIX)
    keep_only(run_each(spark_context, list(enumerate(uris)), write), target)
    found = survey(spark_context, files_in(target, SUFFIX))
    write_json(f"{target}/{TABLE_FACTS}", dict(facts) | {"run_id": run_id} | _rows_facts(found))
    return found


def _rows_facts(found: Survey) -> dict[str, Any]:
    used, left_out = found.rows.total(), found.left_out.total()
    return {
        "rows": {SPLIT: used + left_out},
        "dates": {date: found.rows[date] for date in found.dates},
        "devices": len(found.devices),
        "source_files": len(found.source_files),
        "left_out": dict(sorted(found.left_out.items())),
    }


def _reading(config: Config) -> ScoreConfig:
    """Return the settings of scoring, with the columns of the logs that local rows keep."""
    score = config.score
    wanted = dict.fromkeys((*config.alerts.entities, score.event_time, _CAPTURE))
    chosen = tuple(name for name in wanted if name in score.pass_through)
    return score.model_copy(update={"flow_logs": config.ingest.local, "pass_through": chosen})


def _facts_of(lake: Lake) -> Mapping[str, Any] | None:
    """Return the facts of the flows of the data set; None if the lake has none."""
    return lake.facts("flows", "jobs/ingest.py") if exists(lake.uri(f"flows/{TABLE_FACTS}")) else None


def _dates(config: Config) -> list[dt.date]:
    """Return the chosen nights, oldest first.

    Raises:
        NightMissing: there is none, or a night that was asked for has no folder.
    """
    ingest, root = config.ingest, absolute(config.ingest.local or "")
    found = night_files.dates_in(root)
    if not found:
        raise NightMissing(f"ingest.local is {root}, which holds no folder event_date=YYYY-MM-DD")
    if absent := sorted(set(ingest.local_dates) - set(found)):
        raise NightMissing(
            f"ingest.local_dates names {shown([str(date) for date in absent])}; {root} has no such folder, only"
            f" {found[0]} to {found[-1]}"
        )
    chosen = [date for date in found if not ingest.local_dates or date in ingest.local_dates]
    return chosen if ingest.local_nights is None else chosen[-ingest.local_nights :]


def _nights(
    score: ScoreConfig, dates: Sequence[dt.date], schema: FeatureSchema | None, identifiers: Identifiers
) -> tuple[FeatureSchema, list[NightSource]]:
    """Find the nights; without a schema, that of the logs is taken.

    Raises:
        NightMissing: no night has a flow.
        SchemaMismatch: a night has no file of the schema.
    """
    refusals = []
    for each in [schema] if schema is not None else FEATURE_SCHEMAS.values():
        try:
            found = [night_files.find_night(score, date, each, each.features, _PURPOSE, identifiers) for date in dates]
        except SchemaMismatch as error:
            refusals.append(error)
            continue
        sources = [source for source in found if source is not None]
        if not sum(source.rows for source in sources):
            break
        return each, sources
    if refusals:
        raise refusals[0]
    chosen = shown([str(date) for date in dates])
    raise NightMissing(f"{score.flow_logs}: the nights {chosen} hold no flow as parquet; choose other nights")


def _places(sources: Sequence[NightSource]) -> list[_Place]:
    """Return every row group; a flow of a capture is numbered across the files of the capture, oldest night first."""
    of_file = {
        (source.event_date, file.name): ("", 0) if file.extraction is None else
        (file.extraction.capture, file.extraction.piece)
        for source in sources
        for file in source.files
    }  # fmt: skip
    places = [_Place(source.event_date, each) for source in sources for each in source.row_groups]

    def order(place: _Place) -> tuple[str, dt.date, int, str, int]:
        own = place.row_group.row_group
        capture, piece = of_file[place.date, own.name]
        return capture, place.date, piece, own.name, own.first_row

    total, first = Counter[str](), dict[tuple[dt.date, str], int]()
    rows = Counter[tuple[dt.date, str]]()
    for place in sorted(places, key=order):
        key = (place.date, place.row_group.row_group.name)
        rows[key] += place.row_group.row_group.rows
        if _CAPTURE in place.row_group.pass_through:
            first.setdefault(key, total[of_file[key][0]])
            total[of_file[key][0]] += place.row_group.row_group.rows

    def numbered(place: _Place) -> _Place:
        key = (place.date, place.row_group.row_group.name)
        offset, capture = first.get(key, 0), of_file[key][0]
        if capture and key in first:
            return replace(place, offset=offset, before=offset, rows=total[capture])
        return replace(place, offset=offset, rows=rows[key])

    return [numbered(each) for each in places]


def _items(spark_context: SparkContext, places: Sequence[_Place]) -> list[list[_Place]]:
    tasks = scoring_tasks([place.row_group.row_group for place in places], spark_context.defaultParallelism)
    return balanced(places, tasks, lambda place: place.row_group.row_group.rows + 1)


def _caps(spark_context: SparkContext, items: Sequence[list[_Place]], task: _Task, config: Config, rows: int) -> Caps:
    """Return which rows are kept; reads only the columns of devices, and nothing if no limit can be reached."""
    ingest = config.ingest
    if rows <= min(ingest.local_rows_per_device, ingest.local_rows):
        return Caps()
    narrow = replace(task, read_spec=replace(task.read_spec, features=(), pass_through=task.entities))

    def rows_of(places: list[_Place]) -> Iterator[tuple[int, Ints, Keys]]:
        for place in places:
            own, group = place.row_group.row_group, place.row_group
            if group.reason is not None:
                continue
            entities = tuple(name for name in group.pass_through if name in narrow.entities)
            if not entities:
                numbers = np.arange(own.first_row, own.first_row + own.rows)
                yield place.file_hash, numbers, np.zeros(own.rows, dtype=np.int64)
                continue
            only = replace(group, pass_through=entities, nested_time=None)
            for read in night_reader.read_row_group(only, narrow.read_spec, narrow.identifiers):
                yield place.file_hash, read.source_rows, _Devices.of(read.pass_through, narrow).row_keys

    return caps_of(spark_context, items, rows_of, rows, ingest.local_rows_per_device, ingest.local_rows)


@dataclass(frozen=True)
class _Devices:
    """Devices of some flows.

    Attributes:
        names: Name of each device, or its pseudonym.
        codes: Device of each flow, -1 without one, shape (rows,).
    """

    names: pa.Array
    codes: Ids

    @staticmethod
    def of(columns: pa.Table, task: _Task) -> "_Devices":
        """Return the devices that the first of the columns with a value names; empty text is none."""
        codes = np.full(len(columns), -1, dtype=np.int32)
        parts, count = [pa.array([], pa.string())], 0
        for name in task.entities:
            column = columns[name].combine_chunks()
            if not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            found = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            plain = column.dictionary.cast(pa.string())
            empty = np.asarray(pc.fill_null(pc.equal(plain, ""), True))
            free = (codes < 0) & (found >= 0) & ~np.append(empty, True)[found]
            codes[free] = found[free] + count
            parts.append(task.identifiers.values(name, plain))
            count += len(plain)
        return _Devices(pa.concat_arrays(parts), codes)

    @property
    def of_rows(self) -> pa.Array:
        """Name of the device of each flow, null without one."""
        return self.names.take(pa.array(self.codes, mask=self.codes < 0))

    @property
    def row_keys(self) -> Keys:
        """Key of the device of each flow, 0 without one."""
        names = self.names.to_pylist()
        keys: Keys = np.append(entity_keys([SPLIT] * len(names), names), 0)[self.codes]
        return keys


def _scatter(index: int, places: Sequence[_Place], task: _Task) -> Iterator[tuple[int, Record]]:
    """Yield the rows of a task for their buckets, and its counts; refused rows go straight to the quarantine."""
    counts = IngestCounts()
    metadata = {"ids_spark.data_origin": task.plan.data_origin, "ids_spark.feature_schema": task.plan.schema.name}
    with contextlib.ExitStack() as open_files:
        refuse: Callable[[pa.Table], None] | None = None
        for place in places:
            for rows in night_reader.read_row_group(place.row_group, task.read_spec, task.identifiers):
                if len(rows.refused) and refuse is None:
                    refuse = open_files.enter_context(_quarantine(index, task, metadata, counts))
                if len(rows.refused) and refuse is not None:
                    refuse(_refused(rows.refused.rows, place))
                yield from _kept(rows, place, task, counts)
        if index == 0 and refuse is None:  # without refused rows an empty table replaces an older one
            open_files.enter_context(_quarantine(index, task, metadata, counts))
    yield shuffle.counted(counts)


def _quarantine(
    index: int, task: _Task, metadata: Mapping[str, str], counts: IngestCounts
) -> contextlib.AbstractContextManager[Callable[[pa.Table], None]]:
    name = part_name(index, FILE_START)
    counts.parts.append(name)
    return part_writer(task.plan.quarantine, name, QUARANTINE, metadata, ("source_file", "reason"))


def _refused(refused: pa.Table, place: _Place) -> pa.Table:
    """Return refused rows with their night and class."""
    known = {"source_file": place.file, "split": SPLIT, "label": _BENIGN}
    columns = [pa.repeat(known[c.name], len(refused)) if c.name in known else refused[c.name] for c in QUARANTINE]
    return pa.table(columns, schema=QUARANTINE)


def _kept(rows: NightRows, place: _Place, task: _Task, counts: IngestCounts) -> Iterator[tuple[int, Record]]:
    """Yield the rows of a piece that are kept; adds all of its rows to the counts."""
    own = (SPLIT, _BENIGN)
    counts.read[own] += len(rows.source_rows) + len(rows.refused)
    for item in rows.refused.rows["reason"].value_counts().to_pylist():
        counts.quarantined[*own, item["values"]] += item["counts"]
    counts.warnings.update({(rule, *own): n for rule, n in rows.warnings.items()})
    if not len(rows.source_rows):
        return
    devices = _Devices.of(rows.pass_through, task)
    kept = np.flatnonzero(task.caps.kept(place.file_hash, rows.source_rows, devices.row_keys))
    counts.left_out[own] += len(rows.source_rows) - len(kept)
    if not len(kept):
        return
    table = _flows(rows, place, devices, task)
    yield from shuffle.bucketed(table if len(kept) == len(table) else table.take(pa.array(kept)), SPLIT, task.plan)


def _flows(rows: NightRows, place: _Place, devices: _Devices, task: _Task) -> pa.Table:
    """Return rows with the columns that are sent to their buckets."""
    n, passed = len(rows.source_rows), rows.pass_through
    files = pa.repeat(place.file, n)
    if _CAPTURE in passed.column_names:
        captures = task.identifiers.values(_CAPTURE, passed[_CAPTURE].cast(pa.string()).combine_chunks())
        files = pc.if_else(pc.fill_null(pc.equal(captures, ""), True), files, captures)
    known: dict[str, Any] = {
        "source_file": files.dictionary_encode(),
        "source_row": pa.array(rows.source_rows + place.offset),
        "place": pa.array((rows.source_rows + place.before + 0.5) / place.rows),
        "row_key": pa.array(row_hash.row_keys(list(rows.values.values()))),
        "label19": pa.array(np.full(n, BENIGN_ID, dtype=np.int32)),
        "event_date": pa.repeat(pa.scalar(place.date, pa.date32()), n),
        "event_time": passed[task.read_spec.event_time],
        "device": devices.of_rows,
        **{name: pa.array(column) for name, column in rows.values.items()},
    }
    contract = task.plan.sent
    return pa.table([known[column.name] for column in contract], schema=contract)


def _copy(source: str, target: str, chosen: Callable[[str], bool]) -> None:
    """Copy the files of a table whose names are chosen."""
    names = [name for name in sizes_in(source) if chosen(name.rsplit("/", 1)[-1])]
    if names:
        fs, path = resolve(target)
        make_folder(fs, path)
        copy_all(fs, resolve(source)[1], path, names)


def _window_lengths(sources: Sequence[NightSource]) -> list[int]:
    """Return the packets of the windows that the logs were extracted with; none if they do not say."""
    used = (file for source in sources for file in source.files if file.extraction and not file.reason)
    return sorted({file.extraction.window for file in used if file.extraction})


def _window_notes(lengths: Sequence[int], window: int | None) -> list[str]:
    expected = _OFFICIAL_WINDOWS if window is None else (window,)
    if not set(lengths) - set(expected):
        return []
    found, own = (" and ".join(map(str, each)) for each in (lengths, expected))
    return [
        f"local windows of {found} packets, those of the data set have {own}: for models of the feature set operational"
        " only; others use features that grow with the length of a window, so it would tell local rows from the rest"
    ]


def _report(sources: Sequence[NightSource], counts: IngestCounts, found: Survey, config: Config) -> Report:
    report = Report(tables=[TABLE, QUARANTINE_TABLE])
    counts.count_into(report)
    dates = [str(source.event_date) for source in sources]
    report.notes.append(
        f"{found.rows.total()} local rows of {len(dates)} night(s), {dates[0]} to {dates[-1]}, and"
        f" {len(found.devices)} device(s) are taken as benign"
    )
    reasons: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for file in source.files:
            name = f"event_date={source.event_date}/{file.name}"
            report.inputs.append(f"{name}: {file.rows} rows{f', not used: {file.reason}' if file.reason else ''}")
            if file.reason and not file.harmless:
                reasons[file.reason].append(name)
    report.notes += [f"not used: {reason}: {shown(names)}" for reason, names in sorted(reasons.items())]
    if report.rows_left_out:
        report.notes.append(
            f"{report.rows_left_out} local rows are left out: at most {config.ingest.local_rows_per_device} of one"
            f" device (ingest.local_rows_per_device) and {config.ingest.local_rows} in all (ingest.local_rows)"
        )
    if report.rows_quarantined > config.ingest.max_rejected_share * report.rows_in:
        share = report.rows_quarantined / report.rows_in
        report.degrade(f"{share:.0%} of the local rows cannot be used, more than ingest.max_rejected_share")
    return report
