"""The feature table from flows that version 0.1 wrote."""

from pathlib import Path

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
