"""Rows of local nights that may be attacks, in a small world of two features. All flows are synthetic."""

import dataclasses
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from scipy.spatial import distance

from ids_spark.adapt import known_rows, review, suspicious_cells
from ids_spark.adapt.suspicious_cells import Places
from ids_spark.base.arrays import as_rows
from ids_spark.config.train import ModelConfig
from ids_spark.dataset import tables
from ids_spark.dataset.features import RELEASE_39
from ids_spark.dataset.tables import ALERTS, VERDICTS, flows_contract
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.ingest import row_hash
from ids_spark.lake.filesystem import write_json
from ids_spark.lake.parquet import write_rows, write_table
from ids_spark.lake.store import Lake
from ids_spark.models import architectures, artifact, novelty
from ids_spark.models.artifact import Model
from tests.support.models import CARD, PREPROCESSOR, VALIDATION_SCORES

NIGHTS = [dt.date(2026, 3, 1) + dt.timedelta(days=i) for i in range(5)]
DEVICES = ("pump-1", "pump-2", "monitor-1")
OWN_WAY, FLOOD, LAB = (6.0, 0.0), (6.0, 6.0), (-3.0, 0.0)  # in units of the model: local rows, attacks, benign rows
ATTACK_AT = (NIGHTS[2], "pump-1", 3)


def raw(points: np.ndarray) -> pd.DataFrame:
    """Return rows whose two features the model scales to these points; all others are 0."""
    fitted = {f.name: f for f in PREPROCESSOR.features}
    rows = pd.DataFrame(0.0, index=range(len(points)), columns=list(RELEASE_39.features))
    for i, name in enumerate(CARD.features):
        rows[name] = points[:, i] * fitted[name].std + fitted[name].mean
    return rows


def around(centre: tuple[float, float], rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, 0.3, (rows, 2))


def flows(points: np.ndarray, label: int, **columns: Any) -> pa.Table:
    frame = raw(points).assign(**columns)
    frame["row_key"] = row_hash.row_keys([frame[name].to_numpy() for name in RELEASE_39.features])
    for name, value in (("source_row", range(len(points))), ("source_file", "lab.csv"), ("origin", "dataset")):
        if name not in frame:
            frame[name] = value
    frame = frame.assign(class19=CLASS19[label], class6="", class2="", label19=label)
    frame = frame.assign(duplicate=False, label_conflict=False, left_out=None)
    for name in ("event_date", "event_time", "place", "device"):
        if name not in frame:
            frame[name] = None
    contract = flows_contract(RELEASE_39.features)
    return pa.Table.from_pandas(frame[contract.names], schema=contract, preserve_index=False)


def champion(lake: Lake) -> Model:
    """A model to which everything unlike the laboratory's benign rows is a flood."""
    card = dataclasses.replace(CARD, hyperparameters=ModelConfig(dense=()).model_dump(mode="json"))
    network = architectures.build(card.architecture, len(card.features), card.classes, card.hyperparameters)
    kernel, bias = (np.zeros_like(w) for w in network.get_weights())
    kernel[0, 1] = 3.0  # DDoS
    benign = as_rows(list(around(LAB, 500, 1).T))
    fitted = novelty.fit(benign)
    assert fitted is not None
    detector = fitted.calibrated(fitted.distances(as_rows(list(around(LAB, 5_000, 2).T))), np.ones(5_000, dtype=bool))
    uri = lake.uri(f"models/{card.name}/{card.version}")
    artifact.write_model(uri, card, [kernel, bias], PREPROCESSOR, VALIDATION_SCORES, detector)
    return artifact.read_model(uri)


