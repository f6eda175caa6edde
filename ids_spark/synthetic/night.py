"""Synthetic night of hospital flow logs: synthetic flows with a time, a device and a source address.

A night is divided by time into chunks of about equal rows; a file holds consecutive chunks. A chunk has generators
seeded by date, file and chunk, so rows depend on the settings only, and a task holds one chunk, for nights of any size.
Benign flows have the distributions of the Benign *train* file of a synthetic data set, so that a model trained on it
raises as many false alarms as expected from its validation rows; with `shift`, those of each device differ from them
in its own way, the same on every date. Attack flows have the distributions of their class, without near-duplicates of
floods.
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
import pyarrow.parquet as pq

from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.base.errors import InputError
from ids_spark.base.spark_tasks import run_each
from ids_spark.config.synthetic import ADDRESSES, FIRST_DEVICE, FLEET, OTHER_SOURCES, RHYTHM, SynthesizeNightConfig
from ids_spark.dataset.features import FEATURE_SCHEMAS, FeatureSchema
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake import filesystem
from ids_spark.lake.store import Lake
from ids_spark.synthetic import sampler
from ids_spark.synthetic.distributions import ClassModel, class_model, shifted
from ids_spark.synthetic.plan import generator
from ids_spark.synthetic.target import hidden_folder, refuse_other_content, remove_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

GENERATOR: Final = 1  # increment when the same settings give other rows
TRUTH: Final = "_truth"
_MARK: Final = {"synthetic": True, "nights": True, "generator": GENERATOR, "data_origin": "synthetic"}
CHUNK_ROWS: Final = 65_536  # plus or minus one for each attack; one row group
_HOURS: Final = 3600.0 * np.arange(25)
_SHARE_BEFORE: Final = np.append(0.0, np.cumsum(RHYTHM) / sum(RHYTHM))  # of benign flows, before each full hour
_FLEET: Final = tuple(FLEET)
_DEVICE_SHARES: Final = np.cumsum([*FLEET.values()]) / sum(FLEET.values())
_ACTIVITIES: Final = (0.8, 0.12, 0.08)  # share of the hours of the day that a device spends with each, with `shift`
_DICTIONARY_COLUMNS: Final = ["device_id", "src_ip", "class19"]


@dataclass(frozen=True)
class NightReport:
    """Facts about the night written; also in `_truth/event_date=…/_SYNTHETIC.json`.

    Attributes:
        seed: Seed of the night.
        settings: The settings, with date and attacks; `episode` in `_truth/` is the number of the attack, from 1.
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
    """One file of a night, with the file of its true classes.

    Attributes:
        folder: Parent of `event_date=…/` and `_truth/event_date=…/`.
        name: Name of both files.
        seed: Seed of the night.
        config: Settings of the night, with date and attacks.
        edges: Begin and end of its chunks, in seconds after midnight; shape (chunks + 1,).
        counts: Benign flows and flows of each attack; shape (chunks, 1 + attacks).
        first_row: Number of its first row in the night.
    """

    folder: str
    name: str
    seed: int
    config: SynthesizeNightConfig
    edges: Floats
    counts: Ints
    first_row: int


def write_night(spark: "SparkSession", config: SynthesizeNightConfig, seed: int) -> NightReport:
    """Write one night below `config.target`; an earlier one of that date is replaced, other dates are kept.

    Columns: every feature, `flow_id`, `event_time`, `device_id`, `src_ip`; no label. Files of the same names below
    `_truth/` hold the class of every flow and the attack it belongs to (null: none).

    Args:
        spark: Its executors draw and write.
        config: Settings; `target` is local or a URI that every executor can access.
        seed: Equal seeds, dates and settings give equal rows.

    Raises:
        InputError: when the target holds anything other than synthetic nights, or the seed is negative. Nothing was
            written.
    """
    date = config.date or dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    config = config.model_copy(update={"date": date, "own_episodes": config.attacks})
    root, night = Lake(config.target).root, f"event_date={date}"
    if seed < 0:
        raise InputError(f"synthesize_night: found seed {seed}; expected at least 0")
    refuse_other_content(config.target, "nights", "synthesize_night")
    hidden = hidden_folder(root, date)
    tasks = plan_night(f"{root}/{hidden}", config, seed)
    report = NightReport(
        seed=seed,
        settings=config.model_dump(mode="json"),
        rows=sum(config.flows_per_class.values()),
        flows_per_class=config.flows_per_class,
        rows_per_file={task.name: int(task.counts.sum()) for task in tasks},
    )
    log.info("night starts data_origin=synthetic target=%s date=%s rows=%d", root, date, report.rows)
    filesystem.write_json(
        f"{root}/{SYNTHETIC_MARK}", _MARK
    )  # before the first row, so that no row is mistaken for measured
    fs, path = filesystem.resolve(root)
    try:
        run_each(spark.sparkContext, tasks, write_night_file)
        filesystem.write_json(f"{root}/{hidden}/{TRUTH}/{night}/{SYNTHETIC_MARK}", asdict(report))
        for folder in (f"{TRUTH}/{night}", night):
            remove_folder(fs, f"{path}/{folder}")
            filesystem.move(fs, f"{path}/{hidden}/{folder}", f"{path}/{folder}")
    finally:
        remove_folder(fs, f"{path}/{hidden}")
    log.info("night written data_origin=synthetic target=%s date=%s rows=%d", root, date, report.rows)
    return report


