"""Metrics of rows that are and are not in train, and of capture files, against pandas and scikit-learn."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import accuracy_score, f1_score

from ids_spark.dataset.features import ORIGINAL_45
from ids_spark.dataset.tables import SPLIT_PREDICTIONS
from ids_spark.dataset.taxonomy import CLASS6, CLASS19, class6_of
from ids_spark.evaluate import leakage, results, subsets
from ids_spark.evaluate.results import Results
from ids_spark.evaluate.score_counts import ScoreCounts, confusion_of
from ids_spark.lake.store import Lake
from ids_spark.models import artifact
from ids_spark.report import leakage_page
from tests.support.browser import Page, check_structure
from tests.support.models import CARD, PREPROCESSOR, VALIDATION_SCORES, WEIGHTS

ROWS = 400
LABELS = [0, 0, 0, 1, 2, 18, 18, 14]
FILES = {0: "Benign_test", 1: "TCP_IP-DDoS-ICMP1_test", 2: "TCP_IP-DDoS-SYN_test", 14: "Recon-OS_Scan_test"}


def rows_of(seed: int) -> pd.DataFrame:
    """Return predictions of a model of six classes; rows 0 to 49 stand in train, rows 60 to 79 stand there twice."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(LABELS, ROWS)
    six = np.array([CLASS6.index(class6_of(CLASS19[i])) for i in labels])
    predicted = np.where(rng.random(ROWS) < 0.8, six, rng.integers(0, 6, ROWS))
    names = [FILES.get(i, f"ARP_Spoofing{k % 2 + 1}_test") for k, i in enumerate(labels)]
    frame = pd.DataFrame({"source_file": [f"test/{name}.pcap.csv" for name in names], "source_row": np.arange(ROWS)})
    frame = frame.assign(
        row_key=(np.arange(ROWS) * 2**54 - 2**62).astype(np.int64),
        class19=[CLASS19[i] for i in labels],
        predicted_class6_id=predicted.astype(np.int32),
        attack_probability=rng.random(ROWS).astype(np.float32),
    )
    frame.loc[7, "source_file"] = None
    again = frame.iloc[60:80].assign(source_row=lambda rows: rows["source_row"] + ROWS)
    return pd.concat([frame, again, frame.iloc[[5]].assign(class19=None)], ignore_index=True)


def written(lake: Lake, frame: pd.DataFrame) -> None:
    folder = Path(lake.root.removeprefix("file://"))
    train = folder / "flows/split=train"
    train.mkdir(parents=True)
    keys = frame["row_key"].to_numpy()[:50]
    pq.write_table(pa.table({"row_key": np.concatenate([keys, keys[:9], [7]])}), train / "part-00000.parquet")
    card = dataclasses.replace(CARD, data_origin="measured")
    artifact.write_model(lake.uri(f"models/{card.name}/{card.version}"), card, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES)
    predictions = folder / f"split_predictions/split=test/model={card.name}"
    predictions.mkdir(parents=True)
    for i, part in enumerate((frame.iloc[:150], frame.iloc[150:])):
        table = pa.Table.from_pandas(part.reindex(columns=SPLIT_PREDICTIONS.names), preserve_index=False)
        columns = [
            table[f.name].cast(f.type) if part.get(f.name) is not None else pa.nulls(len(part), f.type)
            for f in SPLIT_PREDICTIONS
        ]
        pq.write_table(pa.table(columns, schema=SPLIT_PREDICTIONS), predictions / f"part-{i:05d}.parquet")
    scored = Results("run1", "test")
    six = frame.iloc[:ROWS]["class19"].map(lambda name: CLASS6.index(class6_of(name))).to_numpy(dtype=np.int32)
    scored.add(card, ScoreCounts({6: confusion_of(six, frame["predicted_class6_id"].to_numpy()[:ROWS], 6)}), "measured")
    scored.write(lake, lake.uri)


