"""Which local rows may be attacks: they are left out of training and thresholds, and listed for people.

A row is judged by what other nights show. The champion alone cannot: outside the laboratory it calls much of what is
normal an attack. A row that it calls an attack resembles one if it is nearer to attacks of the data set than to its
benign rows and to local rows of other nights, and as near as attacks are to each other (`known_rows`). Where a device
has more such rows of a category in a window of time than chance and its other nights explain, they are left out with
the reason `incident` (`suspicious_cells`), and with them the rows of that device and window that nearly resemble one. A
row that is e times nearer to attacks than to all else is left out by itself.

Other reasons: `verdict`, flows of an incident that people found true; `outlier`, rows at a distance from everything
known that hardly any other local row has, or with values so large that the champion overflows. Flows of an incident
that people found benign stay. Without two dates, source files take the place of nights, or else runs of rows; rows of a
device that only one of them shows must be nearer to attacks. Executors read, score and compare; the driver sees counts
and the rows that may be left out.
"""

import datetime as dt
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import SparkContext

from ids_spark.adapt import local_rows
from ids_spark.adapt.known_rows import Known, compressed, distances_of, known
from ids_spark.adapt.suspicious_cells import Places, suspicious
from ids_spark.alerts import verdicts
from ids_spark.alerts.evidence import FILE_KIND, groups_of, windows_of
from ids_spark.alerts.severity import CATEGORIES, category_of, lineage_of
from ids_spark.base.arrays import Floats32, Ids, Ints, Mask, as_rows
from ids_spark.base.spark_tasks import run_each
from ids_spark.dataset.tables import TABLES
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19, UNKNOWN
from ids_spark.ingest import sources
from ids_spark.ingest.sources import RowGroup, bin_pack, scoring_tasks
from ids_spark.lake.filesystem import files_in
from ids_spark.lake.parquet import SUFFIX, open_part, stored_names
from ids_spark.lake.store import Lake
from ids_spark.models import inference, threshold
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import RATES

log = logging.getLogger(__name__)

Reason = Literal["verdict", "incident", "outlier"]
LEFT_OUT: Final = pa.schema(
    [
        ("reason", pa.string()),
        ("event_date", pa.date32()),
        ("device", pa.string()),
        ("class_name", pa.string()),
        ("rows", pa.int64()),
        ("source_file", pa.string()),
        ("first_row", pa.int64()),
        ("last_row", pa.int64()),
    ]
)
"""What was left out, by reason, night, device and the class that the champion predicts.

`source_file` is the first file with such rows, `first_row` and `last_row` are positions in it.
"""

