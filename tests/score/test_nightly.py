"""A night from flow logs to tables, page and exports, compared with pandas and Keras on the same files.

All flows and models here are synthetic.
"""

import datetime as dt
import hashlib
import hmac
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from ids_spark.alerts import severity
from ids_spark.alerts.evidence import entity_keys
from ids_spark.dataset.tables import SCHEMA_VERSION
from ids_spark.dataset.taxonomy import CLASS2, CLASS6, CLASS19, CLASSES, UNKNOWN, class6_of
from ids_spark.models import artifact
from tests.support.audits import drop_refusals
from tests.support.browser import Page, check_structure, numbers
from tests.support.modes import open_to_others
from tests.support.nights import (
    DATE,
    FLOWS,
    KEY,
    MODEL,
    TABLES,
    audit,
    content_of,
    copy,
    logs_of,
    network_of,
    night_row,
    read,
    score,
    stored,
)
from tests.support.published_schemas import ecs_faults, ocsf_faults

UNKNOWN_1 = (UNKNOWN, 1e-2)
NEXT = DATE + dt.timedelta(days=1)
INVENTORY = """address,device,type,criticality,rack
192.0.2.99,mqtt-broker-01,broker,5,7
198.51.100.23,scanner,inventory server,1,
"""
ALLOWED = """
- reason: A pump that is being repaired
  owner: Medical technology
  expires: {expires}
  where: {{device_id: [{device}]}}
"""