def test_subsets_have_the_metrics_of_their_rows(spark: SparkSession, tmp_path: Path) -> None:
    lake, frame = Lake(str(tmp_path / "lake")), rows_of(seed=3)
    written(lake, frame)
    models = subsets.scored_models(lake, results.newest(lake, "test"), "test")
    counts = subsets.count(spark.sparkContext, lake, models)
    assert counts["rows"].sum() == ROWS  # rows that are there twice count once
    found = Results("run2", "test")
    subsets.add_to(found, models, counts)
    found.write(lake, lake.uri)
    (model,) = results.newest(lake, "test")
    assert model.run_id == "run1"

    distinct = frame.iloc[:ROWS]
    truth = distinct["class19"].map(lambda name: CLASS6.index(class6_of(name))).to_numpy()
    predicted, attack = distinct["predicted_class6_id"].to_numpy(), distinct["attack_probability"].to_numpy()
    flagged = attack >= VALIDATION_SCORES.operating_point().probability
    seen = np.arange(ROWS) < 50
    for subset, own in (("unseen", ~seen), ("seen", seen)):
        accuracy, f1 = (model.subsets[subset, name] for name in ("accuracy", "f1_macro"))
        assert (accuracy.value, accuracy.support) == (
            pytest.approx(accuracy_score(truth[own], predicted[own])),
            own.sum(),
        )
        assert f1.value == pytest.approx(f1_score(truth[own], predicted[own], average="macro", zero_division=0))
        recalls = [flagged[own & (truth == i)].mean() for i in set(truth[own]) - {0}]
        assert model.subsets[subset, "recall_at_night"].value == pytest.approx(np.mean(recalls))
        benign = own & (truth == 0)
        assert model.subsets[subset, "benign_rate_at_night"].value == pytest.approx(flagged[benign].mean())
        rate = model.subsets[subset, "benign_false_positive_rate"]
        assert (rate.value, rate.support) == (pytest.approx((predicted[benign] != 0).mean()), benign.sum())
    change = model.subsets["unseen", "accuracy_difference"]
    assert change.value == pytest.approx(
        accuracy_score(truth[~seen], predicted[~seen]) - accuracy_score(truth, predicted)
    )
    assert change.low < change.value < change.high
    right = predicted == truth
    rng, drawn = np.random.default_rng(1), []
    for _ in range(500):
        own = rng.integers(ROWS, size=ROWS)
        drawn.append(right[own][~seen[own]].mean() - right[own].mean())
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert (change.low, change.high) == pytest.approx((low, high), abs=0.25 * (high - low))

    for file, rows in distinct.groupby("source_file"):
        at = rows.index.to_numpy()
        metric = model.subsets[f"file={file}", "accuracy"]
        assert (metric.value, metric.support) == (pytest.approx((truth[at] == predicted[at]).mean()), len(at))
        name = "benign_rate_at_night" if truth[at[0]] == 0 else "recall_at_night"
        assert model.subsets[f"file={file}", name].value == pytest.approx(flagged[at].mean())
    shown = leakage_page.files_of([model])
    assert [file.class_name for file in shown][:2] == ["Benign", "DDoS-ICMP"]
    assert [file.name for file in shown][-2:] == [f"test/ARP_Spoofing{i}_test.pcap.csv" for i in (1, 2)]
    assert sum(file.rows for file in shown) == ROWS - 1  # all but the row without a file

    confusion = lake.read("confusion").to_pandas()
    assert confusion.groupby("subset")["count"].sum().to_dict() == {"seen": 50, "unseen": ROWS - 50}


def scored_twice(lake: Lake) -> results.ScoredModel:
    """Return the model of rows that all stand in train, measured in run 2, and scored again in run 3."""
    card = dataclasses.replace(CARD, data_origin="measured")
    counts = ScoreCounts({6: np.diag([50, 40, 0, 0, 0, 10])})
    for run_id in ("run1", "run3"):
        scored = Results(run_id, "test")
        scored.add(card, counts, "measured")
        scored.write(lake, lake.uri)
        if run_id == "run1":
            (model,) = results.newest(lake, "test")
            rows = [
                ("test/ARP_Spoofing_test.pcap.csv", 18, 5, True, True, 10),
                ("test/Benign.csv", 0, 0, False, True, 50),
            ]
            parts = pd.DataFrame(rows, columns=["file", "label", "predicted", "flagged", "seen", "rows"]).assign(
                model=0
            )
            found = Results("run2", "test")
            subsets.add_to(found, [subsets.Scored(model, 1.0, ())], parts)
            found.write(lake, lake.uri)
            (measured,) = found.with_subsets([model])
    return measured


def test_rows_that_all_stand_in_train_have_a_page(tmp_path: Path) -> None:
    measured = scored_twice(Lake(str(tmp_path)))
    assert ("unseen", "accuracy") not in measured.subsets
    findings = leakage_page.Findings({}, leakage.leakage_plan(ORIGINAL_45, 1, [], 10, 1e-8))
    page = Page(leakage_page.render_page(findings, [measured], {}, "run2", "measured"))
    check_structure(page)
    (cells,) = (row for row in page.rows if row[0] == measured.name and len(row) > 5)
    assert cells[1:3] == ["0", "60"]
    assert cells[4] == "–"


def test_figures_of_subsets_are_not_shown_beside_those_of_a_later_scoring(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert scored_twice(lake).subsets
    (model,) = results.newest(lake, "test")
    assert (model.run_id, model.subsets) == ("run3", {})