def plan_night(folder: str, config: SynthesizeNightConfig, seed: int) -> list[NightFileTask]:
    """Return the files of a night, to be written below `folder`, in order of time. `config` has date and attacks."""
    attacks, files = config.own_episodes, config.files
    totals = np.array([config.flows, *(a.flows for a in attacks)])
    rows = int(totals.sum())
    chunks = -(-rows // (files * CHUNK_ROWS))  # of each file
    # Flows of each part before each time: linear between full hours and the starts and ends of attacks.
    moments = np.unique([*_HOURS, *(a.begins for a in attacks), *(a.ends for a in attacks)])
    shares = [
        np.interp(moments, _HOURS, _SHARE_BEFORE),
        *(np.interp(moments, (a.begins, a.ends), (0, 1)) for a in attacks),
    ]
    before = totals[:, None] * np.array(shares)
    edges = np.interp(np.linspace(0, rows, files * chunks + 1), before.sum(axis=0), moments)
    whole = np.array([np.interp(edges, moments, part) + 1e-6 for part in before]).astype(np.int64)
    whole[:, -1] = totals
    counts = np.diff(whole, axis=1).T
    tasks = []
    for i in range(0, files * chunks, chunks):
        name, first_row = f"flows-{i // chunks:05d}.parquet", int(counts[:i].sum())
        tasks.append(
            NightFileTask(folder, name, seed, config, edges[i : i + chunks + 1], counts[i : i + chunks], first_row)
        )
    return tasks


def write_night_file(task: NightFileTask) -> None:
    """Write a file and its true classes under temporary names, then rename both; an earlier attempt is replaced."""
    fs, root = filesystem.resolve(task.folder)
    night = f"event_date={task.config.date}"
    targets = [f"{root}/{night}/{task.name}", f"{root}/{TRUTH}/{night}/{task.name}"]
    unfinished = [f"{root}/{uuid.uuid4().hex}" for _ in targets]
    for target in targets:
        filesystem.make_folder(fs, target.rsplit("/", 1)[0])
    with ExitStack() as opened:
        writers: list[pq.ParquetWriter] = []
        for chunk in range(len(task.counts)):
            tables = draw(task, chunk)
            for path, table in list(zip(unfinished, tables, strict=True))[len(writers) :]:
                writer = pq.ParquetWriter(path, table.schema, filesystem=fs, use_dictionary=_DICTIONARY_COLUMNS)
                writers.append(opened.enter_context(writer))
            for writer, table in zip(writers, tables, strict=True):
                writer.write_table(table, row_group_size=max(1, len(table)))
    for path, target in zip(unfinished, targets, strict=True):
        fs.move(path, target)


def draw(task: NightFileTask, chunk: int) -> tuple[pa.Table, pa.Table]:
    """Return a chunk of a file and its true classes; rows in order of time."""
    config, schema = task.config, FEATURE_SCHEMAS[task.config.feature_schema]
    names = (CLASS19[BENIGN_ID], *(attack.class19 for attack in config.own_episodes))
    features, contexts = [], []
    for part, rows in enumerate(task.counts[chunk]):
        if rows or part == 0:
            rng = generator(task.seed, str(config.date), task.name, chunk, part)
            model, odd = class_model(schema, names[part], "train", config.capture_day_iat), np.arange(rows) % 2 == 1
            if part or not config.shift:
                features.append(sampler.draw(schema, model, odd, rng))
            contexts.append(_context(config, part, task.edges[chunk : chunk + 2], rows, rng))
            if part == 0 and config.shift:
                features.append(_of_devices(task, schema, model, odd, contexts[0], rng))
    values, context = np.concatenate(features, axis=1), np.concatenate(contexts, axis=1)
    if len(features) > 1:
        order = np.argsort(context[1], kind="stable")
        values, context = values[:, order], context[:, order]
    parts, moments, devices, sources = context
    numbers, iat = task.first_row + task.counts[:chunk].sum() + np.arange(len(parts)), schema.features.index("IAT")
    values[iat] = sampler.number(values[iat], numbers)  # as in a data set: no two rows are equal as doubles
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


def _of_devices(
    task: NightFileTask, schema: FeatureSchema, model: ClassModel, odd: Mask, context: Ints, rng: np.random.Generator
) -> Floats:
    """Return benign rows of devices, each with distributions of its own that are the same on every date.

    A device has some activities, one in each hour of the day, as of a backup or a transfer of images.
    """
    values = np.empty((len(schema.features), len(odd)))
    _, moments, devices, _ = context
    hours = moments // int(3600e6)
    for device in np.unique(devices):
        of_site = generator(task.seed, "shift", _FLEET[device])
        at_hour = of_site.choice(len(_ACTIVITIES), len(RHYTHM), p=_ACTIVITIES)
        models = [shifted(model, task.config.shift, of_site) for _ in _ACTIVITIES]
        own = np.flatnonzero(devices == device)
        for activity, of_activity in enumerate(models):
            rows = own[at_hour[hours[own]] == activity]
            values[:, rows] = sampler.draw(schema, of_activity, odd[rows], rng)
    return values


def _context(config: SynthesizeNightConfig, part: int, edges: Floats, rows: int, rng: np.random.Generator) -> Ints:
    """Return part, ascending µs after midnight, and indices of device and address of flows; shape (4, rows)."""
    if part == 0:
        low, high = np.interp(edges, _HOURS, _SHARE_BEFORE)
        seconds = np.interp(rng.uniform(low, high, rows), _SHARE_BEFORE, _HOURS)
        devices = np.searchsorted(_DEVICE_SHARES, rng.random(rows), side="right")
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
