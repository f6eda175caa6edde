"""The leakage report against pandas, numpy and scikit-learn, on real flows and on planted ones."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ids_spark.base.errors import InputError
from ids_spark.dataset.features import FEATURE_SCHEMAS, ORIGINAL_45, RELEASE_39
from ids_spark.dataset.taxonomy import UnknownClass
from ids_spark.evaluate import leakage
from ids_spark.evaluate.leakage import Measure
from ids_spark.features.feature_table import buckets_of
from ids_spark.ingest import row_hash
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake.store import Lake
from ids_spark.report import leakage_page
from tests.support.auc import sklearn_auc
from tests.support.browser import Page, check_structure, numbers
from tests.support.flows import RunJob, write_synthetic_source

LABEL = "class19"


def source_frame(folder: Path) -> pd.DataFrame:
    """Read one split of the official layout with pandas only."""
    frames = []
    for path in sorted(folder.glob("*.csv")):
        name = path.name.replace("_train", "").replace("_test", "").removesuffix(".pcap.csv").removeprefix("TCP_IP-")
        frame = pd.read_csv(path, float_precision="round_trip", dtype=float)
        frames.append(frame.assign(class19=name.rstrip("0123456789")))
    return pd.concat(frames, ignore_index=True)


def figures_of(lake: Path) -> pd.DataFrame:
    return pd.read_parquet(lake / "reports/leakage/leakage.parquet")


def counted(figures: pd.DataFrame, what: str, split: str | None = None) -> dict[str, int]:
    rows = figures[
        (figures["what"] == what) & (figures["split"].isna() if split is None else figures["split"] == split)
    ]
    return {k: int(n) for k, n in rows.groupby("class_name")["value"].sum().items()}


def as_float32(frame: pd.DataFrame, features: list[str]) -> pd.DataFrame:
    with np.errstate(over="ignore"):
        return frame[features].astype(np.float32).assign(class19=frame[LABEL])


@pytest.mark.parametrize("release", ["original45", "release39"])
def test_the_report_on_real_flows_is_that_of_pandas_numpy_and_sklearn(
    release: str, real_flows: Path, run_job: RunJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake, features = tmp_path / "lake", list(FEATURE_SCHEMAS[release].features)
    assert run_job("ingest", ingest__source=real_flows / release, ingest__rows_per_file=20_000) == 0
    assert run_job("leakage") == 0
    figures = figures_of(lake)
    doubles = {split: source_frame(real_flows / release / split) for split in ("train", "test")}

    totals = {"original45": {"train": 44, "test": 23}, "release39": {"train": 3_595, "test": 897}}
    for split, expected in totals[release].items():
        assert sum(counted(figures, "duplicates_double", split).values()) == expected
        assert f"{split} duplicates double={expected} " in caplog.text

    for precision in ("double", "float32"):
        frames = {s: f if precision == "double" else as_float32(f, features) for s, f in doubles.items()}
        for split, frame in frames.items():
            repeated = frame[frame.duplicated([*features, LABEL])]
            assert counted(figures, f"duplicates_{precision}", split) == repeated[LABEL].value_counts().to_dict()
            assert counted(figures, "flows", split) == frame[LABEL].value_counts().to_dict()
            distinct = frame.drop_duplicates([*features, LABEL])
            conflicts = int((distinct.groupby(features, dropna=False).size() > 1).sum())
            assert total_of(figures, f"label_conflicts_{precision}", split) == conflicts
        vectors = [frames[split].drop_duplicates([*features, LABEL]) for split in ("test", "train")]
        both = vectors[0].merge(vectors[1], on=features, suffixes=("_test", "_train"))
        assert total_of(figures, f"overlap_{precision}", None) == len(both.drop_duplicates(features))
        pairs = figures[(figures["what"] == f"overlap_{precision}") & figures["class_name"].notna()]
        found = {(a, b): int(n) for a, b, n in pairs[["class_name", "other_class", "value"]].itertuples(index=False)}
        assert found == both.groupby(["class19_test", "class19_train"]).size().to_dict()

    train = doubles["train"].drop_duplicates([*features, LABEL])
    spread = {what: rows.set_index("feature")["value"] for what, rows in figures.groupby("what")}
    finite = train[features].where(np.isfinite(train[features]))
    std = train[features].clip(lower=finite.min(), upper=finite.max(), axis=1).std(ddof=0)
    for name in features:
        assert spread["std"][name] == pytest.approx(std[name], rel=1e-9, abs=1e-300)
        assert spread["dropped"][name] == float(std[name] <= 1e-8)
        assert spread["infinite"][name] == np.isinf(train[name]).sum()
    aucs = figures[figures["what"] == "auc"]
    assert len(aucs) == {"original45": 3, "release39": 12}[release] * len(features)
    for row in aucs.iloc[::7].itertuples():
        values = [train.loc[train[LABEL] == name, row.feature] for name in (row.class_name, row.other_class)]
        assert row.value == pytest.approx(sklearn_auc(*(v.to_numpy() for v in values)), abs=1e-12)

    content = (lake / "reports/leakage/leakage.html").read_text()
    assert "://" not in content
    page = Page(content)
    check_structure(page)
    assert page.all("data-origin") == []
    if release == "original45":
        assert dict(page.all("data-finding"))["strongest-feature"].startswith("IAT ")
        assert numbers(page.texts("data-split")["train"])[1] == "44"
        assert "DDoS-ICMP | DoS-ICMP: no DDoS-ICMP, DoS-ICMP" in page.text("not-measured")
    audit = pd.read_parquet(lake / "audit").set_index("job").loc["leakage"]
    assert audit["rows_in"] == audit["rows_out"] == sum(len(frame) for frame in doubles.values())


def total_of(figures: pd.DataFrame, what: str, split: str | None) -> int:
    rows = figures[(figures["what"] == what) & figures["class_name"].isna()]
    rows = rows[rows["split"].isna() if split is None else rows["split"] == split]
    return int(rows["value"].item())


def planted(folder: Path) -> dict[str, pd.DataFrame]:
    """A synthetic source whose duplicates exist only in float32, overflow it, or cross splits and labels."""
    frames = write_synthetic_source(folder, rows=40)
    train = frames["train/Benign_train.pcap.csv"]
    near = train.iloc[[0, 1]].assign(IAT=train["IAT"].iloc[[0, 1]] * (1 + 1e-12))  # equal only in float32
    huge = train.iloc[[2, 2, 2]].assign(Rate=[1e300, 2e300, np.inf])  # beyond the range of float32, so equal there
    frames["train/Benign_train.pcap.csv"] = pd.concat([train, near, huge, train.iloc[[3]]], ignore_index=True)
    spoofing = frames["train/ARP_Spoofing_train.pcap.csv"]
    frames["train/ARP_Spoofing_train.pcap.csv"] = pd.concat([spoofing, train.iloc[[4]]], ignore_index=True)
    test = frames["test/Benign_test.pcap.csv"]
    frames["test/Benign_test.pcap.csv"] = pd.concat([test, train.iloc[[4, 5]], train.iloc[[5]]], ignore_index=True)
    for name, frame in frames.items():
        frame.to_csv(folder / name, index=False)
    return frames


def test_planted_duplicates_conflicts_and_overlap_are_counted(run_job: RunJob, tmp_path: Path) -> None:
    planted(tmp_path / "source")
    assert run_job("ingest", ingest__source=tmp_path / "source") == 0
    assert run_job("leakage") == 0
    figures = figures_of(tmp_path / "lake")
    assert counted(figures, "duplicates_double", "train") == {"Benign": 1}
    assert counted(figures, "duplicates_float32", "train") == {"Benign": 1 + 2 + 2}
    assert counted(figures, "duplicates_double", "test") == {"Benign": 1}
    conflicts = figures[(figures["what"] == "label_conflicts_double") & figures["class_name"].notna()]
    assert conflicts[["split", "class_name", "other_class", "value"]].to_numpy().tolist() == [
        ["train", "Benign", "ARP_Spoofing", 1.0]
    ]
    assert total_of(figures, "overlap_double", None) == 2
    overlap = figures[(figures["what"] == "overlap_double") & figures["class_name"].notna()]
    found = overlap[["class_name", "other_class", "value"]].to_numpy().tolist()
    assert sorted(found) == [["Benign", "ARP_Spoofing", 1.0], ["Benign", "Benign", 2.0]]
    page = Page((tmp_path / "lake/reports/leakage/leakage.html").read_text())
    assert numbers(page.texts("data-split")["train"])[1:] == ["1", "5", "1"]  # double, float32, label conflicts
    assert numbers(page.texts("data-split")["test"])[1:3] == ["1", "1"]
    assert numbers(dict(page.all("data-finding"))["overlap"])[0] == "2"


def test_the_sample_is_small_and_the_same_however_the_flows_are_cut(
    spark: SparkSession, run_job: RunJob, tmp_path: Path
) -> None:
    write_synthetic_source(tmp_path / "source", rows=100)
    found = []
    for rows_per_file in (400, 100_000):
        lake = tmp_path / f"lake-{rows_per_file}"
        run_job("ingest", lake=lake, ingest__source=tmp_path / "source", ingest__rows_per_file=rows_per_file)
        buckets = buckets_of(Lake(str(lake)).uri("flows"), RELEASE_39)
        plan = leakage.leakage_plan(RELEASE_39, 1_200, [("DDoS-ICMP", "Benign"), ("Benign", "DoS-UDP")], 60, 1e-8)
        found.append(leakage.measure(spark.sparkContext, buckets, plan))
    sampled = {m.class_name: n for m, n in found[0].items() if m.what == "sampled"}
    assert sampled == {"DDoS-ICMP": 60, "Benign": 60}
    assert {m: v for m, v in found[0].items() if m.what != "std"} == {
        m: v for m, v in found[1].items() if m.what != "std"
    }
    names = [name for name in RELEASE_39.features if name != "Rate"]  # Rate differs by class, the rest is noise
    noise = [found[0][Measure("auc", "train", "DDoS-ICMP", "Benign", name)] for name in names]
    assert max(noise) < 0.7
    assert found[0][Measure("auc", "train", "DDoS-ICMP", "Benign", "Rate")] == 1.0


def test_the_page_of_synthetic_flows_is_marked(run_job: RunJob, tmp_path: Path) -> None:
    write_synthetic_source(tmp_path / "source", rows=40)
    (tmp_path / "source" / SYNTHETIC_MARK).write_text("{}")
    assert run_job("ingest", ingest__source=tmp_path / "source") == 0
    assert run_job("leakage") == 0
    folder = tmp_path / "lake/reports/leakage"
    assert Page((folder / "leakage.html").read_text()).texts("data-origin").keys() == {"synthetic"}
    assert set(figures_of(tmp_path / "lake")["data_origin"]) == {"synthetic"}
    pictures = {"duplicates.png", "auc_ranges.png", "auc_order.png"}
    assert {path.name for path in folder.iterdir()} == {"leakage.html", "leakage.parquet", *pictures}
    assert all((folder / name).read_bytes()[:4] == b"\x89PNG" for name in pictures)


def test_texts_from_outside_are_escaped_and_nothing_measured_still_gives_a_page() -> None:
    plan = leakage.leakage_plan(ORIGINAL_45, 1, [("Benign", "ARP_Spoofing")], 10, 1e-8)
    findings = leakage_page.Findings({Measure("flows", "train", "Benign"): 1}, plan)
    pictures = leakage_page.draw(findings)
    assert set(pictures) == {"duplicates"}
    page = leakage_page.render_page(findings, [], pictures, "<script>run</script>", "<img src=x>")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "<IMG SRC=X" not in page
    assert "&lt;script&gt;run" in page


def test_an_empty_lake_is_refused(run_job: RunJob, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run_job("leakage") == 2
    assert "holds no complete table; run jobs/ingest.py on this lake first" in caplog.text
    assert not (tmp_path / "lake/reports").exists()


def test_flows_that_do_not_reconcile_are_not_reported(
    run_job: RunJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_synthetic_source(tmp_path / "source", rows=20)
    run_job("ingest", ingest__source=tmp_path / "source")
    facts = tmp_path / "lake/flows/_table.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"rows": {"train": 121, "test": 120}}))
    assert run_job("leakage") == 1
    assert "241 rows in, but 240 accounted for" in caplog.text
    assert not (tmp_path / "lake/reports").exists()


def test_pairs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(UnknownClass, match=r"leakage\.pairs names DoS-IMCP; expected classes of Benign, "):
        leakage.leakage_plan(ORIGINAL_45, 1, [("DoS-IMCP", "Benign")], 10, 1e-8)
    with pytest.raises(InputError, match=r"leakage\.pairs compares Benign with itself; name two classes"):
        leakage.leakage_plan(ORIGINAL_45, 1, [("Benign", "Benign")], 10, 1e-8)
    with pytest.raises(InputError, match=r"flows/ holds no row; run jobs/ingest\.py on a source with rows first"):
        leakage.leakage_plan(ORIGINAL_45, 0, [], 10, 1e-8)


def test_float32_keeps_what_numpy_keeps() -> None:
    values = np.array([1.0, 1.0 + 1e-12, 84_670_752.0, 84_670_753.0, 1e39, -1e39, np.inf, -0.0, 1e-50])
    kept = leakage.as_float32(values)
    keys = row_hash.row_keys([kept])
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float32)
    for (i, a), (j, b) in itertools.combinations(enumerate(wanted), 2):
        assert (keys[i] == keys[j]) == (a == b), (values[i], values[j])