@pytest.fixture(scope="module")
def scored(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The night of a site that does not learn; every flow of the highest level is explained."""
    folder = copy(nights, tmp_path_factory.mktemp("scored") / "night")
    (folder / "inventory.csv").write_text(INVENTORY)
    settings = ("score.learning_nights=0", f"score.inventory={folder}/inventory.csv")
    code, output = score(folder, "alerts.explained_rows=64", *settings)
    assert code == 0, output
    return folder


def test_no_file_of_a_night_is_for_other_users(scored: Path) -> None:
    assert not open_to_others(scored / "lake")


def scaled(folder: Path, flows: pd.DataFrame, name: str = MODEL) -> np.ndarray:
    """The model's input by the formula alone, from the stored JSON."""
    [place] = (folder / "lake/models" / name).glob("*/")
    card = json.loads((place / "model.json").read_text())
    fitted = {f["name"]: f for f in json.loads((place / "preprocessor.json").read_text())["features"]}
    columns = []
    for feature in card["features"]:
        f, raw = fitted[feature], flows[feature].to_numpy()
        raw = np.where(raw == np.inf, f["high"], np.where(raw == -np.inf, f["low"], raw))
        columns.append((raw - f["mean"]) / f["std"])
    return np.column_stack(columns).astype(np.float32)


def expected(folder: Path, flows: pd.DataFrame, name: str = MODEL) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and attack logits by Keras."""
    p = network_of(stored(folder, name)).predict(scaled(folder, flows, name), batch_size=4096, verbose=0)
    attack = p[:, 1:].astype(np.float64).sum(axis=1)
    with np.errstate(divide="ignore"):
        return p, np.clip(np.log(attack) - np.log(p[:, 0].astype(np.float64)), -80, 80)


def unambiguous(p: np.ndarray) -> np.ndarray:
    """Rows whose most probable class does not depend on rounding."""
    best = np.sort(p, axis=1)
    return best[:, -1] - best[:, -2] > 1e-4


def attack_class(predictions: pd.DataFrame) -> list[str]:
    return [next(t["class_name"] for t in top if t["class_name"] != "Benign") for top in predictions["top3"]]


def test_every_flow_has_one_prediction_and_it_is_that_of_an_independent_computation(scored: Path) -> None:
    flows, predictions = logs_of(scored), read(scored, "predictions")
    assert len(flows) == len(predictions) == FLOWS + 190
    where = ["source_file", "source_row"]
    assert not predictions.duplicated(where).any()
    pd.testing.assert_frame_equal(predictions[where], flows[where])
    for column in ("flow_id", "device_id", "src_ip"):
        assert predictions[column].tolist() == flows[column].tolist()
    assert (predictions["event_time"] == flows["event_time"]).all()

    p, logits = expected(scored, flows)
    np.testing.assert_allclose(predictions["probability"], p.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(predictions["attack_probability"], p[:, 1:].sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(predictions["attack_logit"], logits, atol=2e-3, rtol=1e-4)
    sums = {19: p}
    for level, names in ((6, CLASS6), (2, CLASS2)):
        of = [class6_of(c) if level == 6 else ("Benign" if c == "Benign" else "Attack") for c in CLASS19]
        sums[level] = np.column_stack([p[:, [name == c for c in of]].sum(axis=1) for name in names])
    for level, of_level in sums.items():
        sure = unambiguous(of_level)
        ids = predictions[f"predicted_class{level}_id"].to_numpy()
        assert sure.mean() > 0.99
        assert (ids[sure] == of_level.argmax(axis=1)[sure]).all()
        assert predictions[f"predicted_class{level}"].tolist() == [CLASSES[level][i] for i in ids]
    best = np.sort(p, axis=1)[:, ::-1][:, :3]
    found = np.array([[t["probability"] for t in top] for top in predictions["top3"]])
    np.testing.assert_allclose(found, best, atol=1e-5)
    names = [[t["class_name"] for t in top] for top in predictions["top3"]]
    of_names = np.array([[p[i, CLASS19.index(name)] for name in three] for i, three in enumerate(names)])
    np.testing.assert_allclose(of_names, found, atol=1e-5)

    row, state = night_row(scored), predictions["state"]
    flagged = logits >= row["threshold_logit"]
    near = np.abs(logits - row["threshold_logit"]) < 5e-3
    assert ((state == "attack") == flagged)[~near].all()
    unknown = predictions[state == "unknown"]
    assert row["flows_flagged"] == predictions["flagged"].sum() == (state != "benign").sum() > 100
    assert row["flows_unknown"] == len(unknown) < 0.02 * FLOWS
    novelty, [reached] = (
        stored(scored).novelty,
        {rate["threshold_logit"] for rate in row["false_alarm_rates"] if (rate["category"], rate["rate"]) == UNKNOWN_1},
    )
    far = novelty.distances(scaled(scored, flows)) >= reached
    assert ((state == "unknown") == (far & ~flagged))[~near].mean() > 0.9999
    alerts, table = predictions[state == "attack"], severity.DEFAULT
    severities = [table.classes.get(c, getattr(table.categories, class6_of(c))) for c in attack_class(alerts)]
    assert alerts["severity"].tolist() == severities  # a single flow meets no escalation
    assert (unknown["severity"] == table.categories.Unknown).all()
    assert predictions.loc[~predictions["flagged"], "severity"].isna().all()
    for column, value in {"model": MODEL, "data_origin": "synthetic", "schema_version": SCHEMA_VERSION}.items():
        assert (predictions[column].astype(type(value)) == value).all()
    assert predictions["model_version"].unique().tolist() == [stored(scored).card.version]


def several(strongest: pd.DataFrame) -> pd.Series:
    """Which of the strongest flows have two others of their file, class and device, or class and source."""
    found = strongest.assign(attack=attack_class)
    counts = [found.groupby(["source_file", "attack", c])["attack"].transform("size") for c in ("device_id", "src_ip")]
    return (counts[0] >= 3) | (counts[1] >= 3)


def test_the_strongest_flows_have_attributions_and_these_are_integrated_gradients_from_the_benign_baseline(
    scored: Path,
) -> None:
    predictions, flows = read(scored, "predictions"), logs_of(scored)
    levels = {rate["rate"]: rate["threshold_logit"] for rate in night_row(scored)["false_alarm_rates"][:3]}
    strongest = predictions["attack_logit"] >= np.float32(levels[min(levels)])
    strongest &= several(predictions[strongest]).reindex(predictions.index, fill_value=False)
    assert predictions.loc[~strongest, "attributions"].isna().all()
    assert (
        predictions.loc[strongest, "attributions"].notna().all()
    )  # fewer than alerts.explained_rows of each class and file
    assert night_row(scored)["flows_explained"] == strongest.sum()

    model, rows = stored(scored), np.flatnonzero(strongest)[:40]
    network, x = network_of(model), scaled(scored, flows)[rows]
    head = tf.keras.Model(network.input, network.get_layer("logits").output)
    baseline = np.array(model.validation_scores.baseline, np.float32)

    def logit(points: Any) -> Any:
        found = head(points, training=False)
        return tf.reduce_logsumexp(found[:, 1:], axis=1) - found[:, 0]

    steps, apart = (np.arange(4096, dtype=np.float32) + 0.5) / 4096, []
    for i, flow in zip(rows, x, strict=True):
        line = tf.constant(baseline + steps[:, None] * (flow - baseline))
        with tf.GradientTape() as tape:
            tape.watch(line)
            found = logit(line)
        moved = tape.gradient(found, line).numpy().mean(axis=0) * (flow - baseline)
        gap = float(logit(flow[None])[0] - logit(baseline[None])[0])
        assert moved.sum() == pytest.approx(gap, rel=0.03, abs=0.05)  # completeness
        named = predictions.loc[i, "attributions"]
        assert 1 <= len(named) <= 3
        by_name = dict(zip(model.card.features, moved, strict=True))
        for entry, size in zip(named, sorted(moved, reverse=True), strict=False):
            apart += [abs(entry["contribution"] - x) / max(abs(x), 0.5) for x in (size, by_name[entry["feature"]])]
            assert entry["value"] == flows.loc[i, entry["feature"]]
    # 32 points for 4,096: the difference of single flows depends on the weights, which differ between machines.
    assert np.quantile(apart, 0.9) < 0.1


def counted(predictions: pd.DataFrame, levels: list[float]) -> pd.DataFrame:
    """Evidence of the network by pandas: flagged flows by device, source, hour and most probable attack."""
    flagged = predictions[predictions["state"] == "attack"].copy()
    flagged["class_name"] = attack_class(flagged)
    flagged["window_start"] = flagged["event_time"].dt.floor("60min")
    for i, level in enumerate(levels, start=1):
        flagged[f"flagged_{i}"] = flagged["attack_logit"] >= np.float32(level)
    groups = flagged.groupby(["device_id", "src_ip", "window_start", "class_name"])
    return groups.agg(
        flagged_1=("flagged_1", "sum"),
        flagged_2=("flagged_2", "sum"),
        flagged_3=("flagged_3", "sum"),
        first_seen=("event_time", "min"),
        last_seen=("event_time", "max"),
        max_attack_logit=("attack_logit", "max"),
    )


def test_evidence_and_traffic_count_the_predictions_and_incidents_are_made_of_them(scored: Path) -> None:
    predictions, row, found = read(scored, "predictions"), night_row(scored), read(scored, "evidence")
    levels = [rate["threshold_logit"] for rate in row["false_alarm_rates"][:3]]
    expected = counted(predictions, levels)
    known = found[found["class_name"] != UNKNOWN]
    own = known.set_index(["device", "source", "window_start", "class_name"]).loc[list(expected.index)]
    assert len(known) == len(expected) > 20
    for column in ("flagged_1", "first_seen", "last_seen"):
        assert own[column].tolist() == expected[column].tolist()
    for column in ("flagged_2", "flagged_3"):  # logits are stored as float32
        assert (own[column] - expected[column]).abs().sum() <= 2
    np.testing.assert_allclose(own["max_attack_logit"], expected["max_attack_logit"], rtol=1e-6)
    assert found.loc[found["class_name"] == UNKNOWN, "flagged_1"].sum() == row["flows_unknown"]

    traffic = read(scored, "traffic").set_index(["entity_key", "window_start"])["flows"]
    hours = predictions["event_time"].dt.floor("60min")
    for column in ("device_id", "src_ip"):
        of_entity = predictions.groupby([column, hours]).size()
        names = of_entity.index.get_level_values(0)
        keys = entity_keys([column] * len(names), names.tolist())
        assert traffic[list(zip(keys, of_entity.index.get_level_values(1), strict=True))].tolist() == of_entity.tolist()
    assert traffic.sum() == 2 * len(predictions)

    incidents, alerts = read(scored, "incidents"), read(scored, "alerts")
    assert row["incidents"] == row["incidents_shown"] == len(incidents) == incidents["shown"].sum()
    assert incidents.sort_values("rank")["score"].is_monotonic_decreasing
    assert set(alerts["incident_id"]) == set(incidents["incident_id"])
    assert (alerts["log10_p"] <= np.log10(row["alpha"]) + 1e-9).all()
    assert row["false_incidents_expected"] <= row["false_incidents"] == 1.0
    assert incidents["flows"].sum() <= row["flows_flagged"]


def test_the_attacks_of_the_night_are_incidents(scored: Path) -> None:
    """The night has four attacks of 20 to 120 flows: the model was trained for three epochs only."""
    found = read(scored, "incidents").sort_values("rank")
    assert len(found) <= 8
    sources = {source["name"] for incident in found["sources"] for source in incident}
    assert sources >= {"203.0.113.66", "198.51.100.23"}
    assert {"MQTT", "Recon"} <= set(found["category"])


def test_the_inventory_says_more_of_incidents_and_names_devices_that_it_lacks(scored: Path) -> None:
    found, row = read(scored, "incidents"), night_row(scored)
    known = {each["name"]: each for rows in found["inventory"] for each in rows}
    assert known["mqtt-broker-01"]["type"] == "broker"
    assert (known["198.51.100.23"]["device"], known["198.51.100.23"]["criticality"]) == ("scanner", 1)
    factors = dict(zip(found["lead_entity"], found["criticality_factor"], strict=True))
    assert factors["mqtt-broker-01"] == 2.0
    flows = logs_of(scored).groupby("device_id").size().drop("mqtt-broker-01")
    listed = {each["name"]: each["flows"] for each in row["devices_unknown"]}
    assert row["devices_unknown_found"] == len(flows)
    assert listed == flows[list(listed)].to_dict()
    page = (scored / f"lake/reports/night/event_date={DATE}/night.html").read_text()
    assert f'id="unknown-devices" data-devices="{len(flows)}"' in page
    assert any("rack" in note for note in audit(scored)["notes"])


def test_the_inventory_is_joined_by_pseudonyms(restricted: Path) -> None:
    pseudonym = hmac.new(KEY.encode(), b"198.51.100.23", hashlib.sha256).hexdigest()[:32]
    known = {each["name"]: each for rows in read(restricted, "incidents")["inventory"] for each in rows}
    assert known[pseudonym]["type"] == "inventory server"
    assert known[pseudonym]["device"] is None
    devices = logs_of(restricted)["device_id"].nunique()
    assert night_row(restricted)["devices_unknown_found"] == devices - 1


def test_exports_are_valid_and_the_page_shows_the_figures_of_the_tables(scored: Path) -> None:
    place = scored / "lake/exports" / f"event_date={DATE}"
    found, row = read(scored, "incidents").sort_values("rank"), night_row(scored)
    for name, faults_of in (("incidents.ocsf.jsonl", ocsf_faults), ("incidents.ecs.jsonl", ecs_faults)):
        events = [json.loads(line) for line in (place / name).read_text().splitlines()]
        assert [faults_of(event) for event in events] == [[]] * len(found)
    events = [json.loads(line) for line in (place / "incidents.ocsf.jsonl").read_text().splitlines()]
    assert [event["finding_info"]["uid"] for event in events] == found["incident_id"].tolist()
    assert [event["count"] for event in events] == found["flows"].tolist()
    assert [event["confidence_score"] for event in events] == (100 * found["posterior"]).round().astype(int).tolist()
    page = Page((scored / "lake/reports/night" / f"event_date={DATE}" / "night.html").read_text())
    check_structure(page)
    worst = found["severity"].iloc[0]
    assert page.element("headline").get("data-state") == "incidents"
    assert numbers(page.text("headline")) == [str(len(found)), str((found["severity"] == worst).sum())]
    assert page.text("headline").endswith(worst)
    assert numbers(page.text("flagged"))[:2] == [f"{row['flows_flagged']:,}", f"{row['rows_scored']:,}"]
    assert row["rows_in"] == row["rows_scored"] == FLOWS + 190
    assert len(found) == row["incidents_shown"]


def test_the_audit_names_files_model_threshold_and_the_first_champion(scored: Path) -> None:
    report, row = audit(scored), night_row(scored)
    assert report["rows_in"] == report["rows_out"] == FLOWS + 190
    assert [line.rsplit(":", 1)[0] for line in report["inputs"]] == [
        f"event_date={DATE}/flows-0000{i}.parquet" for i in range(4)
    ]
    assert report["models"].tolist() == [f"{MODEL}/{stored(scored).card.version}"]
    notes = " ".join(report["notes"])
    assert f"log-odds of attack of at least {row['threshold_logit']:.2f}" in notes
    assert "became champion: it scored its first night" in notes
    names = sorted(path.name for path in (scored / "lake").iterdir())
    assert set(names) >= {table.split("/")[0] for table in TABLES}
    assert not [name for name in names if name.startswith(".")]


def test_drift_counts_every_scored_flow_in_the_bins_of_train(scored: Path) -> None:
    drift, flows = read(scored, "drift"), logs_of(scored)
    assert (drift["rows"] == len(flows)).all()
    assert set(drift["data_origin"]) == {"synthetic"}
    for _, row in drift[drift["kind"] == "feature"].iterrows():
        bins = np.searchsorted(row["edges"], flows[row["name"]], side="right")
        assert np.bincount(bins, minlength=len(row["edges"]) + 1).tolist() == list(row["counts"])
    mix = drift[drift["kind"] == "class_mix"].iloc[0]
    ids = read(scored, "predictions")["predicted_class19_id"]
    assert np.bincount(ids, minlength=19).tolist() == list(mix["counts"])
    hours = pd.DataFrame(list(night_row(scored)["class_mix"])).groupby("hour")["flows"].sum()
    assert hours.to_dict() == flows["event_time"].dt.hour.value_counts().to_dict()


@pytest.fixture(scope="module")
def restricted(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same night with a key, an allow-list, at most two lines and few explained rows."""
    folder = copy(nights, tmp_path_factory.mktemp("restricted") / "night")
    expires = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)
    (folder / "allowed.yaml").write_text(ALLOWED.format(expires=expires, device="mqtt-broker-01"))
    (folder / "key").write_text(KEY + "\n")
    (folder / "key").chmod(0o600)
    settings = ["alerts.most_lines=2", "alerts.explained_rows=2", f"alerts.allow_list={folder}/allowed.yaml"]
    settings += ["score.pseudonymise=[flow_id,device_id,src_ip]", f"score.pseudonym_key_file={folder}/key"]
    (folder / "inventory.csv").write_text(INVENTORY)
    settings += ["score.learning_nights=0", f"score.inventory={folder}/inventory.csv"]
    code, output = score(folder, *settings)
    assert code == 0, output
    assert KEY not in output
    return folder


