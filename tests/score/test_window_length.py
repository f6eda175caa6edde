"""Which models may score flow logs of which window length; the train rows are made by hand."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39
from ids_spark.extract.footer import Extraction
from ids_spark.features.moments import Moments
from ids_spark.features.preprocess import Recipe, fit
from ids_spark.models.artifact import Model
from ids_spark.score import window_length
from ids_spark.score.night_files import NightFile, NightSource
from ids_spark.score.window_length import WindowLengthMismatch
from tests.support.models import CARD, WEIGHTS

OPERATIONAL = RELEASE_39.feature_set("operational")


def model(numbers: Sequence[float], features: Sequence[str] = OPERATIONAL, transform: str = "none") -> Model:
    """A model whose train rows have these values of `Number`."""
    recipe = Recipe("paper", RELEASE_39, transform, 1e-8, "synthetic")
    sample = np.random.default_rng(1).normal(size=(len(numbers), 39))
    sample[:, RELEASE_39.features.index("Number")] = numbers
    sample = np.column_stack([recipe.transformed(column) for column in sample.T])
    moments = [
        Moments(len(c), float(c.mean()), float(((c - c.mean()) ** 2).sum()), float(c.min()), float(c.max()))
        for c in sample.T
    ]
    return Model(replace(CARD, features=tuple(features)), WEIGHTS, fit(recipe, moments, sample), "")


def night(*lengths: int | None) -> NightSource:
    """A night with a file of each window length; None: of no capture."""
    files = [
        NightFile(f"{i}.parquet", 9, None, n and Extraction(window=n, packets={"ipv4": 90}, windows=9))
        for i, n in enumerate(lengths)
    ]
    return NightSource(dt.date(2026, 3, 1), (), tuple(files), (), "measured")


OFFICIAL = [10] * 450 + [100] * 540 + [2, 3, 5, 7, 9, 33, 62, 78, 91, 97]
JOINED = [100] * 990 + [2, 3, 5, 7, 9, 33, 62, 78, 91, 97]


@pytest.mark.parametrize("transform", ["none", "signed_log"])
@pytest.mark.parametrize(
    ("numbers", "expected"), [(OFFICIAL, (10, 100)), (JOINED, (100,)), ([10] * 50, (10,)), (np.arange(2, 102), ())]
)
def test_trained_lengths_are_those_that_many_train_rows_have(
    numbers: Sequence[float], expected: tuple[int, ...], transform: str
) -> None:
    assert window_length.trained_lengths(model(numbers, transform=transform).preprocessor) == expected


@pytest.mark.parametrize("lengths", [(10,), (100,), (10, 100), (50,)])
@pytest.mark.parametrize("features", [RELEASE_39.features, ("Rate", "syn_count"), ("Rate", "Tot sum")])
def test_a_model_of_official_rows_with_features_that_follow_the_length_scores_no_extracted_logs(
    lengths: tuple[int, ...], features: tuple[str, ...]
) -> None:
    with pytest.raises(WindowLengthMismatch) as error:
        window_length.check(night(*lengths), model(OFFICIAL, features))
    for text in ("10 and 100", *(feature for feature in features if feature in RELEASE_39.artefacts)):
        assert text in str(error.value)
    for remedy in ("score.models=[dnn-6-operational]", "ingest.window=100", "extract.window=100"):
        assert remedy in str(error.value)


def test_a_model_of_rows_of_one_length_scores_logs_of_this_length_only() -> None:
    of_joined = model(JOINED, RELEASE_39.features)
    assert window_length.check(night(100), of_joined) == []
    assert window_length.check(night(100, None), of_joined) == []
    for other in ((10,), (10, 100)):
        with pytest.raises(WindowLengthMismatch, match=r"expected windows of 100 packets only.*extract\.window=100"):
            window_length.check(night(*other), of_joined)
    with pytest.raises(WindowLengthMismatch):  # also of a challenger
        window_length.check(night(10), model(OFFICIAL), of_joined)


def test_a_model_without_such_features_scores_every_length_with_a_note_on_unknown_ones() -> None:
    of_official = model(OFFICIAL)
    for known in ((), (None,), (10,), (100,), (10, 100)):
        assert window_length.check(night(*known), of_official) == []
    [note] = window_length.check(night(10, 50), of_official)
    assert "windows of 50" in note
    assert "10 and 100" in note


def test_logs_of_no_capture_files_that_are_not_read_and_the_first_release_are_accepted() -> None:
    source = night(10)
    unread = replace(source, files=(replace(source.files[0], reason="wrong_type"),))
    for accepted in (night(None), unread):
        assert window_length.check(accepted, model(OFFICIAL, RELEASE_39.features)) == []
    first = model(OFFICIAL).preprocessor
    first = replace(first, recipe=replace(first.recipe, schema=ORIGINAL_45))
    assert window_length.trained_lengths(first) == ()
    assert window_length.check(source, Model(CARD, WEIGHTS, first, "")) == []
