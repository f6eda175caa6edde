"""Adaptation end to end: nights of flow logs to a challenger. All flows are synthetic."""

import datetime as dt
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ids_spark.adapt.evaluation import read_evaluation
from ids_spark.lake.filesystem import write_json
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, registry
from ids_spark.models.artifact import read_model, write_model
from ids_spark.models.signatures import open_trust
from tests.support import in_process
from tests.support.keys import key_pair
from tests.support.local_nights import write_nights
from tests.support.models import CARD, PREPROCESSOR, VALIDATION_SCORES, WEIGHTS

NAME = "dnn-19-operational"
NIGHTS = ("2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04")
TRAIN = (
    *("train.models=[dnn]", "train.classes=[19]", "train.feature_sets=[operational]", "train.epochs=4"),
    *("train.batch_size=256", "train.learning_rate=0.004", "features.files=2"),
)


def run(folder: Path, name: str, *settings: str) -> str:
    code, log = in_process.run(folder, name, *settings)
    assert code == 0, log
    return log


@pytest.fixture(scope="module")
def hospital(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a model of the data set, and nights whose benign flows have a shape of their own."""
    folder = tmp_path_factory.mktemp("hospital")
    source = f"synthesize.target={folder}/flows"
    run(folder, "synthesize", source, "synthesize.scale=0.002", "synthesize.feature_schema=release39")
    run(folder, "ingest", f"ingest.source={folder}/flows")
    run(folder, "features", "features.files=2")
    run(folder, "train", *TRAIN)
    for date in NIGHTS:
        episodes = 2 if date == NIGHTS[1] else 0
        run(
            folder,
            "synthesize_night",
            *(f"synthesize_night.target={folder}/logs", f"synthesize_night.date={date}"),
            *("synthesize_night.flows=4000", "synthesize_night.feature_schema=release39", "synthesize_night.shift=1"),
            *(f"synthesize_night.episodes={episodes}", "synthesize_night.files=2"),
        )
    return folder


@pytest.fixture(scope="module")
def adapted(hospital: Path) -> tuple[Path, str]:
    """The adapted lake and the log of the job, which could not tell MLflow of the challenger."""
    pytest.importorskip("mlflow", reason="the development lock is not installed")
    settings = (f"adapt.model={NAME}", f"adapt.flow_logs={hospital}/logs", "adapt.most_recall_lost=1")
    code, log = in_process.run(hospital, "adapt", *settings, *TRAIN, "promote.mlflow_uri=http://127.0.0.1:9")
    assert code == 3, log
    assert f"MLflow at http://127.0.0.1:9 does not have the aliases of {NAME}" in log
    return hospital, log


def test_the_challenger_flags_fewer_benign_flows_and_states_its_nights(adapted: tuple[Path, str]) -> None:
    folder, _ = adapted
    lake = Lake(f"{folder}/lake")
    models = lake.uri("models")
    aliases = registry.read_aliases(models, NAME)
    assert aliases.champion is not None  # the only version became champion before there were two
    assert aliases.challenger is not None
    challenger = read_model(f"{models}/{NAME}/{aliases.challenger}")
    assert challenger.card.local is not None
    assert challenger.card.local["train_dates"] == list(NIGHTS[:3])
    assert challenger.card.local["held_out_dates"] == [NIGHTS[3]]
    assert challenger.validation_scores is not None
    assert challenger.validation_scores.benign_rows == challenger.card.local["held_out_rows"]
    assert NIGHTS[3] in challenger.validation_scores.operating_point().statement()
    card = read_evaluation(models, NAME, aliases.challenger, challenger.sha256)
    assert card is not None
    [benign] = card.of("later block of time").shares
    assert benign.rows == challenger.card.local["held_out_rows"]
    champion = read_model(f"{models}/{NAME}/{aliases.champion}")
    page = (folder / "lake/reports/adaptation" / NAME / aliases.challenger / "adaptation.html").read_text()
    assert champion.card.version in page
    audit = pd.read_parquet(next((folder / "lake/audit").glob("*-adapt.parquet"))).iloc[0]
    assert audit["rows_in"] == audit["rows_out"] + audit["rows_left_out"] + audit["rows_quarantined"]
    assert audit["rows_in"] > 4 * 4_000


def test_attacks_of_a_learning_night_are_left_out(adapted: tuple[Path, str]) -> None:
    folder, _ = adapted
    rows = pd.concat(pq.read_table(path).to_pandas() for path in (folder / "lake/flows/split=local").glob("*.parquet"))
    left_out = rows[rows["left_out"].notna()]
    assert (left_out["event_date"].astype(str) == NIGHTS[1]).mean() > 0.5
    assert len(left_out) < 0.05 * len(rows)


def test_progress_is_logged_step_by_step(adapted: tuple[Path, str]) -> None:
    _, log = adapted
    assert [line.partition(": ")[2] for line in log.splitlines() if line.startswith("step ")] == [
        *("local nights", "review", "features", "training", "comparison")
    ]


def test_what_is_missing_is_named(hospital: Path, tmp_path: Path) -> None:
    code, log = in_process.run(hospital, "adapt", f"adapt.model={NAME}")
    assert (code, "adapt.flow_logs is not set" in log) == (2, True)
    settings = (f"adapt.flow_logs={hospital}/logs", "adapt.last_date=2026-02-01")
    code, log = in_process.run(hospital, "adapt", f"adapt.model={NAME}", *settings)
    assert (code, "no folder event_date=YYYY-MM-DD up to 2026-02-01" in log) == (2, True)
    for days in (1, 2):  # in a zone ahead of UTC a later date has begun
        (tmp_path / f"event_date={dt.datetime.now(dt.UTC).date() + dt.timedelta(days)}").mkdir()
    code, log = in_process.run(hospital, "adapt", f"adapt.model={NAME}", f"adapt.flow_logs={tmp_path}")
    assert (code, "no folder event_date=YYYY-MM-DD up to yesterday" in log) == (2, True)


def test_a_lake_without_the_data_set_of_the_champion_is_refused_before_anything_is_written(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(f"{tmp_path}/lake")
    write_model(lake.uri(f"models/{CARD.name}/{CARD.version}"), CARD, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES)
    write_nights(tmp_path / "logs", 1)
    settings = (f"adapt.model={CARD.name}", f"adapt.flow_logs={tmp_path}/logs")
    code, log = in_process.run(tmp_path, "adapt", *settings)
    assert (code, "run jobs/ingest.py" in log) == (2, True), log
    assert not (tmp_path / "lake/flows").exists()
    write_json(lake.uri("flows/_table.json"), {"feature_schema": "original45"})
    code, log = in_process.run(tmp_path, "adapt", *settings)
    assert (code, "is of feature schema original45" in log) == (2, True), log
    write_json(lake.uri("flows/_table.json"), {"feature_schema": "release39", "rows": {"train": 0, "test": 9}})
    code, log = in_process.run(tmp_path, "adapt", *settings)
    assert (code, "holds no train row of the data set" in log) == (2, True), log
    assert not (tmp_path / "lake/flows/split=local").exists()


def test_a_challenger_that_forgets_is_refused(adapted: tuple[Path, str], tmp_path: Path) -> None:
    """With keys: the champion is signed first, and what the run has trained is signed too."""
    folder, _ = adapted
    lake, keys = Lake(f"{folder}/lake"), key_pair(tmp_path)
    models, trust = lake.uri("models"), open_trust(lake, [str(keys.public)])
    before = registry.read_aliases(models, NAME)
    champion = (f"promote.model={NAME}", f"promote.version={before.champion}", "promote.sign=true")
    run(folder, "promote", *champion, *keys.signing)
    forgetful = [setting for setting in TRAIN if "epochs" not in setting and "rate" not in setting]
    settings = (f"adapt.model={NAME}", f"adapt.flow_logs={folder}/logs", "adapt.nights=2", "adapt.review=false")
    code, log = in_process.run(folder, "adapt", *settings, keys.trusting)
    assert (code, "train.sign_key is not set" in log) == (2, True), log  # before anything is written
    settings += ("train.epochs=1", "train.learning_rate=0.00001", *keys.signing)
    code, log = in_process.run(folder, "adapt", *settings, *forgetful)
    assert code == 3, log
    assert "is refused" in log
    newest = artifact.model_versions(models, NAME)[-1]
    assert registry.read_version(models, NAME, newest, trust).card.version == newest
    after = registry.read_aliases(models, NAME, trust)
    assert (after.champion, after.challenger) == (before.champion, before.challenger)
