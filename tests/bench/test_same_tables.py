"""The comparison of two lakes: what it calls the same, and what it finds."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bench import same_tables
from tests.bench.measure import ROOT

N = 1_000


def flows(**changed: pa.Array) -> pa.Table:
    rng = np.random.default_rng(1)
    rate = rng.normal(size=N)
    rate[:2] = [np.nan, -0.0]
    columns = {
        "source_file": pa.array([f"train/{i % 7}.csv" for i in range(N)]),
        "source_row": pa.array(np.arange(N) // 7),
        "Rate": pa.array(rate),
        "class19": pa.array(["Benign" if i % 3 else None for i in range(N)]),
        "duplicate": pa.array(np.arange(N) % 2 == 0),
        "run_id": pa.array(["a"] * N),
        "top3": pa.array([[{"class_name": "x", "probability": float(i)}] * (i % 3) for i in range(N)]),
    }
    return pa.table(columns | changed)


def lakes(folder: Path, old: pa.Table, new: pa.Table, name: str = "flows/split=train") -> tuple[Path, Path]:
    for version, table in (("old", old), ("new", new)):
        (folder / version / name).mkdir(parents=True)
        pq.write_table(table, folder / version / name / "part-00000.parquet")
    return folder / "old", folder / "new"


def test_same_rows_in_other_files_order_and_storage_are_the_same(tmp_path: Path) -> None:
    old, new = lakes(tmp_path, flows(), flows())
    table = flows(run_id=pa.array(["b"] * N), class19=flows()["class19"].dictionary_encode())
    shuffled = table.take(np.random.default_rng(2).permutation(N)).select(table.schema.names[::-1])
    pq.write_table(shuffled.slice(0, 300), new / "flows/split=train" / "part-00000.parquet")
    pq.write_table(shuffled.slice(300), new / "flows/split=train" / "part-00001.parquet")
    (found,) = same_tables.compare(old, new)
    assert found.same
    assert not found.order
    assert str(found) == "flows/split=train: 1,000 rows, the same, in another order"


@pytest.mark.parametrize(
    ("column", "at", "value", "text"),
    [
        ("Rate", 1, 0.0, "Rate: 1 rows differ, by at most 0: -0.0 → 0.0"),
        ("Rate", 0, 1.0, "Rate: 1 rows differ: nan → 1.0"),
        ("class19", 0, "Benign", "class19: 1 rows differ: None → 'Benign'"),
        ("duplicate", 0, False, "duplicate: 1 rows differ: True → False"),
        ("top3", 1, [{"class_name": "y", "probability": 1.0}], "top3: 1 rows differ: [{"),
        ("top3", 0, None, "top3: 1 rows differ: [] → None"),
        ("run_id", 0, "b", None),
    ],
)
def test_one_other_value_is_found(tmp_path: Path, column: str, at: int, value: object, text: str | None) -> None:
    kind = flows().schema.field(column).type
    values = flows()[column].to_pylist()
    values[at] = value
    old, new = lakes(tmp_path, flows(), flows(**{column: pa.array(values, kind)}))
    (found,) = same_tables.compare(old, new)
    if text is None:
        assert found.same
    else:
        assert found.only == (1, 1)
        assert text in str(found)


def test_numbers_within_the_tolerance_are_nearly_the_same(tmp_path: Path) -> None:
    rate = flows()["Rate"].to_numpy() + 1e-7
    old, new = lakes(tmp_path, flows(), flows(Rate=pa.array(rate)))
    (found,) = same_tables.compare(old, new, tolerance=1e-6)
    assert found.same
    assert "nearly the same" in str(found)
    (found,) = same_tables.compare(old, new, tolerance=1e-8)
    assert not found.same
    (found,) = same_tables.compare(old, new, ignore=["Rate"])
    assert found.order


def test_duplicates_are_counted(tmp_path: Path) -> None:
    """The same distinct rows as the independent count by pandas, and another number of one of them."""
    repeated = pa.concat_tables([flows(), flows().slice(5, 2)])
    twice = pa.concat_tables([flows(), flows().slice(5, 1), flows().slice(5, 1)])
    old, new = lakes(tmp_path, repeated, twice)
    (found,) = same_tables.compare(old, new)
    keys = ["source_file", "source_row"]
    counts = [each.select(keys).to_pandas().value_counts() for each in (repeated, twice)]
    apart = counts[0].sub(counts[1], fill_value=0)
    assert found.only == (apart[apart > 0].sum(), -apart[apart < 0].sum()) == (1, 1)


def test_a_missing_partition_column_and_fact_are_found(tmp_path: Path) -> None:
    old, new = lakes(tmp_path, flows(), flows().drop_columns(["Rate"]))
    pq.write_table(flows(), old / "flows" / "split=train" / "part-00001.parquet")
    (new / "quarantine").mkdir()
    pq.write_table(flows().slice(0, 3), new / "quarantine" / "part-00000.parquet")
    for version, rows in ((old, 1), (new, 2)):
        facts = {"run_id": str(version), "rows": {"train": rows}, "mean": float("nan")}
        (version / "flows" / "_table.json").write_text(json.dumps(facts))
    found = {each.place: str(each) for each in same_tables.compare(old, new)}
    assert "2,000 and 1,000 rows" in found["flows/split=train"]
    assert "Rate: stored as double, now no column" in found["flows/split=train"]
    assert found["quarantine"] == "quarantine: 0 and 3 rows, 0 only in the old, 3 only in the new"
    assert "rows.train: '1' → '2'" in found["flows/_table.json"]
    assert "run_id" not in found["flows/_table.json"]
    assert "mean" not in found["flows/_table.json"]


def test_hashes_of_a_million_rows_do_not_collide(tmp_path: Path) -> None:
    table = pa.table(pd.DataFrame({"a": np.arange(1_000_000) // 1_000, "b": np.arange(1_000_000) % 1_000}))
    pq.write_table(table, tmp_path / "a.parquet")
    assert len(np.unique(same_tables.row_hashes([tmp_path / "a.parquet"]))) == 1_000_000


def test_command_line(tmp_path: Path) -> None:
    old, new = lakes(tmp_path, flows(), flows().take(np.arange(N)[::-1]))

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tests.bench.same_tables", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run(str(old), str(new))
    assert done.returncode == 0
    assert done.stdout.endswith("in another order\n1 compared, 0 different\n")
    assert run(str(old), str(new), "--order").returncode == 1
    assert run(str(old), str(new), "--tables", "predictions").returncode == 2
