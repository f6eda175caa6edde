"""What people look at: the comparison table on the terminal."""

import pandas as pd
import pyarrow.dataset as pads
from rich.console import Console
from rich.table import Table

from ids_spark.lake import Lake, TableMissing, files_in, resolve
from ids_spark.model_store import read

SHOWN = ("accuracy", "f1_macro", "f1_weighted", "benign_false_positive_rate")


def latest_metrics(lake: Lake, split: str) -> pd.DataFrame:
    """Return the averaged metrics of the newest run for each model, classes and profile, one row each.

    Raises:
        TableMissing: when nothing was scored on that split yet.
    """
    files = files_in(lake.uri("metrics"), ".parquet")
    fs, _ = resolve(lake.root)
    rows = pads.dataset([resolve(f)[1] for f in files], filesystem=fs).to_table().to_pandas() if files else None
    if rows is None or not (rows["split"] == split).any():
        raise TableMissing(
            f"{lake.uri('metrics')} holds no metrics of split {split!r}; run jobs/score.py on this lake first"
        )
    rows = rows[(rows["split"] == split) & rows["class_name"].isna()]
    keys = ["model", "profile", "classes"]
    newest = rows.groupby(keys)["run_id"].transform("max")
    wide = rows[rows["run_id"] == newest].pivot_table(
        index=[*keys, "model_version", "data_origin"], columns="metric", values="value", dropna=False
    )
    return wide.dropna(how="all").reset_index().sort_values(["classes", "model", "profile"])


def print_comparison(lake: Lake, split: str, console: Console) -> None:
    """Print model × classes with accuracy, F1, benign false-positive rate and training seconds."""
    metrics = latest_metrics(lake, split)
    synthetic = (metrics["data_origin"] == "synthetic").any()
    title = f"Split {split}" + (": SYNTHETIC flows, no statement about real traffic" if synthetic else "")
    table = Table(title=title)
    for heading in (
        "model",
        "profile",
        "classes",
        "accuracy",
        "macro F1",
        "weighted F1",
        "benign FPR",
        "epochs",
        "seconds",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "profile") else "right")
    for row in metrics.to_dict("records"):
        name = f"{row['model']}-{row['classes']}-{row['profile']}"
        training = read(lake.uri(f"models/{name}/{row['model_version']}")).card.training
        figures = ["–" if pd.isna(value := row.get(metric)) else f"{value:.4f}" for metric in SHOWN]
        cells = [row["model"], row["profile"], str(row["classes"]), *figures]
        table.add_row(*cells, str(training["epochs"]), f"{training['seconds']:.0f}")
    console.print(table)
