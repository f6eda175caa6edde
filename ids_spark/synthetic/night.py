"""A synthetic night of hospital flow logs: the replica's flows, seen at a time, on a device, from an address.

A night is cut by time into pieces of about equal rows; a file is some in a row. A piece comes from generators seeded by
date, file and piece, so rows depend on the settings only, and a task holds one piece, whatever the night's size. Benign
flows have the distributions of the replica's Benign *train* file: a model trained on a replica raises as many false
alarms as its validation rows say. Attacks have those of their class, without the near-duplicates of floods.
"""

import datetime as dt
import logging
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark.base.arrays import Floats, Ints
from ids_spark.base.errors import InputError
from ids_spark.config.synthetic import ADDRESSES, FIRST_DEVICE, FLEET, OTHER_SOURCES, RHYTHM, SynthesizeNightConfig
from ids_spark.dataset.features import FEATURE_SCHEMAS
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake import filesystem
from ids_spark.lake.store import Lake
from ids_spark.synthetic import sampler
from ids_spark.synthetic.distributions import class_model
from ids_spark.synthetic.plan import generator

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

GENERATOR: Final = 1  # rises whenever the same settings give other rows
TRUTH: Final = "_truth"
_MARK: Final = {"synthetic": True, "nights": True, "generator": GENERATOR, "data_origin": "synthetic"}
_PIECE_ROWS: Final = 65_536  # give or take one for each attack; one row group
_HOURS: Final = 3600.0 * np.arange(25)
_SEEN: Final = np.append(0.0, np.cumsum(RHYTHM) / sum(RHYTHM))  # share of benign flows before each full hour
_FLEET: Final = tuple(FLEET)
_BUSY: Final = np.cumsum([*FLEET.values()]) / sum(FLEET.values())
_REPEATED: Final = ["device_id", "src_ip", "class19"]


@dataclass(frozen=True)
class NightReport:
    """What was written; the same facts stand in `_truth/event_date=…/_SYNTHETIC.json`.

    Attributes:
        seed: As asked for.
        settings: As asked for, date and attacks filled in; `episode` of the truth counts the attacks from 1.
        rows: Benign and attack flows.
        flows_per_class: Rows by class.
        rows_per_file: Rows by file name.
        data_origin: Always `synthetic`.
    """

    seed: int
    settings: Mapping[str, Any]
    rows: int
    flows_per_class: Mapping[str, int]
    rows_per_file: Mapping[str, int]
    data_origin: str = "synthetic"


@dataclass(frozen=True)
class NightFileTask:
    """One file of a night, and its truth.

    Attributes:
        folder: Holds `event_date=…/` and `_truth/event_date=…/`.
        name: Of both files.
        seed: Of the night.
        config: Of the night, date and attacks filled in.
        edges: Where its pieces begin and end, in seconds after midnight; shape (pieces + 1,).
        counts: Benign flows and flows of each attack; shape (pieces, 1 + attacks).
        first_row: Number in the night.
    """

    folder: str
    name: str
    seed: int
    config: SynthesizeNightConfig
    edges: Floats
    counts: Ints
    first_row: int


