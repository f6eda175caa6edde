"""The feature table: from flows that version 0.1 wrote, and with derived features."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tests.support.flows import RunJob, write_synthetic_source


def features_of(lake: Path) -> list[dict[str, object]]:
    rows = [row for path in (lake / "features").rglob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    return sorted(rows, key=repr)


def test_flows_with_the_column_names_of_version_01_give_the_same_features(run_job: RunJob, tmp_path: Path) -> None:
    write_synthetic_source(tmp_path / "source", rows=20)
    assert run_job("ingest", ingest__source=tmp_path / "source") == 0
    assert run_job("features", features__files=2) == 0
    expected = features_of(tmp_path / "lake")
    for path in (tmp_path / "lake/flows").rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        names = ["two_label" if name == "label_conflict" else name for name in table.column_names]
        pq.write_table(table.rename_columns(names), path)
    assert run_job("features", features__files=2) == 0
    assert features_of(tmp_path / "lake") == expected
    assert len(expected) > 200


def test_derived_features_are_added_to_a_table_that_is_otherwise_the_same(run_job: RunJob, tmp_path: Path) -> None:
    write_synthetic_source(tmp_path / "source", rows=20)
    assert run_job("ingest", ingest__source=tmp_path / "source") == 0
    found = {}
    for ratios in (False, True):
        assert run_job("features", features__files=2, features__recipe=f"r{ratios:d}", features__ratios=ratios) == 0
        found[ratios] = pd.read_parquet(tmp_path / f"lake/features/r{ratios:d}").sort_values(
            "row_key", ignore_index=True
        )
    raw = found[False].columns
    pd.testing.assert_frame_equal(found[True][raw], found[False])
    derived = found[True].columns.drop(raw)
    assert {"Max_minus_Min", "Std_per_AVG", "Rate_times_IAT"} <= set(derived)
    assert np.isfinite(found[True][derived]).all().all()
    flows = pd.read_parquet(tmp_path / "lake/flows").query("not duplicate").sort_values("row_key", ignore_index=True)
    length = flows["Max"] - flows["Min"]
    train = length[found[True]["split"] == "train"]
    scaled = found[True]["Max_minus_Min"]
    np.testing.assert_allclose(scaled, (length - train.mean()) / train.std(ddof=0), rtol=1e-5, atol=1e-5)
