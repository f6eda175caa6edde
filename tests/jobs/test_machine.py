"""Jobs by spark-submit on a machine with settings that change what Java does."""

from pathlib import Path

import pandas as pd
import pytest

from tests.support.flows import write_synthetic_source
from tests.support.submitting import prepare, submit

FOREST = ("forest.trees=2", "forest.max_depth=4", "train.classes=[2]", "forest.rows_per_partition=200")


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Run three jobs; returns what they wrote, without what differs in every run."""
    for job, more in (("ingest", ("ingest.source=my flows #1",)), ("features", ()), ("forest", FOREST)):
        code, output = submit(folder, job, *more)
        assert code == 0, output
    lake = folder / "lake"
    metrics = pd.read_parquet(lake / "metrics")
    return {
        "flows": pd.read_parquet(lake / "flows/split=train"),
        "features": pd.read_parquet(lake / "features/paper/split=train"),
        "metrics": metrics[metrics["metric"] != "fit_seconds"].drop(columns=["run_id", "model_version"]),
    }


@pytest.mark.slow
def test_a_turkish_locale_changes_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, options in (("plain", ""), ("turkish", "-Duser.language=tr -Duser.country=TR")):
        folder = prepare(tmp_path / name)
        write_synthetic_source(folder / "my flows #1", rows=30)
        monkeypatch.setenv("JAVA_TOOL_OPTIONS", options)
        found.append(tables(folder))
    for table, expected in found[0].items():
        pd.testing.assert_frame_equal(found[1][table], expected)