def write_night(spark: "SparkSession", config: SynthesizeNightConfig, seed: int) -> NightReport:
    """Write one night below `config.target`; an earlier one of that date is replaced, other dates stay.

    Columns: every feature, `flow_id`, `event_time`, `device_id`, `src_ip`; no label. Files of the same names below
    `_truth/` say which class a flow is of, and which attack it belongs to (null: none).

    Args:
        spark: Its executors draw and write.
        config: What to write; `target` is local or a URI that every executor reaches.
        seed: Equal seeds, dates and settings give equal rows.

    Raises:
        InputError: when the target holds anything but synthetic nights, or the seed is negative. Nothing was written.
    """
    date = config.date or dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    config = config.model_copy(update={"date": date, "own_episodes": config.attacks})
    root, night, hidden = Lake(config.target).root, f"event_date={date}", f".writing-{date}"
    if seed < 0:
        raise InputError(f"synthesize_night: found seed {seed}; expected one that is not negative")
    _refuse_other_content(config.target)
    tasks = plan_night(f"{root}/{hidden}", config, seed)
    report = NightReport(
        seed=seed,
        settings=config.model_dump(mode="json"),
        rows=sum(config.flows_per_class.values()),
        flows_per_class=config.flows_per_class,
        rows_per_file={task.name: int(task.counts.sum()) for task in tasks},
    )
    log.info("night starts data_origin=synthetic target=%s date=%s rows=%d", root, date, report.rows)
    filesystem.write_json(f"{root}/{SYNTHETIC_MARK}", _MARK)  # before the first row, so that none is taken for measured
    fs, path = filesystem.resolve(root)
    _remove(fs, f"{path}/{hidden}")
    try:
        spark.sparkContext.parallelize(tasks, len(tasks)).foreach(write_night_file)
        filesystem.write_json(f"{root}/{hidden}/{TRUTH}/{night}/{SYNTHETIC_MARK}", asdict(report))
        for folder in (f"{TRUTH}/{night}", night):
            _remove(fs, f"{path}/{folder}")
            filesystem.move(fs, f"{path}/{hidden}/{folder}", f"{path}/{folder}")
    finally:
        _remove(fs, f"{path}/{hidden}")
    log.info("night written data_origin=synthetic target=%s date=%s rows=%d", root, date, report.rows)
    return report


