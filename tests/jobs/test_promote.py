"""Promotions that are compared with the champion, refused, and forced. All flows and models are synthetic."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ids_spark.adapt import gate
from ids_spark.adapt.evaluation import read_evaluation
from ids_spark.adapt.replay import replay
from ids_spark.features.local_split import LocalHeldOut
from ids_spark.lake.store import Lake
from ids_spark.models import registry
from ids_spark.models.artifact import Model
from tests.support.audits import newest_audit
from tests.support.flows import RunJob
from tests.support.replayed import DATES, NAME, NEW, OLD, write_local_rows, write_model, write_rows_of_test

BLIND = 70.0
"""Highest benign validation score of a model that flags nothing."""
HELD_OUT = {
    "held_out_by": "date",
    "train_dates": [str(DATES[0])],
    "held_out_dates": [str(DATES[1])],
    "held_out_share": 0.5,
}
"""What a model states of the local nights that it has learned."""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def promote(run_job: RunJob, version: str, **settings: object) -> int:
    return run_job("promote", promote__model=NAME, promote__version=version, **settings)


def versions(lake: Lake, highest_benign: float) -> tuple[Model, Model]:
    """Write a champion that flags some rows and a challenger, and test rows."""
    write_rows_of_test(lake, 1_900)
    return write_model(lake, OLD, 1, 0.5), write_model(lake, NEW, 1, highest_benign)


def last_audit(lake: Lake, tmp_path: Path) -> pd.Series:
    return newest_audit(tmp_path / "lake", "promote")


def test_the_first_champion_is_evaluated_and_compared_with_nothing(
    run_job: RunJob, lake: Lake, tmp_path: Path, spark: SparkSession
) -> None:
    model, _ = versions(lake, 0.5)
    assert promote(run_job, OLD) == 0
    assert any("no champion to compare" in note for note in last_audit(lake, tmp_path)["notes"])
    card = read_evaluation(lake.uri("models"), NAME, OLD, model.sha256)
    assert card is not None
    expected = replay(spark.sparkContext, lake, [model])
    shares = card.of("random split").shares
    assert [each.rows for each in shares] == expected.rows().tolist()
    assert [each.flagged for each in shares] == expected.flagged(0).tolist()
    assert sum(each.flagged for each in shares) > 0


def test_the_card_of_an_adapted_model_counts_its_held_out_nights(
    run_job: RunJob, lake: Lake, spark: SparkSession
) -> None:
    write_rows_of_test(lake, 190)
    rows = write_local_rows(lake, 200)
    model = write_model(lake, OLD, 1, 0.5, HELD_OUT)
    assert promote(run_job, OLD) == 0
    card = read_evaluation(lake.uri("models"), NAME, OLD, model.sha256)
    assert card is not None
    later = card.of("later block of time")
    assert str(DATES[1]) in str(later.source)
    assert str(DATES[0]) not in str(later.source)
    [benign] = later.shares
    assert benign.rows == (rows["left_out"].isna() & (rows["event_date"] == DATES[1])).sum()
    expected = replay(spark.sparkContext, lake, [model], LocalHeldOut.of_facts(HELD_OUT).rows)
    assert benign.flagged == expected.local_flagged(0)


def test_an_equal_challenger_is_promoted_and_a_rollback_is_not_compared(
    run_job: RunJob, lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions(lake, 0.5)
    assert promote(run_job, OLD) == 0
    printed = capsys.readouterr().out
    assert "random split: recall of 18 classes" in printed
    assert "held-out class: unknown" in printed
    assert promote(run_job, NEW) == 0
    assert registry.read_aliases(lake.uri("models"), NAME).champion == NEW
    assert any("none of 18 classes" in note for note in last_audit(lake, tmp_path)["notes"])
    capsys.readouterr()
    assert promote(run_job, "previous") == 0
    assert capsys.readouterr().out == printed  # the stored card
    assert registry.read_aliases(lake.uri("models"), NAME).champion == OLD


def test_a_damaged_card_does_not_hinder_a_rollback(run_job: RunJob, lake: Lake, tmp_path: Path) -> None:
    versions(lake, 0.5)
    assert promote(run_job, OLD) == 0
    assert promote(run_job, NEW) == 0
    card = tmp_path / "lake/models" / NAME / OLD / "evaluation.json"
    card.write_bytes(card.read_bytes()[:-9])
    assert promote(run_job, "previous") == 0
    assert registry.read_aliases(lake.uri("models"), NAME).champion == OLD
    assert any("no evaluation card" in note for note in last_audit(lake, tmp_path)["notes"])


def test_a_challenger_that_flags_less_of_a_class_is_refused_unless_forced_with_a_reason(
    run_job: RunJob, lake: Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, blind = versions(lake, BLIND)
    assert promote(run_job, OLD) == 0
    before = registry.read_aliases(lake.uri("models"), NAME)
    assert promote(run_job, NEW, promote__alias="challenger") == 0  # only the champion is compared
    caplog.clear()
    assert promote(run_job, NEW) == 2
    assert "was not promoted" in caplog.text
    assert "→ 0.000" in caplog.text
    assert "promote.reason" in caplog.text
    assert registry.read_aliases(lake.uri("models"), NAME).champion == before.champion == OLD
    assert read_evaluation(lake.uri("models"), NAME, NEW, blind.sha256) is None

    assert promote(run_job, NEW, promote__force="true") == 2  # without a reason
    assert promote(run_job, NEW, promote__force="true", promote__reason="'the champion flags every flow'") == 0
    after = registry.read_aliases(lake.uri("models"), NAME)
    change = after.last("champion")
    assert change is not None
    assert (after.champion, change.reason) == (NEW, "the champion flags every flow")
    assert any("promoted all the same: the champion flags every flow" in n for n in last_audit(lake, tmp_path)["notes"])


def test_models_are_compared_at_the_same_share_of_held_out_local_rows(
    run_job: RunJob, lake: Lake, tmp_path: Path
) -> None:
    write_rows_of_test(lake, 1_900)
    write_local_rows(lake, 3_000)
    write_model(lake, OLD, 1, 0.5)
    write_model(lake, NEW, 1, BLIND, HELD_OUT)  # the same network: only its own threshold is blind
    assert promote(run_job, OLD) == 0
    assert promote(run_job, NEW) == 0
    notes = list(last_audit(lake, tmp_path)["notes"])
    assert any("held-out local flows, is lower" in note and "none of 18" in note for note in notes)
    assert any("its own threshold" in note and "→ 0.000" in note for note in notes)


def test_a_promotion_during_a_comparison_is_not_lost(
    run_job: RunJob, lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    versions(lake, 0.5)
    assert promote(run_job, OLD) == 0
    compare = gate.judge

    def meanwhile(*arguments: Any) -> gate.Judged:
        assert promote(run_job, NEW, promote__alias="challenger") == 0
        return compare(*arguments)

    monkeypatch.setattr(gate, "judge", meanwhile)
    assert promote(run_job, NEW) == 2
    assert f"while this run compared versions: champion is {OLD}, challenger is {NEW}. Nothing" in caplog.text
    found = registry.read_aliases(lake.uri("models"), NAME)
    assert [(change.alias, change.version) for change in found.history] == [("champion", OLD), ("challenger", NEW)]


def test_a_loss_that_the_settings_allow_is_promoted(run_job: RunJob, lake: Lake) -> None:
    versions(lake, BLIND)
    assert promote(run_job, OLD) == 0
    assert promote(run_job, NEW, adapt__most_recall_lost=1.0) == 0


@pytest.mark.parametrize("fault", ["no flows", "another release", "broken champion"])
def test_without_comparable_data_a_version_is_promoted_and_a_note_says_so(
    run_job: RunJob, lake: Lake, tmp_path: Path, fault: str
) -> None:
    write_model(lake, OLD, 1, 0.5)
    write_model(lake, NEW, 1, BLIND)
    assert promote(run_job, OLD) == 0
    if fault == "another release":
        frame = write_rows_of_test(lake, 40)
        for path in (tmp_path / "lake/flows/split=test").glob("*.parquet"):
            frame.rename(columns={"IGMP": "Magnitue", "Time_To_Live": "Radius"}).to_parquet(path)
    if fault == "broken champion":
        write_rows_of_test(lake, 40)
        manifest = tmp_path / "lake/models" / NAME / OLD / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "weights.npz": "0" * 64}))
    assert promote(run_job, NEW) == 0
    assert any("not compared" in note for note in last_audit(lake, tmp_path)["notes"])


def test_older_aliases_without_a_reason_are_read(lake: Lake, run_job: RunJob, tmp_path: Path) -> None:
    write_model(lake, OLD, 1, 0.5)
    assert promote(run_job, OLD) == 0
    path = tmp_path / "lake" / registry.aliases_path(NAME)
    content = json.loads(path.read_text())
    for change in content["history"]:
        assert change.pop("reason") is None
    path.write_text(json.dumps(content))
    assert registry.read_aliases(lake.uri("models"), NAME).champion == OLD