def test_the_allow_list_covers_flows_that_stay_in_predictions_and_are_counted(restricted: Path, scored: Path) -> None:
    predictions, plain = read(restricted, "predictions"), logs_of(restricted)
    row = night_row(restricted)
    np.testing.assert_allclose(predictions["attack_logit"], read(scored, "predictions")["attack_logit"], atol=1e-4)
    flagged = predictions["attack_logit"] >= np.float32(row["threshold_logit"])
    covered = flagged & (plain["device_id"] == "mqtt-broker-01")
    unknown = predictions["state"] == "unknown"
    covered |= unknown & (plain["device_id"] == "mqtt-broker-01")
    assert row["flows_flagged"] == (flagged | unknown).sum()
    assert row["flows_allowed"] == covered.sum() > 0
    assert predictions["flagged"].tolist() == ((flagged | unknown) & ~covered).tolist()
    assert any(f"covered {covered.sum():,} flagged flow(s)" in note for note in audit(restricted)["notes"])
    evidence, incidents = read(restricted, "evidence"), read(restricted, "incidents")
    assert evidence["allowed_1"].sum() == covered.sum()
    assert (row["incidents_shown"], incidents["shown"].sum()) == (2, 2)
    assert sum(each["incidents"] for each in row["incidents_not_shown"]) == row["incidents"] - 2 > 0
    counts = {entry["what"]: entry["rows"] for entry in audit(restricted)["counts"]}
    assert counts["incidents not shown"] == row["incidents"] - 2