def plan_night(folder: str, config: SynthesizeNightConfig, seed: int) -> list[NightFileTask]:
    """Return the files of a night, its date and attacks filled in, to be written below `folder`; in order of time."""
    attacks, files = config.own_episodes, config.files
    totals = np.array([config.flows, *(a.flows for a in attacks)])
    rows = int(totals.sum())
    pieces = -(-rows // (files * _PIECE_ROWS))  # of each file
    # Flows of each part that are seen by a moment: straight lines between full hours and the ends of attacks.
    moments = np.unique([*_HOURS, *(a.begins for a in attacks), *(a.ends for a in attacks)])
    shares = [np.interp(moments, _HOURS, _SEEN), *(np.interp(moments, (a.begins, a.ends), (0, 1)) for a in attacks)]
    seen = totals[:, None] * np.array(shares)
    edges = np.interp(np.linspace(0, rows, files * pieces + 1), seen.sum(axis=0), moments)
    whole = np.array([np.interp(edges, moments, part) + 1e-6 for part in seen]).astype(np.int64)
    whole[:, -1] = totals
    counts = np.diff(whole, axis=1).T
    tasks = []
    for i in range(0, files * pieces, pieces):
        name, first_row = f"flows-{i // pieces:05d}.parquet", int(counts[:i].sum())
        tasks.append(
            NightFileTask(folder, name, seed, config, edges[i : i + pieces + 1], counts[i : i + pieces], first_row)
        )
    return tasks


def write_night_file(task: NightFileTask) -> None:
    """Draw and write one file and its truth aside, then move both in place; an earlier attempt's are replaced."""
    fs, root = filesystem.resolve(task.folder)
    night = f"event_date={task.config.date}"
    places = [f"{root}/{night}/{task.name}", f"{root}/{TRUTH}/{night}/{task.name}"]
    aside = [f"{root}/{uuid.uuid4().hex}" for _ in places]
    for place in places:
        filesystem.make_folder(fs, place.rsplit("/", 1)[0])
    with ExitStack() as opened:
        writers: list[pq.ParquetWriter] = []
        for piece in range(len(task.counts)):
            tables = draw(task, piece)
            for path, table in list(zip(aside, tables, strict=True))[len(writers) :]:
                writer = pq.ParquetWriter(path, table.schema, filesystem=fs, use_dictionary=_REPEATED)
                writers.append(opened.enter_context(writer))
            for writer, table in zip(writers, tables, strict=True):
                writer.write_table(table, row_group_size=max(1, len(table)))
    for path, place in zip(aside, places, strict=True):
        fs.move(path, place)


def draw(task: NightFileTask, piece: int) -> tuple[pa.Table, pa.Table]:
    """Return a piece of a file and its truth; rows in order of time."""
    config, schema = task.config, FEATURE_SCHEMAS[task.config.feature_schema]
    names = (CLASS19[BENIGN_ID], *(attack.class19 for attack in config.own_episodes))
    features, contexts = [], []
    for part, rows in enumerate(task.counts[piece]):
        if rows or part == 0:
            rng = generator(task.seed, str(config.date), task.name, piece, part)
            model = class_model(schema, names[part], "train", config.capture_day_iat)
            features.append(sampler.draw(schema, model, np.arange(rows) % 2 == 1, rng))
            contexts.append(_context(config, part, task.edges[piece : piece + 2], rows, rng))
    values, context = np.concatenate(features, axis=1), np.concatenate(contexts, axis=1)
    if len(features) > 1:
        order = np.argsort(context[1], kind="stable")
        values, context = values[:, order], context[:, order]
    parts, moments, devices, sources = context
    numbers, iat = task.first_row + task.counts[:piece].sum() + np.arange(len(parts)), schema.features.index("IAT")
    values[iat] = sampler.number(values[iat], numbers)  # as in a replica: no two rows equal as doubles
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0")
    flow_ids = pc.binary_join_element_wise(f"{config.date:%Y%m%d}", digits, "-")
    times = np.datetime64(str(config.date), "us") + moments.astype("timedelta64[us]")
    log_columns = {
        **dict(zip(schema.features, values, strict=True)),
        "flow_id": flow_ids,
        "event_time": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
        "device_id": pa.array(_FLEET).take(pa.array(devices)),
        "src_ip": pa.array(ADDRESSES).take(pa.array(sources)),
    }
    episodes = pa.array(parts, pa.int32(), mask=parts == 0)
    truth = {"flow_id": flow_ids, "class19": pa.array(names).take(pa.array(parts)), "episode": episodes}
    facts = {"ids_spark.data_origin": "synthetic", "ids_spark.feature_schema": schema.name}
    return pa.table(log_columns, metadata=facts), pa.table(truth, metadata=facts)


def _context(config: SynthesizeNightConfig, part: int, edges: Floats, rows: int, rng: np.random.Generator) -> Ints:
    """Return part, rising µs after midnight, and indices of device and address of flows; shape (4, rows)."""
    if part == 0:
        low, high = np.interp(edges, _HOURS, _SEEN)
        seconds = np.interp(rng.uniform(low, high, rows), _SEEN, _HOURS)
        devices = np.searchsorted(_BUSY, rng.random(rows), side="right")
        sources = FIRST_DEVICE + devices
        for (first, last), share in OTHER_SOURCES.items():
            sources = np.where(rng.random(rows) < share, rng.integers(first, last, rows), sources)
    else:
        attack = config.own_episodes[part - 1]
        low, high = np.clip(edges, attack.begins, attack.ends)
        seconds = rng.uniform(low, high, rows)
        devices = rng.choice([_FLEET.index(device) for device in attack.devices or _FLEET], rows)
        sources = rng.choice([ADDRESSES.index(address) for address in attack.sources], rows)
    moments = np.minimum(np.sort(seconds) * 1e6, _HOURS[-1] * 1e6 - 1).astype(np.int64)
    return np.stack([np.full(rows, part), moments, devices, sources])


def _refuse_other_content(target: str) -> None:
    """Raise `InputError` unless the target is not there, an empty folder, or holds synthetic nights."""
    fs, path = filesystem.resolve(target)
    found, mark = ["a file"], f"{target.rstrip('/')}/{SYNTHETIC_MARK}"
    if not filesystem.is_file(target):
        found = sorted(info.base_name for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)))
    if found and not (filesystem.exists(mark) and b'"nights": true' in filesystem.read_bytes(mark)):
        raise InputError(
            f"{target}: found {', '.join(found[:3])}, and no {SYNTHETIC_MARK} of synthetic nights; expected a folder"
            " that is not there, is empty, or holds such nights; set synthesize_night.target to another one"
        )


def _remove(fs: pafs.FileSystem, path: str) -> None:
    if fs.get_file_info(path).type == pafs.FileType.Directory:
        fs.delete_dir(path)
