"""Nights that are broken, late, scored again, by two models, or by models of fewer classes. All flows are synthetic."""

import dataclasses
import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xgboost

from ids_spark.dataset.taxonomy import CLASSES
from ids_spark.models import artifact
from tests.support.broken_night import EXTRA, break_night
from tests.support.browser import Page, numbers
from tests.support.in_process import run
from tests.support.keys import key_pair
from tests.support.nights import (
    DATE,
    FLOWS,
    MODEL,
    another,
    audit,
    blended,
    coarser,
    comparable,
    content_of,
    copy,
    differing,
    logs_of,
    network_of,
    night_row,
    read,
    score,
    stored,
)

NEXT, LAST = DATE + dt.timedelta(days=1), DATE + dt.timedelta(days=2)
ROWS = FLOWS + 190
AMOUNTS = ["Header_Length", "Rate", "Srate", "Tot sum", "Min", "Max", "AVG", "Std", "Tot size", "Magnitue", "Radius"]
AMOUNTS += ["Covariance", "Variance", "ack_count", "syn_count", "fin_count", "rst_count"]


def of_date(folder: Path, date: dt.date) -> dict[str, bytes]:
    """Every file of a date in the lake."""
    return {path: data for path, data in content_of(folder / "lake").items() if f"event_date={date}" in path}