def test_where_few_flows_are_explained_the_best_of_each_row_of_the_evidence_come_first(restricted: Path) -> None:
    predictions = read(restricted, "predictions")
    level = np.float32(night_row(restricted)["false_alarm_rates"][2]["threshold_logit"])
    strongest = predictions[predictions["flagged"] & (predictions["attack_logit"] >= level)]
    alerts = strongest[several(strongest)].assign(attack=attack_class, hour=predictions["event_time"].dt.floor("h"))
    assert alerts["device_id"].notna().all()
    of_incident = alerts.groupby(["source_file", "attack", "device_id", "src_ip", "hour"])["attack_logit"]
    alerts = alerts.assign(follows=of_incident.rank(ascending=False, method="first") > 1)
    assert alerts["follows"].any()
    first = alerts.sort_values(["follows", "attack_logit"], ascending=[True, False])
    explained = first.groupby(["source_file", "attack"]).head(2)
    assert sorted(predictions.index[predictions["attributions"].notna()]) == sorted(explained.index)
    assert len(explained) == night_row(restricted)["flows_explained"]


def test_identifiers_are_replaced_by_their_hmac_and_occur_in_no_file(nights: Path, restricted: Path) -> None:
    plain, predictions = logs_of(restricted), read(restricted, "predictions")
    for column in ("flow_id", "device_id", "src_ip"):
        own = [hmac.new(KEY.encode(), v.encode(), hashlib.sha256).hexdigest()[:32] for v in plain[column][:500]]
        assert predictions[column][:500].tolist() == own
        assert predictions[column].nunique() == plain[column].nunique()
    names = {*plain["device_id"], *plain["src_ip"], KEY}
    looked = 0
    for path in (restricted / "lake").rglob("*"):
        if path.is_file() and not (nights / path.relative_to(restricted)).exists():  # written by the scoring
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += repr(pq.ParquetFile(path).read().to_pydict()).encode()
            assert not [name for name in names if name.encode() in content], path
            assert not re.search(rb"20260301-\d{9}", content), path
            looked += 1
    assert looked > 10


