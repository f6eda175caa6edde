"""Evaluation cards: figures with intervals, unknown ones named, damage found."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from ids_spark.adapt.evaluation import (
    UNKNOWN,
    EvaluationUnusable,
    evaluation_of,
    path_of,
    read_evaluation,
    share_of,
)
from ids_spark.adapt.replay import Replayed
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import Model
from tests.support.replayed import NAME, OLD, write_model

NOW = dt.datetime(2026, 3, 2, 1, 2, 3, tzinfo=dt.UTC)
SCAN = CLASS19.index("Recon-OS_Scan")
DAY = dt.date(2026, 3, 1)


def replayed(local: bool) -> Replayed:
    """Return a replay of one model: 30 of 40 rows of a scan and 1 of 100 benign rows are flagged."""
    patterns = np.zeros((19, 2), dtype=np.int64)
    patterns[SCAN], patterns[0] = (10, 30), (99, 1)
    nights = {(DAY, "pump-1"): np.array([45, 5]), (DAY, None): np.array([50, 0])} if local else {}
    return Replayed((1.5,), patterns, (np.zeros((6, 6), dtype=np.int64),), nights)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return write_model(Lake(str(tmp_path)), OLD, 1, 0.5)


def test_a_card_holds_measured_figures_and_names_what_is_unknown(model: Model, tmp_path: Path) -> None:
    card = evaluation_of(model, replayed(local=True), 0, "r1", NOW)
    assert [each.flows for each in card.measured] == list(UNKNOWN)
    test = card.of("random split")
    assert [(each.name, each.rows, each.flagged) for each in test.shares] == [
        ("Benign", 100, 1),
        (CLASS19[SCAN], 40, 30),
    ]
    interval = binomtest(30, 40).proportion_ci(method="exact")
    assert (test.shares[1].low, test.shares[1].high) == pytest.approx((interval.low, interval.high))
    assert test.shares[1].value == 0.75
    later = card.of("later block of time")
    assert [(each.name, each.rows, each.flagged) for each in later.shares] == [("Benign", 100, 5)]
    assert str(DAY) in str(later.source)
    unknown = [each.flows for each in card.measured if each.unknown]
    assert unknown == ["other window length", "held-out class", "unseen captures"]
    assert evaluation_of(model, replayed(local=False), 0, "r1", NOW).of("later block of time").unknown

    write_bytes(f"{tmp_path}/{path_of(NAME, OLD)}", card.to_json())
    assert read_evaluation(f"{tmp_path}/models", NAME, OLD, model.sha256) == card


@pytest.mark.parametrize(("flagged", "rows"), [(0, 7), (7, 7), (3, 7), (1, 100_000)])
def test_intervals_are_exact(flagged: int, rows: int) -> None:
    interval = binomtest(flagged, rows).proportion_ci(method="exact")
    found = share_of("Benign", rows, flagged)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_a_changed_or_foreign_card_is_refused_and_a_missing_one_is_none(model: Model, tmp_path: Path) -> None:
    models, path = f"{tmp_path}/models", tmp_path / path_of(NAME, OLD)
    assert read_evaluation(models, NAME, OLD, model.sha256) is None
    content = evaluation_of(model, replayed(local=True), 0, "r1", NOW).to_json()
    path.write_bytes(content)
    with pytest.raises(EvaluationUnusable, match="describes a model"):
        read_evaluation(models, NAME, OLD, "0" * 64)
    changed = json.loads(content)
    changed["evaluation"]["operating_point"] = -5.0
    for text in (json.dumps(changed).encode(), content[:100], b"[]", b"{}", b'{"format": 2}'):
        path.write_bytes(text)
        with pytest.raises(EvaluationUnusable, match="no evaluation card"):
            read_evaluation(models, NAME, OLD, model.sha256)
