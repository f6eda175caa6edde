"""Tables of two lakes, compared as sets of rows, and how models were trained."""

import json
from pathlib import Path

import pandas as pd

_OF_A_RUN = ["run_id", "scored_at", "model_version", "event_date"]


def rows(lake: Path, table: str) -> pd.DataFrame:
    """Return the rows of a table's newest run, sorted by their values, without columns that differ between runs."""
    frame = pd.read_parquet(lake / table)
    if table in ("metrics", "confusion"):  # hold the rows of every run
        frame = frame[frame["run_id"] == frame["run_id"].max()]
    frame = frame.drop(columns=[name for name in _OF_A_RUN if name in frame])
    for name in frame:
        if frame[name].dtype == object or isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(str)
    return frame.sort_values(list(frame.columns), ignore_index=True)


def assert_same_rows(lake: Path, other: Path, *tables: str) -> None:
    """Check that both lakes hold the same rows, to the last bit."""
    for table in tables:
        pd.testing.assert_frame_equal(rows(lake, table), rows(other, table), check_exact=True, obj=table)


def curve(folder: Path) -> list[tuple[float, float, float]]:
    """Loss, validation loss and validation accuracy of each epoch of the only model."""
    [card] = (folder / "lake/models").glob("*/*/model.json")
    history = json.loads(card.read_text())["training"]["history"]
    return [tuple(epoch[name] for name in ("loss", "validation_loss", "validation_accuracy")) for epoch in history]