def local(identified: bool = True) -> tuple[pa.Table, np.ndarray]:
    """Nights of devices that all resemble attacks in the eyes of the champion, with an attack in one of them."""
    parts, planted = [], []
    for night, date in enumerate(NIGHTS):
        for number, device in enumerate(DEVICES):
            hours = np.arange(240) % 24
            points, names = around(OWN_WAY, 240, 10 * night + number), [device] * 240
            own = np.zeros(240, dtype=bool)
            if (date, device) == ATTACK_AT[:2]:
                own[hours == ATTACK_AT[2]] = True
                points[own] = around(FLOOD, int(own.sum()), 99)
            times = [dt.datetime.combine(date, dt.time(hour, 5), dt.UTC) for hour in hours]
            known = {"event_date": [date] * 240, "event_time": times, "device": names} if identified else {}
            order = np.argsort(hours, kind="stable")  # source rows are in order of time
            rows = np.empty(240, dtype=int)
            rows[order] = np.arange(240)
            file = f"{date}/{device}"
            parts.append(flows(points, 0, source_file=file, source_row=rows, origin="local", **known))
            planted.append(own)
    return pa.concat_tables(parts), np.concatenate(planted)


def lake_of(folder: Path, rows: pa.Table) -> Lake:
    lake = Lake(str(folder / "lake"))
    facts = {"run_id": "r", "feature_schema": "release39", "data_origin": "synthetic"}
    write_table(lake.uri("flows/split=train/part-0.parquet"), flows(around(LAB, 600, 3), 0))
    write_table(lake.uri("flows/split=train/part-1.parquet"), flows(around(FLOOD, 600, 4), CLASS19.index("DDoS-SYN")))
    keys = row_hash.row_keys([rows[name].to_numpy() for name in RELEASE_39.features])
    rows = rows.set_column(rows.column_names.index("row_key"), rows.field("row_key"), pa.array(keys))
    write_table(lake.uri("flows/split=local/part-0.parquet"), rows.take(pa.array(np.argsort(keys.view(np.uint64)))))
    write_json(lake.uri("flows/_table.json"), facts | {"rows": {"train": 1_200}})
    write_json(lake.uri("flows/split=local/_table.json"), facts | {"rows": {"local": len(rows)}})
    return lake


def reviewed(
    spark: SparkSession, lake: Lake, folder: Path, model: Model | None = None, minutes: int = 60
) -> tuple[review.Reviewed, pd.DataFrame]:
    staged, model = folder / "staged", model or champion(lake)
    found = review.review(spark.sparkContext, lake, lambda table: f"{staged}/{table}", model, minutes, "run")
    parts = sorted((staged / "flows/split=local").glob("*.parquet"))
    return found, pd.concat([pq.ParquetFile(part).read().to_pandas() for part in parts])


def left_out_of(rows: pd.DataFrame, table: pa.Table) -> np.ndarray:
    """Return the reason of each row of a table, empty if it stays."""
    by_row = {
        (f, r): x or "" for f, r, x in zip(rows["source_file"], rows["source_row"], rows["left_out"], strict=True)
    }
    assert len(by_row) == len(rows) == len(table)
    return np.array(
        [by_row[key] for key in zip(*(table[c].to_pylist() for c in ("source_file", "source_row")), strict=True)]
    )


def test_an_attack_of_one_night_is_left_out_and_what_recurs_is_not(spark: SparkSession, tmp_path: Path) -> None:
    rows, planted = local()
    found, written = reviewed(spark, lake_of(tmp_path, rows), tmp_path)
    reasons = left_out_of(written, rows)
    assert set(reasons[planted]) == {"incident"}
    assert set(reasons[~planted]) == {""}  # although the champion calls each of them a flood
    assert found.by_reason == {"incident": 10}
    assert (found.rows, found.judged_by) == (len(rows), "date")
    [line] = found.left_out.to_pylist()
    assert line == {
        "reason": "incident",
        "event_date": ATTACK_AT[0],
        "device": "pump-1",
        "class_name": "DDoS",
        "rows": 10,
        "source_file": f"{ATTACK_AT[0]}/pump-1",
        "first_row": 30,
        "last_row": 39,
    }


def test_without_identifiers_source_files_are_compared(spark: SparkSession, tmp_path: Path) -> None:
    rows, planted = local(identified=False)
    found, written = reviewed(spark, lake_of(tmp_path, rows), tmp_path)
    reasons = left_out_of(written, rows)
    assert found.judged_by == "source"
    assert (reasons[planted] == "incident").mean() >= 0.9
    assert (reasons[~planted] != "").mean() <= 0.01


