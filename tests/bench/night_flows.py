"""Scored flows for nights without Spark: drawn by the generator of synthetic nights, scored by a stored model.

Scores of benign flows do not depend on who sent them and when: the generator draws both independently. So one large
benign night is drawn and scored once (`Pool`), and a benign flow of any other night takes the scores of one of its
flows and the time, device and source of another. Attack flows are drawn and scored anew for each night.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ids_spark.base.arrays import Floats, Floats32, Ids, Ints, as_rows
from ids_spark.config.synthetic import ADDRESSES, FLEET, Episode, SynthesizeNightConfig
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19, CLASSES, class19_of
from ids_spark.models import inference, threshold
from ids_spark.models.artifact import Model
from ids_spark.synthetic import night

DATE: Final = dt.date(2026, 3, 1)
DEVICES: Final = tuple(FLEET)
SPOOFED: Final = tuple(f"198.18.{i >> 8}.{i & 255}" for i in range(5_000))
"""Addresses of the network reserved for benchmarks (RFC 2544), for flows with an invented source each."""
SOURCES: Final = (*ADDRESSES, *SPOOFED)
_BATCH: Final = 16_384
_SECOND: Final = 1_000_000  # microseconds


@dataclass(frozen=True)
class Flows:
    """Scored flows of a night; every array has the shape (flows,).

    Attributes:
        seconds: After midnight.
        devices: Indices of `DEVICES`.
        sources: Indices of `SOURCES`.
        class_ids: Most probable attack class, at the level of the model.
        logits: Attack logits.
        distances: Of the second detector; 0 without one.
        episodes: Number of the attack, from 1; 0: benign.
    """

    seconds: Floats
    devices: Ints
    sources: Ints
    class_ids: Ids
    logits: Floats
    distances: Floats
    episodes: Ints

    def __len__(self) -> int:
        return len(self.logits)

    def with_columns(self, **columns: Floats | Ints | Ids) -> "Flows":
        """Return the flows with other values of some columns."""
        return Flows(**{column.name: columns.get(column.name, getattr(self, column.name)) for column in fields(self)})

    def take(self, at: Ints) -> "Flows":
        """Return some of the flows."""
        return Flows(*(getattr(self, column.name)[at] for column in fields(self)))


class Scores(NamedTuple):
    """What a model says of flows; columns of `Flows`, shape (flows,) each."""

    class_ids: Ids
    logits: Floats
    distances: Floats


def joined(parts: Sequence[Flows]) -> Flows:
    """Return the flows of several parts of a night."""
    return Flows(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Flows)))


def table(flows: Flows, model: Model, date: dt.date = DATE) -> pa.Table:
    """Return the columns that scoring gives to alerts; `source_row` is the number of the flow."""
    names, n = CLASSES[model.card.classes], len(flows)
    midnight = int(np.datetime64(str(date), "us").astype(np.int64))
    times = midnight + np.minimum(flows.seconds * _SECOND, 86_400 * _SECOND - 1).astype(np.int64)

    def encoded(codes: Ints | Ids, values: Sequence[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values))

    return pa.table(
        {
            "device_id": encoded(flows.devices, DEVICES),
            "src_ip": encoded(flows.sources, SOURCES),
            "event_time": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
            "source_file": encoded(np.zeros(n, np.int32), ["flows-00000.parquet"]),
            "source_row": pa.array(np.arange(n)),
            "class_name": encoded(flows.class_ids, names),
            "attack_probability": pa.array(1 / (1 + np.exp(-flows.logits))),
            "attack_logit": pa.array(flows.logits),
        }
    )


@dataclass(frozen=True)
class Pool:
    """A model, and flows that it scored.

    Attributes:
        model: The model.
        benign: Benign flows.
        rows: Scores of measured rows of each class; if given, attacks take them.
    """

    model: Model
    benign: Flows
    rows: Mapping[str, "Scores"] = field(default_factory=dict)

    def benign_night(self, flows: int, rng: np.random.Generator) -> Flows:
        """Return benign flows: scores of some flows of the pool, times, devices and sources of others."""
        scores, contexts = (rng.choice(len(self.benign), flows, replace=False, shuffle=True) for _ in range(2))
        return self.benign.take(contexts).with_columns(
            class_ids=self.benign.class_ids[scores],
            logits=self.benign.logits[scores],
            distances=self.benign.distances[scores],
        )

    def attacks(self, episodes: Sequence[Episode], seed: int) -> Flows:
        """Return the flows of attacks, drawn by the generator and scored; numbered in their order."""
        if not episodes:
            return self.benign.take(np.array([], dtype=np.int64))
        flows = drawn(self.model, 1, episodes, seed)
        flows = flows.take(np.flatnonzero(flows.episodes))
        if not self.rows:
            return flows
        rng, columns = np.random.default_rng(seed), {name: getattr(flows, name).copy() for name in Scores._fields}
        for number, episode in enumerate(episodes, start=1):
            own = np.flatnonzero(flows.episodes == number)
            of_class = self.rows[episode.class19]
            at = rng.integers(0, len(of_class.logits), len(own))
            for name, values in of_class._asdict().items():
                columns[name][own] = values[at]
        return flows.with_columns(**columns)


def pool_of(model: Model, flows: int, folder: Path) -> Pool:
    """Return a model with a number of benign flows, stored below a folder for the next run."""
    path = folder / f"scored-{model.sha256[:16]}-{flows}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Pool(model, Flows(*(stored[column.name] for column in fields(Flows))))
    benign = drawn(model, flows, (), seed=1_000_003)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(unfinished, **{column.name: getattr(benign, column.name) for column in fields(Flows)})
    unfinished.rename(path)
    return Pool(model, benign)


def with_measured_rows(pool: Pool, folder: Path) -> Pool:
    """Return a pool whose flows have the scores of the test rows below a folder; times and addresses stay invented.

    Args:
        pool: Of a model that was trained on the train rows.
        folder: In the layout of the data set, with `test/*.csv`.
    """
    schema = pool.model.preprocessor.schema
    rows: dict[str, Scores] = {}
    for path in sorted((folder / "test").glob("*.csv")):
        frame = pd.read_csv(path).rename(columns=str.strip)
        found = scored(pool.model, {name: frame[name].to_numpy(np.float64) for name in schema.features})
        before = rows.get(class19_of(path.name), Scores(*(values[:0] for values in found)))
        rows[class19_of(path.name)] = Scores(*(np.concatenate(pair) for pair in zip(before, found, strict=True)))
    benign = rows.pop(CLASS19[BENIGN_ID])
    at = np.random.default_rng(0).integers(0, len(benign.logits), len(pool.benign))
    columns = {name: values[at] for name, values in benign._asdict().items()}
    return Pool(pool.model, pool.benign.with_columns(**columns), rows)


def drawn(model: Model, flows: int, episodes: Sequence[Episode], seed: int) -> Flows:
    """Return a synthetic night of so many benign flows and these attacks, scored."""
    schema = model.preprocessor.schema.name
    config = SynthesizeNightConfig(flows=flows, feature_schema=schema, files=1, date=DATE, own_episodes=episodes)
    [task] = night.plan_night("", config, seed)
    parts = []
    for chunk in range(len(task.counts)):
        rows, truth = night.draw(task, chunk)
        values = {name: rows[name].to_numpy() for name in model.preprocessor.schema.features}
        scores = scored(model, values)
        seconds = (rows["event_time"].cast(pa.int64()).to_numpy() % (86_400 * _SECOND)) / _SECOND
        devices, sources = _codes(rows["device_id"], DEVICES), _codes(rows["src_ip"], SOURCES)
        parts.append(
            Flows(seconds, devices, sources, *scores, truth["episode"].fill_null(0).to_numpy().astype(np.int64))
        )
    return joined(parts)


def scored(model: Model, values: Mapping[str, Floats]) -> Scores:
    """Return the scores of raw feature values, as scoring computes them."""
    matrix = as_rows(model.preprocessor.transform(values, model.card.features))
    probabilities: Floats32 = inference.forward(model, matrix, _BATCH)
    novelty = model.novelty
    distances = novelty.distances(matrix).astype(np.float64) if novelty is not None else np.zeros(len(matrix))
    return Scores(threshold.most_probable_attacks(probabilities), threshold.attack_logits(probabilities), distances)


def _codes(column: pa.ChunkedArray, names: Sequence[str]) -> Ints:
    encoded = column.combine_chunks().dictionary_encode()
    places = np.array([names.index(name) for name in encoded.dictionary.to_pylist()])
    codes: Ints = places[encoded.indices.to_numpy()]
    return codes