@pytest.mark.parametrize("file", ["model.json", "weights.npz", "preprocessor.json", "validation_scores.json"])
def test_a_changed_byte_in_a_model_file_refuses_the_night(nights: Path, tmp_path: Path, file: str) -> None:
    folder = copy(nights, tmp_path / "night")
    [target] = (folder / "lake/models" / MODEL).glob(f"*/{file}")
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(bytes(content))
    assert_refused(folder, f"{file} was changed after training")


def test_a_preprocessor_of_another_model_refuses_the_night(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    [place] = (folder / "lake/models" / MODEL).glob("*/")
    other = json.loads((place / "preprocessor.json").read_text())
    other["features"][0]["mean"] += 1.0
    (place / "preprocessor.json").write_text(json.dumps(other, indent=2) + "\n")
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["preprocessor.json"] = hashlib.sha256((place / "preprocessor.json").read_bytes()).hexdigest()
    (place / "manifest.json").write_text(json.dumps(manifest))
    assert_refused(folder, "preprocessor.json is of another model")


def test_a_model_without_validation_scores_refuses_the_night(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    model = stored(folder)
    place = folder / "lake/models" / MODEL / model.card.version
    shutil.rmtree(place)
    artifact.write_model(str(place), model.card, model.weights, model.preprocessor)
    assert_refused(folder, "has no validation scores")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("score.pseudonymise=[src_ip]",), "score.pseudonymise names src_ip, but there is no key"),
        (
            ("score.pseudonymise=null",),
            "column(s) flow_id, device_id, src_ip can identify a device or a person",
        ),
        (("score.pass_through=[event_time,model,flow_id]",), "score.pass_through contains model,"),
        (("score.pass_through=[event_time,class_name]",), "score.pass_through contains class_name,"),
        (("score.models=[dnn-2-paper]",), "no model 'dnn-2-paper'"),
        (("score.column_aliases={}", f"score.date={NEXT}"), f"event_date={NEXT} holds no flow logs"),
    ],
)
def test_invalid_settings_refuse_the_night(
    nights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], message: str
) -> None:
    monkeypatch.delenv("IDS_SPARK_PSEUDONYM_KEY", raising=False)
    assert_refused(copy(nights, tmp_path / "night"), message, *settings)