_FLOWS: Final = TABLES["flows"]
_BATCH_ROWS: Final = 16_384
_LOCAL_SAMPLE: Final = 9_000  # local rows
_BENIGN_SAMPLE: Final = 4_000  # benign rows of the data set
_CLASS_SAMPLE: Final = 400  # attack rows of each class
_FOLDS: Final = 10  # groups are dealt to so many folds
_RUNS: Final = 24  # of a source file without times, in place of the hours of a day
_GROUPS_OF_RUNS: Final = 8
_NEARLY_CALLED: Final = -2.0  # log-odds from which a row is compared, as flows of an attack are not all called so
_NEARLY_ALIKE: Final = -0.5  # likeness from which a row of a suspicious place is left out
_PLAINLY_ALIKE: Final = 1.0  # likeness from which a row is left out by itself: one of 5,000 benign synthetic flows
_MIX: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))  # odd: permute 64-bit numbers
_NO_DATE: Final = -1
_COLUMNS: Final = ("source_file", "source_row", "row_key", "event_date", "event_time", "device")
_PLACE: Final = ("group", "device", "window")
_AlertKey = tuple[str, int, int]
"""Device, window of time and category of an alert."""
_CANDIDATE: Final = pa.schema(
    [
        ("group", pa.int64()),
        ("device", pa.string()),
        ("window", pa.int64()),
        ("category", pa.int64()),
        ("class_id", pa.int32()),
        ("called", pa.bool_()),
        ("likeness", pa.float64()),
        ("distance", pa.float64()),
        ("outlier", pa.bool_()),
        ("verdict", pa.bool_()),
        ("event_date", pa.date32()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
    ]
)
_COUNTED_PLACE: Final = pa.schema(
    [("group", pa.int64()), ("device", pa.string()), ("window", pa.int64()), ("rows", pa.int64())]
)


@dataclass(frozen=True)
class Reviewed:
    """What a review left out.

    Attributes:
        left_out: As `LEFT_OUT`, most rows first.
        rows: Local rows, those left out included.
        by_reason: Rows left out by reason.
        judged_by: What takes the part of other nights.
        seconds: Duration.
        unmatched: Incidents with a verdict whose flows are not known, as their night names devices under another key.
    """

    left_out: pa.Table
    rows: int
    by_reason: Mapping[str, int]
    judged_by: Literal["date", "source", "rows"]
    seconds: float
    unmatched: int = 0


@dataclass(frozen=True)
class _Layout:
    """How local rows are grouped, and the windows of rows without a time.

    Attributes:
        by: What a group is.
        files: Number of each source file.
        lengths: Rows of each source file, up to its last one that is present.
        shares: Windows of each source file: those of a night are divided among its files.
    """

    by: Literal["date", "source", "rows"]
    files: Mapping[str, int]
    lengths: Ints
    shares: Ints

    @staticmethod
    def of(last_rows: Mapping[tuple[int, str], tuple[int, int]]) -> "_Layout":
        """Return the layout of rows, given rows and last row number of each date and source file."""
        dates, files = ({key[i] for key in last_rows} for i in (0, 1))
        by: Literal["date", "source", "rows"] = "date" if len(dates) > 1 else "source" if len(files) > 1 else "rows"
        of_date, lengths, date_of = Counter[int](), Counter[str](), {}
        for (date, file), (_, last) in sorted(last_rows.items()):
            lengths[file], date_of[file] = max(lengths[file], last + 1), date
        for file, length in lengths.items():
            of_date[date_of[file]] += length
        numbers = {file: i for i, file in enumerate(sorted(lengths))}
        shares = [max(1, round(_RUNS * lengths[file] / of_date[date_of[file]])) for file in numbers]
        return _Layout(by, numbers, np.array([lengths[file] for file in numbers]), np.array(shares))


@dataclass(frozen=True)
class _Rows:
    """Local rows of one piece of a file.

    Attributes:
        table: Columns of `_COLUMNS`.
        file: Number of the source file of each row.
        group: Group of each row.
        window: Window of time of each row: its start in minutes since 1970, or a number below -1 without a time.
        device: Name of the device; a row without one takes the source file where groups are source files.
    """

    table: pa.Table
    file: Ints
    group: Ints
    window: Ints
    device: pa.Array

    @staticmethod
    def of(table: pa.Table, layout: _Layout, window_minutes: int) -> "_Rows":
        """Return the rows of a table."""
        numbers, names = np.array(list(layout.files.values())), pa.array(list(layout.files), pa.string())
        file = numbers[pc.index_in(table["source_file"].cast(pa.string()), value_set=names).to_numpy()]
        runs = table["source_row"].to_numpy() * layout.shares[file] // layout.lengths[file]
        times = table["event_time"].cast(pa.int64()).fill_null(-1).to_numpy()
        window = np.where(times >= 0, windows_of(times, window_minutes), -2 - (file * _RUNS + runs))
        dates = table["event_date"].cast(pa.int32()).fill_null(_NO_DATE).to_numpy().astype(np.int64)
        by_run = table["source_row"].to_numpy() * _GROUPS_OF_RUNS // layout.lengths[file]
        group = {"date": dates, "source": file, "rows": by_run}[layout.by]
        device = table["device"].cast(pa.string())
        if layout.by == "source":
            device = pc.coalesce(device, table["source_file"].cast(pa.string()))
        return _Rows(table, file, group, window, pc.fill_null(device, "").combine_chunks())

    @property
    def fold(self) -> Ints:
        """Fold of the group of each row."""
        return self.group % _FOLDS


@dataclass(frozen=True)
class _Task:
    """What every task needs.

    Attributes:
        model: The champion.
        what: What is known.
        layout: Of the local rows.
        window_minutes: Minutes of a window of time.
        categories: Of each class of the model; -1 for Benign. The next number is that of unknown attacks.
        operating_point: Attack logit from which the champion flags a row.
        unknown: Distance of the second detector from which it flags a row below that, as an unknown attack.
        far: Distance of the second detector beyond which a row is compared with everything known.
        found_true: Device, window and category of alerts of incidents that people found true.
        found_benign: The same of incidents that people found benign, without those.
    """

    model: Model
    what: Known
    layout: _Layout
    window_minutes: int
    categories: Ints
    operating_point: float
    unknown: float
    far: float
    found_true: frozenset[_AlertKey]
    found_benign: frozenset[_AlertKey]


def review(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    model: Model,
    window_minutes: int,
    run_id: str,
    key_id: str | None = None,
) -> Reviewed:
    """Stage `flows/split=local` with the reasons why rows are left out; those of an earlier review are replaced.

    Args:
        spark_context: Its executors read, score and write.
        lake: Holds the flows of the data set and the local rows.
        staged: Returns the URI of the staged version of a table.
        model: The champion.
        window_minutes: Minutes of a window of time: `alerts.window_minutes`, as those of alerts with verdicts.
        run_id: Of the run.
        key_id: Of the key under which local rows name devices; None if they have plain names.

    Raises:
        TableMissing: there are no local rows.
        SourceUnusable: a file of the flows cannot be read.
    """
    started = time.monotonic()
    lake.facts(local_rows.TABLE, "jobs/ingest.py with ingest.local")
    local = _row_groups(lake.uri(local_rows.TABLE))
    layout, sampled = _survey(spark_context, local, model)
    attacks, classes_of, benign = _data_set(spark_context, lake, model)
    own = _Rows.of(sampled, layout, window_minutes)
    matrix = compressed(_matrix(sampled, model))
    what = known(attacks, classes_of, benign, matrix, own.fold, _FOLDS, model.card.classes)
    names = model.card.class_names
    categories = list(dict.fromkeys(category_of(name) for name in names[1:]))
    levels = model.novelty.levels(RATES) if model.novelty is not None else np.full(len(RATES), np.inf)
    flagged_from = model.validation_scores.levels()[0] if model.validation_scores is not None else np.inf
    decided, unmatched = _decided(lake, (*categories, UNKNOWN), window_minutes, key_id)
    task = _Task(
        model,
        what,
        layout,
        window_minutes,
        np.array([-1, *(categories.index(category_of(name)) for name in names[1:])]),
        flagged_from,
        float(levels[0]),
        float(levels[-1]),
        frozenset(decided["true"]),
        frozenset(decided["benign"] - decided["true"]),
    )
    places, candidates = _compared(spark_context, local, task)
    reasons = _reasons(places, candidates, what, len(categories))
    chosen = np.flatnonzero(reasons != "")
    left_out = candidates.take(pa.array(chosen))
    named = reasons[chosen]
    local_rows.rewrite(spark_context, lake, staged, _marking(left_out, named), run_id)
    table = _listed(left_out, named, names)
    by_reason = dict(Counter(named.tolist()))
    rows, seconds = int(places["rows"].to_numpy().sum()), time.monotonic() - started
    log.info("reviewed local rows=%d left_out=%d judged_by=%s seconds=%.1f", rows, len(chosen), layout.by, seconds)
    return Reviewed(table, rows, by_reason, layout.by, seconds, unmatched)


def _row_groups(uri: str) -> list[RowGroup]:
    """Return the row groups of a table; its file of facts is no file to warn of."""
    return [group for file in files_in(uri, SUFFIX) for group, _ in sources.parquet_row_groups(file)]


def _tasks(spark_context: SparkContext, row_groups: Sequence[RowGroup]) -> list[list[RowGroup]]:
    return bin_pack(row_groups, scoring_tasks(row_groups, spark_context.defaultParallelism))


def _read(row_group: RowGroup, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield columns of the pieces of a row group; one that an older version did not write is null."""
    with open_part(row_group.uri) as file:
        stored = stored_names(file.schema.names, _FLOWS)
        for piece in file.pieces([stored[name] for name in names if name in stored], row_group.index or 0):
            columns = {name: piece[stored[name]] for name in names if name in stored}
            for name in names:
                if name not in stored:
                    columns[name] = pa.nulls(len(piece), _FLOWS.contract.field(name).type)
            yield pa.table(columns)


def _matrix(table: pa.Table, model: Model) -> Floats32:
    values = {name: table[name].to_numpy() for name in model.card.source_features}
    return as_rows(model.preprocessor.transform(values, model.card.features))


def _order(table: pa.Table) -> Ints:
    """Return a random number of each row, the same in every run, by which samples are drawn; shape (rows,)."""
    keys, rows = (table[name].to_numpy().view(np.uint64) for name in ("row_key", "source_row"))
    mixed = keys * _MIX[0] ^ rows * _MIX[1]
    order: Ints = ((mixed ^ mixed >> np.uint64(29)) * _MIX[0] >> np.uint64(1)).astype(np.int64)
    return order


def _first(table: pa.Table, rows: int) -> pa.Table:
    """Return the rows with the lowest numbers of a column `order`, in their order."""
    return table.take(pc.sort_indices(table, [("order", "ascending"), ("source_row", "ascending")])[:rows])


def _survey(spark_context: SparkContext, row_groups: Sequence[RowGroup], model: Model) -> tuple[_Layout, pa.Table]:
    """Return the layout of the local rows, and a sample of them."""
    names = (*_COLUMNS, *model.card.source_features)

    def surveyed(own: Sequence[RowGroup]) -> tuple[dict[tuple[int, str], tuple[int, int]], pa.Table]:
        last: dict[tuple[int, str], tuple[int, int]] = defaultdict(lambda: (0, -1))
        parts = []
        for table in (table for each in own for table in _read(each, names)):
            found = table.group_by(["event_date", "source_file"]).aggregate(
                [("source_row", "max"), ("source_row", "count")]
            )
            for row in found.to_pylist():
                date = row["event_date"]
                key = (_NO_DATE if date is None else (date - dt.date(1970, 1, 1)).days, row["source_file"])
                rows, highest = last[key]
                last[key] = rows + row["source_row_count"], max(highest, row["source_row_max"])
            parts.append(_first(table.append_column("order", pa.array(_order(table))), _LOCAL_SAMPLE))
        return dict(last), _first(pa.concat_tables(parts), _LOCAL_SAMPLE)

    results = run_each(spark_context, _tasks(spark_context, row_groups), surveyed)
    total: dict[tuple[int, str], tuple[int, int]] = {}
    for found, _ in results:
        for key, (rows, highest) in found.items():
            before = total.get(key, (0, -1))
            total[key] = before[0] + rows, max(before[1], highest)
    return _Layout.of(total), _first(pa.concat_tables([sample for _, sample in results]), _LOCAL_SAMPLE)


def _data_set(spark_context: SparkContext, lake: Lake, model: Model) -> tuple[Floats32, Ids, Floats32]:
    """Return attack rows, their classes at the level of the model, and benign rows of the data set, in random order."""
    row_groups = _row_groups(lake.uri("flows/split=train"))
    names = ("source_row", "row_key", "label19", "duplicate", *model.card.source_features)
    shared = ("source_row", "row_key", "label19", "order", *model.card.source_features)

    def sampled(own: Sequence[RowGroup]) -> pa.Table:
        parts: list[pa.Table] = []
        for table in (table for each in own for table in _read(each, names)):
            distinct = table.filter(pc.invert(table["duplicate"]))
            ordered = distinct.append_column("order", pa.array(_order(distinct))).select(shared)
            parts = [_of_classes(pa.concat_tables([*parts, ordered]))]
        return parts[0]

    rows = _of_classes(pa.concat_tables(run_each(spark_context, _tasks(spark_context, row_groups), sampled)))
    rows = _first(rows, len(rows))  # the same order on any cluster, then shuffled: it begins with large classes
    rows = rows.take(pa.array(np.random.default_rng(0).permutation(len(rows))))
    matrix, labels = compressed(_matrix(rows, model)), rows["label19"].to_numpy()
    attack, level = labels != BENIGN_ID, model.card.class_names
    parent = np.array([_at_level(name, level) for name in CLASS19], dtype=np.int32)
    return matrix[attack], parent[labels[attack]], matrix[~attack]


def _of_classes(table: pa.Table) -> pa.Table:
    """Return the sample of each class."""
    parts = []
    for label in pc.unique(table["label19"]).to_pylist():
        rows = _BENIGN_SAMPLE if label == BENIGN_ID else _CLASS_SAMPLE
        parts.append(_first(table.filter(pc.equal(table["label19"], label)), rows))
    return pa.concat_tables(parts) if parts else table


def _at_level(name: str, level: Sequence[str]) -> int:
    """Return the index of a class, or of the class above it, at the level of a model."""
    return level.index(next(each for each in lineage_of(name) if each in level))


def _decided(
    lake: Lake, categories: Sequence[str], window_minutes: int, key_id: str | None
) -> tuple[dict[str, set[_AlertKey]], int]:
    """Return the alerts of incidents whose newest verdict is that they were attacks, `true`, or not, `benign`.

    Incidents of nights with names under another key are counted instead.
    """
    found: dict[str, set[_AlertKey]] = {"true": set(), "benign": set()}
    unmatched = 0
    for (date, incident), given in verdicts.by_incident(verdicts.read(lake)).items():
        if given.kind is None:
            continue
        keys = lake.read("nights", ["key_id"], event_date=date)["key_id"].to_pylist()
        if any(each not in (None, key_id) for each in keys):
            unmatched += 1
            continue
        alerts = lake.read("alerts", equal={"incident_id": incident}, event_date=date).to_pylist()
        devices = {each["name"] for each in given.kind["entities"]}
        for alert in alerts:
            if alert["window_start"] is None:
                continue
            start = int(alert["window_start"].timestamp()) * 1_000_000
            [window] = windows_of(np.array([start]), window_minutes).tolist()
            names = {alert["entity"]}
            if alert["is_source"]:
                names = devices | _devices_of_source(lake, date, alert)
            elif alert["entity_kind"] == FILE_KIND:
                names = {f"event_date={date}/{alert['entity']}"}  # as `source_file` of local rows
            of = _of_category(alert["category"], categories)
            found[given.kind["verdict"]] |= {(name, window, number) for name in names for number in of}
    return found, unmatched


def _devices_of_source(lake: Lake, date: dt.date, alert: Mapping[str, Any]) -> set[str]:
    """Return the devices with flagged flows of the source of an alert, in its window of time."""
    rows = lake.read("evidence", ["device", "window_start"], {"source": alert["entity"]}, event_date=date).to_pylist()
    return {row["device"] for row in rows if row["device"] and row["window_start"] == alert["window_start"]}


def _of_category(category: str, categories: Sequence[str]) -> list[int]:
    """Return the numbers of the categories of flows of an alert, which a model of other classes may have raised."""
    if category == UNKNOWN or category not in CATEGORIES:
        return [i for i, own in enumerate(categories) if own == category]
    known = ((i, own) for i, own in enumerate(categories) if own != UNKNOWN)
    return [i for i, own in known if own in lineage_of(category) or category in lineage_of(own)]


def _compared(spark_context: SparkContext, row_groups: Sequence[RowGroup], task: _Task) -> tuple[pa.Table, pa.Table]:
    """Return the places, as `_COUNTED_PLACE`, and the rows that may be left out, as `_CANDIDATE`."""
    shared = spark_context.broadcast(task)
    names = (*_COLUMNS, *task.model.card.source_features)

    def compared(own: Sequence[RowGroup]) -> tuple[pa.Table, pa.Table]:
        parts = [_compare(table, shared.value) for each in own for table in _read(each, names)]
        places, candidates = (pa.concat_tables(each) for each in zip(*parts, strict=True))
        return _merged(places), candidates

    results = run_each(spark_context, _tasks(spark_context, row_groups), compared)
    places, candidates = (pa.concat_tables(each) for each in zip(*results, strict=True))
    order = [("source_file", "ascending"), ("source_row", "ascending")]
    return _merged(places), candidates.sort_by(order)


def _merged(places: pa.Table) -> pa.Table:
    found = places.group_by(list(_PLACE)).aggregate([("rows", "sum")]).rename_columns([*_PLACE, "rows"])
    return found.select(_COUNTED_PLACE.names).cast(_COUNTED_PLACE)


def _compare(table: pa.Table, task: _Task) -> tuple[pa.Table, pa.Table]:
    """Return the places of some rows, and which of them may be left out."""
    model, rows = task.model, _Rows.of(table, task.layout, task.window_minutes)
    matrix = _matrix(table, model)
    probabilities = inference.forward(model, matrix, _BATCH_ROWS)
    class_ids, logits = threshold.most_probable_attacks(probabilities), threshold.attack_logits(probabilities)
    distances = model.novelty.distances(matrix) if model.novelty is not None else np.full(len(matrix), -np.inf)
    novel, unknown = distances >= task.far, (logits < task.operating_point) & (distances >= task.unknown)
    category = task.categories[class_ids]
    kinds = ((category, logits > _NEARLY_CALLED), (np.full(len(matrix), task.categories.max() + 1), unknown))
    true, benign = (
        np.any([_in_alerts(rows, of, eligible, alerts) for of, eligible in kinds], axis=0)
        for alerts in (task.found_true, task.found_benign)
    )
    benign &= ~true
    unscorable = np.isnan(logits)  # finite, but so large that a night refuses it, and that training would diverge
    at = np.flatnonzero(((logits > _NEARLY_CALLED) | novel | true | unscorable) & ~benign)
    found = distances_of(compressed(matrix[at]), rows.fold[at], task.what)
    outlier = unscorable[at] | (novel[at] & (np.minimum(found.attacks, found.normal) > task.what.far))
    likeness = np.where((logits[at] > _NEARLY_CALLED) & ~np.isnan(found.likeness), found.likeness, -np.inf)
    nearly = likeness > _NEARLY_ALIKE
    kept = np.flatnonzero(nearly | outlier | true[at])
    chosen = at[kept]
    picked = table.select(["event_date", "source_file", "source_row"]).take(pa.array(chosen))
    candidates = {
        "group": rows.group[chosen],
        "device": rows.device.take(pa.array(chosen)),
        "window": rows.window[chosen],
        "category": category[chosen],
        "class_id": class_ids[chosen],
        "called": logits[chosen] > 0,
        "likeness": likeness[kept],
        "distance": found.attacks[kept],
        "outlier": outlier[kept],
        "verdict": true[chosen],
        **{name: picked[name] for name in picked.column_names},
    }
    places = {"group": rows.group, "device": rows.device, "window": rows.window, "rows": np.ones(len(table), np.int64)}
    return _merged(pa.table(places)), pa.table(
        [candidates[column.name] for column in _CANDIDATE], names=_CANDIDATE.names
    ).cast(_CANDIDATE)


def _in_alerts(rows: _Rows, category: Ints, eligible: Mask, alerts: Collection[_AlertKey]) -> Mask:
    """Return which eligible rows are flows of some alerts, given the category of each row; shape (rows,)."""
    found = np.zeros(len(eligible), dtype=np.bool_)
    windows = np.array(sorted({window for _, window, _ in alerts}), dtype=np.int64)
    own = np.flatnonzero(eligible & np.isin(rows.window, windows))
    named = pc.coalesce(rows.table["device"].cast(pa.string()), rows.table["source_file"].cast(pa.string()))
    names = named.take(pa.array(own)).to_pylist()
    found[own] = [key in alerts for key in zip(names, rows.window[own].tolist(), category[own].tolist(), strict=True)]
    return found


def _reasons(counted: pa.Table, candidates: pa.Table, what: Known, categories: int) -> NDArray[np.str_]:
    """Return the reason of each candidate, empty if it stays; shape (candidates,)."""
    number = groups_of(pa.concat_tables([counted.select(_PLACE), candidates.select(_PLACE)]), _PLACE)[2]
    place_of = np.empty(len(counted), dtype=np.int64)
    place_of[number[: len(counted)]] = np.arange(len(counted))
    place = place_of[number[len(counted) :]]
    device, group = (groups_of(counted, (name,))[2] for name in ("device", "group"))
    nights = np.unique(np.column_stack([device, group]), axis=0)[:, 0]
    recurs = (np.bincount(nights) > 1)[device[place]]
    class_id, category = candidates["class_id"].to_numpy(), candidates["category"].to_numpy()
    likeness, distance = candidates["likeness"].to_numpy(), candidates["distance"].to_numpy()
    alike = np.asarray(candidates["called"]) & (likeness > 0)
    alike &= distance <= np.where(recurs, what.near[class_id], what.typical[class_id])
    found = np.zeros((len(counted), categories), dtype=np.int64)
    np.add.at(found, (place[alike], category[alike]), 1)
    suspects = suspicious(Places(device, group, counted["rows"].to_numpy(), found))
    incident = suspects[place, category] & (likeness > _NEARLY_ALIKE)
    incident |= suspects.any(axis=1)[place] & (likeness > 0)
    incident |= alike & (likeness > _PLAINLY_ALIKE)
    reasons = np.where(np.asarray(candidates["outlier"]), "outlier", "")
    reasons = np.where(incident, "incident", reasons)
    return np.where(np.asarray(candidates["verdict"]), "verdict", reasons)


def _marking(left_out: pa.Table, reasons: NDArray[np.str_]) -> Callable[[pa.Table], pa.Table]:
    """Return a function that sets the reasons of rows in a table of `flows/split=local`."""
    files, rows = left_out["source_file"].to_pylist(), left_out["source_row"].to_pylist()
    by_file: dict[str, dict[int, str]] = defaultdict(dict)
    for file, row, reason in zip(files, rows, reasons.tolist(), strict=True):
        by_file[file][row] = reason
    known = {file: (np.array(list(own)), np.array(list(own.values()))) for file, own in by_file.items()}

    def marked(table: pa.Table) -> pa.Table:
        numbers, found = table["source_row"].to_numpy(), np.full(len(table), "", dtype=object)
        names = table["source_file"].cast(pa.string()).combine_chunks().dictionary_encode()
        for code, file in enumerate(names.dictionary.to_pylist()):
            if file not in known:
                continue
            own = np.flatnonzero(names.indices.to_numpy() == code)
            marked_rows, of_row = known[file]  # in order of their numbers
            at = np.minimum(np.searchsorted(marked_rows, numbers[own]), len(marked_rows) - 1)
            hit = marked_rows[at] == numbers[own]
            found[own[hit]] = of_row[at[hit]]
        column = pa.array(found, pa.string(), mask=found == "")
        place = table.column_names.index("left_out")
        return table.set_column(place, table.field("left_out"), column)

    return marked


def _listed(left_out: pa.Table, reasons: NDArray[np.str_], names: Sequence[str]) -> pa.Table:
    """Return what was left out, as `LEFT_OUT`."""
    classes = pa.array(names, pa.string()).take(left_out["class_id"].combine_chunks())
    table = left_out.append_column("reason", pa.array(reasons, pa.string())).append_column("class_name", classes)
    keys = ["reason", "event_date", "device", "class_name"]
    groups, firsts, number = groups_of(table, keys)
    files = table["source_file"].combine_chunks().dictionary_encode().indices.to_numpy()
    rows = table["source_row"].to_numpy()
    counts = np.bincount(number, minlength=groups)
    first_file = np.full(groups, np.iinfo(np.int64).max)
    np.minimum.at(first_file, number, files)  # candidates are in order of files and rows
    inside = files == first_file[number]
    first, last = np.full(groups, np.iinfo(np.int64).max), np.full(groups, -1)
    np.minimum.at(first, number[inside], rows[inside])
    np.maximum.at(last, number[inside], rows[inside])
    listed = table.select([*keys, "source_file"]).take(pa.array(firsts))
    listed = listed.append_column("rows", pa.array(counts))
    listed = listed.append_column("first_row", pa.array(first)).append_column("last_row", pa.array(last))
    listed = listed.select(LEFT_OUT.names).cast(LEFT_OUT)
    return listed.sort_by([("rows", "descending"), *((key, "ascending") for key in keys)])