def test_a_single_file_is_compared_by_runs_of_its_rows(spark: SparkSession, tmp_path: Path) -> None:
    rows, planted = local(identified=False)
    place = rows.column_names.index("source_file")
    rows = rows.set_column(place, rows.field("source_file"), pa.repeat("all.parquet", len(rows)))
    place = rows.column_names.index("source_row")
    order = np.argsort(~planted, kind="stable")  # the attack is a run of rows
    numbers = np.empty(len(rows), dtype=np.int64)
    numbers[order] = np.arange(len(rows))
    rows = rows.set_column(place, rows.field("source_row"), pa.array(numbers))
    found, written = reviewed(spark, lake_of(tmp_path, rows), tmp_path)
    reasons = left_out_of(written, rows)
    assert found.judged_by == "rows"
    assert set(reasons[planted]) == {"incident"}
    assert (reasons[~planted] != "").mean() <= 0.01


def test_rows_far_from_everything_known_are_outliers(spark: SparkSession, tmp_path: Path) -> None:
    rows, planted = local()
    far = raw(np.tile([-20.0, -25.0], (2, 1)))
    columns = {name: rows[name].to_numpy().copy() for name in CARD.features}
    at = np.flatnonzero(~planted)[[5, 700]]
    for name in CARD.features:
        columns[name][at] = far[name]
        rows = rows.set_column(rows.column_names.index(name), rows.field(name), pa.array(columns[name]))
    found, written = reviewed(spark, lake_of(tmp_path, rows), tmp_path)
    reasons = left_out_of(written, rows)
    assert np.flatnonzero(reasons == "outlier").tolist() == at.tolist()
    assert found.by_reason == {"incident": 10, "outlier": 2}