def test_a_feature_column_that_some_files_lack_costs_these_files_and_one_that_all_lack_refuses_the_night(
    nights: Path, tmp_path: Path
) -> None:
    folder = copy(nights, tmp_path / "night")
    paths = sorted((folder / "logs" / f"event_date={DATE}").iterdir())
    for path in paths[2:]:
        pq.write_table(pq.ParquetFile(path).read().drop_columns(["Rate", "IAT"]), path)
    code, output = score(folder)
    assert code == 3, output
    files = {file["name"]: (file["rows"], file["reason"]) for file in night_row(folder)["files"]}
    lost = {path.name: (pq.read_metadata(path).num_rows, "missing_columns") for path in paths[2:]}
    assert files.items() >= lost.items()
    assert night_row(folder)["rows_quarantined"] == sum(rows for rows, _ in lost.values())
    for path in paths[:2]:
        pq.write_table(pq.ParquetFile(path).read().drop_columns(["Rate"]), path)
    assert_refused(folder, "flows-00000.parquet lacks 1 feature column(s) of original45: Rate; flows-00001.parquet")


def assert_refused(folder: Path, message: str, *settings: str) -> None:
    before = content_of(folder)
    code, output = score(folder, *settings)
    assert code == 2, output
    assert message in output
    assert "Traceback" not in output
    assert drop_refusals(folder / "lake") == 1
    assert content_of(folder) == before