def test_of_a_broken_night_every_flow_is_scored_or_quarantined_with_its_reason(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    logs = folder / "logs" / f"event_date={DATE}"
    broken = break_night(logs)
    code, output = score(folder)
    assert code == 3, output
    row, refused, predictions = night_row(folder), read(folder, "quarantine/job=score"), read(folder, "predictions")
    assert row["rows_in"] == broken.rows == broken.scored + sum(broken.quarantined.values()) == ROWS - broken.lost
    imputed, predictions = predictions[predictions["imputed"].notna()], predictions[predictions["imputed"].isna()]
    assert row["rows_scored"] == len(predictions) == broken.scored
    assert row["rows_imputed"] == len(imputed) == refused["scored"].sum()
    assert row["rows_quarantined"] == len(refused) == sum(broken.quarantined.values())
    assert {entry["reason"]: entry["rows"] for entry in row["quarantine"]} == dict(broken.quarantined)
    assert refused["reason"].value_counts().to_dict() == dict(broken.quarantined)
    files = {file["name"]: file for file in row["files"]}
    assert len(files) == len(list(logs.glob("*.parquet"))) == 11
    assert {name: file["reason"] for name, file in files.items() if file["reason"]} == dict(broken.files)
    assert sum(file["rows"] for file in files.values()) == broken.rows
    assert list(row["extra_columns"]) == [EXTRA]

    scored_ids = set(predictions["flow_id"])
    for kind in ("infinity", "extra_column"):
        assert scored_ids.issuperset(broken.flow_ids[kind])
    for kind in ("nan", "negative_rate", "share", "text", "missing", "truncated", "empty", "duplicated_column"):
        assert scored_ids.isdisjoint(broken.flow_ids[kind])
    of_nan = refused[refused["reason"] == "not_a_number"]
    assert {tuple(features) for features in of_nan["features"]} == {("AVG",)}
    # One feature at fault: scored without it, and still in quarantine. Two of them, or a row that was not read: not.
    of_kind = {flow: kind for kind, flows in broken.flow_ids.items() for flow in flows}
    assert set(map(of_kind.get, imputed["flow_id"])) == {"nan", "share", "text"}
    assert set(map(of_kind.get, refused["flow_id"][~refused["scored"]])) == {"negative_rate", "duplicated_column"}
    assert imputed.set_index("flow_id")["imputed"].to_dict() == {
        flow: features[0] for flow, features in refused[refused["scored"]][["flow_id", "features"]].to_numpy()
    }
    assert refused["device_id"].notna().all()
    drift = read(folder, "drift")
    assert set(drift.loc[drift["kind"] == "feature", "rows"]) == {broken.scored}
    assert sum(each["flows"] for each in row["class_mix"]) == broken.scored
    traffic = read(folder, "traffic")
    assert traffic.loc[~traffic["is_source"], "flows"].sum() == broken.scored + len(imputed)
    where = of_nan.iloc[0]
    flow = pq.ParquetFile(logs / where["source_file"]).read().slice(int(where["source_row"]), 1)
    assert flow["flow_id"].to_pylist()[0] in broken.flow_ids["nan"]

    notes = audit(folder)
    assert notes["rows_quarantined"] == sum(broken.quarantined.values())
    counts = {entry["what"]: entry["rows"] for entry in notes["counts"]}
    assert counts.items() >= {f"not scored: {reason}": n for reason, n in broken.quarantined.items()}.items()
    for name, reason in broken.files.items():
        assert [note for note in notes["notes"] if note.startswith(f"{DATE}: not scored: {reason}: {name}: ")]
    assert f"{DATE}: 1 extra column(s) were ignored: {EXTRA}" in list(notes["notes"])
    assert notes["status"] == "degraded"
    assert [each["reason"] for each in row["degraded"]] == ["files_unreadable", "files_not_scored"]
    page = Page((folder / "lake/reports/night" / f"event_date={DATE}" / "night.html").read_text())
    assert all(name in page.text("refused-files") for name in broken.files)
    assert {name for name, _ in page.all("data-refused-of")} == {*refused["device_id"], *refused["src_ip"].dropna()}


def test_a_rerun_changes_nothing_but_run_and_times_and_leaves_other_dates_alone(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    shutil.copytree(folder / "logs" / f"event_date={DATE}", folder / "logs" / f"event_date={NEXT}")
    code, output = score(folder, f"score.first_date={DATE}", f"score.last_date={NEXT}", date=None)
    assert code == 0, output
    assert audit(folder)["rows_in"] == 2 * ROWS
    assert night_row(folder, date=DATE)["rows_of_another_date"] == 0
    assert night_row(folder, date=NEXT)["rows_of_another_date"] == ROWS
    first, before = comparable(folder, NEXT), of_date(folder, DATE)
    trend = folder / "lake/reports/night" / f"event_date={NEXT}" / "trend.png"
    drawn = trend.read_bytes()

    code, output = score(folder, date=NEXT)
    assert code == 0, output
    assert differing(comparable(folder, NEXT), first) == []
    assert of_date(folder, DATE) == before
    assert trend.read_bytes() == drawn  # the trend includes other nights of the same run
    assert pd.read_parquet(folder / "lake/predictions")["event_date"].value_counts().tolist() == [ROWS, ROWS]
    assert len(list((folder / "lake/audit").glob("*-score.parquet"))) == 2
    assert "became champion" not in output


def test_late_files_are_counted_and_scored(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    logs = folder / "logs" / f"event_date={DATE}"
    late = logs / "flows-00003.parquet"
    late.rename(folder / "kept")
    code, output = score(folder)
    assert code == 0, output
    assert night_row(folder)["rows_late"] == 0
    before = read(folder, "predictions").set_index(["source_file", "source_row"])
    (logs / "hour=23").mkdir()
    (folder / "kept").rename(logs / "hour=23" / "late.parquet")
    code, output = score(folder)
    assert code == 0, output
    row, after = night_row(folder), read(folder, "predictions").set_index(["source_file", "source_row"])
    assert row["rows_late"] == ROWS - len(before) == 5_048
    assert {"what": "late rows", "split": str(DATE), "class_name": None, "rows": 5_048} in list(audit(folder)["counts"])
    assert len(after) == ROWS
    pd.testing.assert_series_equal(after.loc[before.index, "attack_logit"], before["attack_logit"])
    assert set(after.drop(before.index).reset_index()["source_file"]) == {"hour=23/late.parquet"}
    assert after["run_id"].nunique() == 1
    first = comparable(folder)
    code, output = score(folder)
    assert code == 0, output
    assert differing(comparable(folder), first) == []


def test_a_challenger_scores_the_same_night_and_is_compared(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    first, second = stored(folder), another(folder, "29991231T000000Z-challenger")
    assert score(folder)[0] == 2  # two versions, and none was promoted
    for version, alias in ((first.card.version, "champion"), (second.card.version, "challenger")):
        code, output = run(
            folder, "promote", f"promote.model={MODEL}", f"promote.version={version}", f"promote.alias={alias}"
        )
        assert code == 0, output
    code, output = score(folder)
    assert code == 0, output
    champion, challenger = night_row(folder), night_row(folder, "challenger")
    assert (champion["model_sha256"], challenger["model_sha256"]) == (first.sha256, second.sha256)
    assert audit(folder)["models"].tolist() == [f"{MODEL}/{m.card.version}" for m in (first, second)]

    flows, predictions = logs_of(folder), read(folder, "predictions")
    assert set(predictions["model_version"]) == {first.card.version}
    fitted = second.preprocessor.transform({f: flows[f].to_numpy() for f in second.card.features}, second.card.features)
    p = network_of(second).predict(np.column_stack(fitted), batch_size=4096, verbose=0)
    logits = np.log(p[:, 1:].sum(axis=1, dtype=np.float64)) - np.log(p[:, 0].astype(np.float64))
    limit = challenger["threshold_logit"]
    assert limit == second.validation_scores.operating_point().logit != champion["threshold_logit"]
    flagged_by_challenger = logits >= limit
    near = int((np.abs(logits - limit) < 5e-3).sum())
    assert abs(challenger["flows_flagged"] - flagged_by_challenger.sum()) <= near
    mix = pd.DataFrame(list(challenger["class_mix"])).groupby("class_name")["flows"].sum()
    own = pd.Series([CLASSES[19][i] for i in p.argmax(axis=1)]).value_counts()
    assert mix.sub(own, fill_value=0).abs().sum() <= 4
    both = int((flagged_by_challenger & predictions["flagged"]).sum())
    page = Page((folder / "lake/reports/night" / f"event_date={DATE}" / "night.html").read_text())
    (shown,) = numbers(page.texts("data-agreement")["both"])
    assert both - near <= int(shown.replace(",", "")) <= both + near
    assert set(read(folder, "incidents")["model_version"]) == {first.card.version}
    assert set(read(folder, "drift")["model_version"]) == {first.card.version}

    before = read(folder, "incidents")
    misfit = dataclasses.replace(second.card, version="29991231T000001Z-misfit")
    artifact.write_model(
        str(folder / "lake/models" / MODEL / misfit.version),
        misfit,
        [weights[..., :-1] for weights in second.weights],
        second.preprocessor,
        second.validation_scores,
    )
    chosen = (f"promote.model={MODEL}", f"promote.version={misfit.version}", "promote.alias=challenger")
    code, output = run(folder, "promote", *chosen)
    assert code == 0, output
    code, output = score(folder)
    assert code == 3, output
    assert set(read(folder, "nights")["role"]) == {"champion"}
    [reason] = night_row(folder)["degraded"]
    assert "weights do not fit" in reason["text"]
    assert read(folder, "incidents")["incident_id"].tolist() == before["incident_id"].tolist()

    keys = key_pair(tmp_path / "keys")
    for version, alias in ((first.card.version, "champion"), (second.card.version, "challenger")):
        chosen = (f"promote.model={MODEL}", f"promote.version={version}", f"promote.alias={alias}")
        code, output = run(folder, "promote", *chosen, "promote.sign=true", *keys.signing)
        assert code == 0, output
    (folder / "lake/models" / MODEL / second.card.version / "signature.json").unlink()
    code, output = score(folder, keys.trusting)
    assert code == 3, output  # the champion has scored the night alone
    assert set(read(folder, "nights")["role"]) == {"champion"}
    [reason] = night_row(folder)["degraded"]
    assert reason["reason"] == "challenger_refused"
    page = (folder / "lake/reports/night" / f"event_date={DATE}" / "night.html").read_text()
    assert "the challenger was not used" in page
    assert f"model signed by key {keys.sign_key.key_id}" in page
    assert read(folder, "incidents")["incident_id"].tolist() == before["incident_id"].tolist()


@pytest.mark.parametrize(("classes", "architecture"), [(2, "gru_dnn"), (6, "dnn")])
def test_a_model_of_fewer_classes_scores_a_night_of_whatever_columns_and_values(
    nights: Path, tmp_path: Path, classes: int, architecture: str
) -> None:
    folder = copy(nights, tmp_path / "night")
    model = coarser(folder, classes, architecture)
    logs = folder / "logs" / f"event_date={DATE}"
    flows = pq.ParquetFile(logs / "flows-00000.parquet").read().slice(0, 600).to_pandas()
    shutil.rmtree(logs)
    logs.mkdir()
    flows["when"] = flows["event_time"].dt.strftime("%Y-%m-%d %H:%M:%S.%f+00:00")
    flows.loc[7, AMOUNTS] = 9e99  # finite, and below the value that represents infinity
    odd = pa.Table.from_pandas(flows.drop(columns=["device_id", "event_time"]), preserve_index=False)
    odd = odd.append_column("source.ip", pa.array([b"\xff\xfe"] * 600)).append_column("tags", pa.array([["x"]] * 600))
    pq.write_table(odd, logs / "odd.parquet", row_group_size=250)
    settings = [f"score.models=[{model.card.name}]", "score.event_time=when", "score.columns=[levels,lineage]"]
    settings += ["score.pass_through=[when,device_id,tags,source.ip,flow_id]", "alerts.entities=[device_id]"]
    code, output = score(folder, *settings)
    assert code == 0, output
    row, predictions = night_row(folder), read(folder, "predictions")
    assert row["rows_in"] == 600 == row["rows_scored"] + row["rows_quarantined"]
    assert list(row["extra_columns"]) == ["src_ip", "tags"]
    for level in (2, 6, 19):
        column = predictions[f"predicted_class{level}"]
        assert column.isin(CLASSES[level]).all() if level <= classes else column.isna().all()
    assert predictions[["device_id", "tags"]].isna().all().all()
    assert set(predictions["source.ip"]) == {"\\xff\\xfe"}
    assert {"top3", "attributions"}.isdisjoint(predictions)
    imputed = predictions["imputed"].notna()
    assert predictions.loc[~imputed, "row_key"].notna().all()
    kept = flows.loc[predictions["source_row"]].reset_index(drop=True)
    assert (predictions["when"] == kept["event_time"]).all()
    assert predictions["flow_id"].tolist() == kept["flow_id"].tolist()
    assert np.isfinite(predictions["attack_logit"]).all()
    assert predictions["attack_probability"].between(0, 1).all()
    odd_row = model.preprocessor.transform(
        {f: flows[f].to_numpy()[7:8] for f in model.card.features}, model.card.features
    )
    with np.errstate(over="ignore"):
        p = network_of(model).predict(np.column_stack(odd_row).astype(np.float32), verbose=0)
    refused = read(folder, "quarantine/job=score")
    # Sums of a DNN overflow unless its units cut them off, which depends on its weights; the gates of a GRU limit them.
    if np.isnan(p).any():
        assert refused[["reason", "source_row"]].to_numpy().tolist() == [["no_finite_score", 7]]
        assert set(refused["features"].iloc[0]) <= set(AMOUNTS)
        # with this feature at its benign median, the others of the row may still be too large
        assert set(predictions.loc[imputed, "source_row"]) <= {7}
        assert 7 not in predictions.loc[~imputed, "source_row"].tolist()
    else:
        assert len(refused) == imputed.sum() == 0
        assert 7 in predictions["source_row"].tolist()
    assert read(folder, "traffic")["entity_key"].nunique() == 1  # the file
    assert len(read(folder, "incidents")) == row["incidents"]


def test_a_blend_scores_a_night(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    model, booster = blended(folder)
    code, output = score(folder, f"score.models=[{model.card.name}]", "score.columns=[levels,attributions,lineage]")
    assert code == 0, output
    row, predictions = night_row(folder), read(folder, "predictions")
    assert (row["rows_in"], row["rows_scored"], row["model"]) == (ROWS, ROWS, model.card.name)
    flows = logs_of(folder).sort_values(["source_file", "source_row"], ignore_index=True)
    columns = model.preprocessor.transform({f: flows[f].to_numpy() for f in model.card.features}, model.card.features)
    matrix = np.column_stack(columns).astype(np.float32)
    p = 0.25 * network_of(stored(folder)).predict(matrix, verbose=0).astype(np.float64)
    p[:, artifact.present_classes(model.card)] += 0.75 * booster.predict(xgboost.DMatrix(matrix))
    expected = np.log(p[:, 1:].sum(axis=1)) - np.log(p[:, 0])
    np.testing.assert_allclose(predictions["attack_logit"], expected, atol=2e-3, rtol=1e-4)
    assert predictions["flagged"].sum() == row["flows_flagged"] > 0
    explained = predictions["attributions"].dropna()
    assert len(explained) == row["flows_explained"]
    assert {each["feature"] for found in explained for each in found} <= set(model.card.features)


def test_a_night_without_any_usable_file_is_reported(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    logs = folder / "logs" / f"event_date={DATE}"
    shutil.rmtree(logs)
    logs.mkdir()
    (logs / "flows.parquet").write_bytes(b"PAR1")
    code, output = score(folder)
    assert code == 3, output
    row = night_row(folder)
    assert (row["rows_in"], row["incidents"], row["flows_flagged"]) == (0, 0, 0)
    assert row["files"].tolist() == [{"name": "flows.parquet", "rows": 0, "reason": "unreadable_file"}]
    assert len(read(folder, "predictions")) == len(read(folder, "alerts")) == 0
    page = Page((folder / "lake/reports/night" / f"event_date={DATE}" / "night.html").read_text())
    assert page.element("headline").get("data-state") == "not_scored"


def test_a_night_keeps_the_results_of_a_split_that_was_scored_on_its_date(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    today = dt.datetime.now(dt.UTC).date()
    (folder / f"logs/event_date={DATE}").rename(folder / f"logs/event_date={today}")
    flows = pd.read_parquet(folder / "lake/flows/split=test").head(50)
    flows.loc[3, "Rate"] = np.nan
    (folder / "source").mkdir()
    flows.to_parquet(folder / "source/flows.parquet", index=False)
    for code, log in (run(folder, "score", f"score.source={folder}/source"), score(folder, date=today)):
        assert code == 0, log
    of_split = pd.read_parquet(folder / "lake/split_predictions/split=test")
    assert set(of_split["source_row"]) == set(flows["source_row"].drop(3))
    refused = pd.read_parquet(folder / "lake/quarantine/job=score_split/split=test")
    assert refused[["source_row", "reason"]].to_numpy().tolist() == [[flows.loc[3, "source_row"], "missing"]]
    of_night = read(folder, "predictions", today)
    assert len(of_night) + len(read(folder, "quarantine/job=score", today)) == len(logs_of(folder, today))
    assert set(of_night["source_file"]).isdisjoint(of_split["source_file"])


def test_nan_in_one_feature_of_every_attack_flow_hides_no_device_and_no_source(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    truth = pd.read_parquet(folder / "logs/_truth" / f"event_date={DATE}")
    hidden = set(truth["flow_id"][truth["class19"] != "Benign"])
    code, output = score(folder)
    assert code in (0, 3), output
    sound = read(folder, "predictions")
    flagged = sound["flagged"][sound["flow_id"].isin(hidden)].mean()
    assert flagged > 0
    whose: set[str] = set()
    for path in sorted((folder / "logs" / f"event_date={DATE}").glob("*.parquet")):
        table = pq.ParquetFile(path).read()
        chosen = pc.is_in(table["flow_id"], pa.array(sorted(hidden)))
        nan = pc.if_else(chosen, float("nan"), table["Rate"])
        of_attacks = table.filter(chosen)
        whose |= {*of_attacks["device_id"].to_pylist(), *of_attacks["src_ip"].to_pylist()} - {None}
        pq.write_table(table.set_column(table.column_names.index("Rate"), "Rate", nan), path)
    code, output = score(folder)
    assert code in (0, 3), output
    row, predictions = night_row(folder), read(folder, "predictions")
    assert row["rows_quarantined"] == row["rows_imputed"] == len(hidden) > 100
    assert set(predictions["flow_id"][predictions["imputed"] == "Rate"]) == hidden
    assert predictions["flagged"][predictions["imputed"].notna()].mean() > 0.5 * flagged
    incidents = read(folder, "incidents")
    assert "Quarantined" in set(incidents["category"])
    page = Page((folder / "lake/reports/night" / f"event_date={DATE}" / "night.html").read_text())
    assert {name for name, _ in page.all("data-refused-of")} == whose
    assert "in quarantine" in page.text("headline") or "refused" in page.text("headline")