def test_rows_without_a_finite_score_are_outliers_also_without_a_second_detector(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows, planted = local()
    at = np.flatnonzero(~planted)[5]
    name = CARD.features[0]
    column = rows[name].to_numpy().copy()
    column[at] = 1e60  # of a finite feature, beyond the range of the network
    rows = rows.set_column(rows.column_names.index(name), rows.field(name), pa.array(column))
    model = dataclasses.replace(champion(Lake(str(tmp_path / "lake"))), novelty=None)
    found, written = reviewed(spark, lake_of(tmp_path, rows), tmp_path, model)
    assert np.flatnonzero(left_out_of(written, rows) == "outlier").tolist() == [at]
    assert found.by_reason == {"incident": 10, "outlier": 1}


def decide(
    lake: Lake,
    verdict: str,
    night: dt.date,
    device: str,
    hour: int,
    minute: int = 0,
    category: str = "DDoS",
    kind: str = "device_id",
) -> None:
    """Write the alert of an incident and a verdict on it."""
    start = dt.datetime.combine(night, dt.time(hour, minute), dt.UTC)
    entity = {"kind": kind, "name": device, "flows": 10}
    alert = {"incident_id": "i1", "entity_kind": kind, "entity": device, "is_source": kind == "src_ip"}
    alert |= {"window_start": start, "category": category}
    given = {"event_date": night, "incident_id": "i1", "verdict": verdict, "category": category, "entities": [entity]}
    given |= {"run_id": "20260302T000000Z-aa", "created_at": start}
    write_rows(lake.uri(f"alerts/event_date={night}/part-00000.parquet"), [alert], ALERTS)
    write_rows(lake.uri(f"verdicts/20260302T000000Z-{night}.parquet"), [given], VERDICTS)


def test_flows_of_an_incident_that_was_found_true_are_left_out(spark: SparkSession, tmp_path: Path) -> None:
    rows, _ = local()
    own_way = (pc.hour(rows["event_time"]).to_numpy() == 4) & (rows["device"].to_numpy() == "pump-1")
    below = raw(around((-3.0, 2.0), len(rows), 7))  # the operating point, every night
    for name in CARD.features:
        column = pa.array(np.where(own_way, below[name], rows[name].to_numpy()))
        rows = rows.set_column(rows.column_names.index(name), rows.field(name), column)
    nameless = pc.and_(pc.equal(rows["event_date"], NIGHTS[0]), pc.equal(rows["device"].cast(pa.string()), "monitor-1"))
    for name, value in (("device", None), ("source_file", f"event_date={NIGHTS[0]}/a.parquet")):
        column = pc.if_else(nameless, pa.scalar(value, pa.string()), rows[name].cast(pa.string()))
        rows = rows.set_column(rows.column_names.index(name), rows.field(name), column.cast(rows.field(name).type))
    lake = lake_of(tmp_path, rows)
    decide(lake, "true", NIGHTS[0], "a.parquet", 8, 20, kind="source_file")
    source, start = "198.51.100.7", dt.datetime.combine(NIGHTS[1], dt.time(8, 20), dt.UTC)
    decide(lake, "true", NIGHTS[1], source, 8, 20, kind="src_ip")  # the eleventh window of 50 minutes from midnight on
    flagged = {"device": "pump-2", "source": source, "window_start": start}
    write_rows(lake.uri(f"evidence/event_date={NIGHTS[1]}/part-00000.parquet"), [flagged], tables.EVIDENCE)
    decide(lake, "true", NIGHTS[3], "pump-1", 3, 20, category="Unknown")
    decide(lake, "true", NIGHTS[2], "pump-2", 8, 20, category="Attack")  # of an earlier model of two classes
    decide(lake, "true", NIGHTS[4], "pump-2", 8, 20, category="Recon")
    for night, key in ((NIGHTS[3], None), (NIGHTS[4], "0123456789abcdef")):
        write_rows(lake.uri(f"nights/event_date={night}/part-00000.parquet"), [{"key_id": key}], tables.NIGHTS)
    reviewed_rows, written = reviewed(spark, lake, tmp_path, minutes=50)
    assert reviewed_rows.unmatched == 1  # whose names are under another key
    out = written[written["left_out"] == "verdict"]
    found = [
        (date, device, time.hour) for date, device, time in zip(out.event_date, out.device, out.event_time, strict=True)
    ]
    assert Counter(found) == {
        (NIGHTS[0], None, 9): 10,
        (NIGHTS[1], "pump-2", 9): 10,
        (NIGHTS[2], "pump-2", 9): 10,
        (NIGHTS[3], "pump-1", 4): 10,
    }


def test_flows_of_an_incident_that_was_found_benign_are_learned(spark: SparkSession, tmp_path: Path) -> None:
    rows, planted = local()
    lake = lake_of(tmp_path, rows)
    decide(lake, "benign", *ATTACK_AT)
    found, written = reviewed(spark, lake, tmp_path)
    assert found.by_reason == {}
    assert not np.any(left_out_of(written, rows)[planted] != "")


def test_a_second_review_replaces_the_reasons_of_the_first(spark: SparkSession, tmp_path: Path) -> None:
    rows, _ = local()
    place = rows.column_names.index("left_out")
    rows = rows.set_column(place, rows.field("left_out"), pa.repeat("outlier", len(rows)))
    _, written = reviewed(spark, lake_of(tmp_path, rows), tmp_path)
    assert written["left_out"].value_counts().to_dict() == {"incident": 10}


def test_distances_are_those_of_a_search_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    sample, rows = (rng.normal(size=(n, 5)).astype(np.float32) for n in (303, 40))
    found = known_rows.Sample.of(sample).log_distances(rows)
    pairs = np.log(distance.cdist(rows, sample) + 0.01).reshape(40, 3, 101).min(axis=2).mean(axis=1)
    assert found == pytest.approx(pairs, abs=1e-3)
    assert np.isinf(known_rows.Sample.of(sample[:2]).log_distances(rows)).all()


def test_cells_beyond_chance_are_suspicious_unless_the_device_is_so_on_other_nights() -> None:
    rng = np.random.default_rng(1)
    device, group = (part.ravel() for part in np.meshgrid(np.repeat(np.arange(20), 24), np.arange(7)))
    found = rng.poisson(0.3, (len(device), 5))
    found[device == 3, 2] = rng.poisson(20.0, np.count_nonzero(device == 3))  # every night
    attacked = np.flatnonzero((device == 7) & (group == 4))[:2]
    found[attacked, 1] += 12
    suspects = suspicious_cells.suspicious(Places(device, group, np.full(len(device), 100), found))
    assert suspects[attacked, 1].all()
    assert suspects[device == 3, 2].mean() < 0.01
    assert suspects.mean() < 0.001
