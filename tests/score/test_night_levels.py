"""Levels of evidence of a model: thresholds and benign rows of each category, also of a model of version 0.2."""

import dataclasses
import json

import numpy as np

from ids_spark.models import threshold
from ids_spark.models.artifact import Model
from ids_spark.score.night_incidents import levels_of
from tests.support.models import CARD, NOVELTY, PREPROCESSOR, WEIGHTS

rng = np.random.default_rng(5)
benign, attack_ids = rng.normal(-6, 2, 30_000), rng.integers(1, 6, 30_000).astype(np.int32)
SCORES = threshold.validation_scores_of(
    benign, np.zeros(30_000, np.int32), attack_ids, np.array([30_000, 0, 0, 0, 0, 0]), np.array([0.5, -0.5])
)
MODEL = Model(CARD, WEIGHTS, PREPROCESSOR, "", SCORES)


def test_benign_rows_are_counted_for_each_category() -> None:
    found = levels_of(MODEL)
    assert found.stored.categories == ("DDoS", "DoS", "MQTT", "Recon", "Spoofing")
    expected = [[((attack_ids == i) & (benign >= logit)).sum() for logit in found.logits] for i in range(1, 6)]
    np.testing.assert_array_equal(found.stored.counts, expected)
    np.testing.assert_array_equal(found.stored.rows, [30_000] * 5)


def test_blocks_of_local_rows_are_counted_for_each_category_and_the_second_detector() -> None:
    blocks = np.repeat(np.arange(30), 1_000).astype(np.int32)
    local = threshold.LocalOrigin(("2026-11-03",), "date")
    counts = np.array([30_000, 0, 0, 0, 0, 0])
    arguments = (benign, np.zeros(30_000, np.int32), attack_ids, counts, np.array([0.5, -0.5]), blocks)
    scores = threshold.validation_scores_of(*arguments, local)
    reaching = rng.random((30_000, 1)) < (0.01, 0.002, 0.001)
    unknown = np.logical_and.accumulate(reaching, axis=1)
    scores = threshold.from_json(scores.with_unknown(blocks, unknown).to_json(), "validation_scores.json")
    found = levels_of(dataclasses.replace(MODEL, validation_scores=scores, novelty=NOVELTY))
    assert found.logits == levels_of(MODEL).logits
    assert found.stored.categories[5:] == ("Unknown",)
    of_block, rows = found.stored.blocks
    np.testing.assert_array_equal(rows, [1_000] * 30)
    np.testing.assert_array_equal(of_block[:, :5].sum(axis=0), found.stored.counts[:5])
    expected = [((benign >= found.logits[1]) & (attack_ids == 4) & (blocks == i)).sum() for i in range(30)]
    np.testing.assert_array_equal(of_block[:, 3, 1], expected)
    np.testing.assert_array_equal(of_block[:, 5], [unknown[blocks == i].sum(axis=0) for i in range(30)])
    # Runs of rows of the data set do not tell how devices differ.
    for origin in (None, threshold.LocalOrigin((), "rows")):
        others = threshold.validation_scores_of(*arguments, origin)
        blocks_used = levels_of(dataclasses.replace(MODEL, validation_scores=others)).stored.blocks
        assert (blocks_used is not None) == (origin is not None)


def test_without_stored_classes_each_category_may_have_all_benign_rows() -> None:
    content = json.loads(SCORES.to_json()) | {"format": 1, "attack_quantiles": []}
    del content["benign_tail_classes"], content["attack_classes"], content["blocks"]
    older = threshold.from_json(json.dumps(content), "calibration.json")
    found = levels_of(dataclasses.replace(MODEL, validation_scores=older))
    assert found.logits == levels_of(MODEL).logits
    all_rows = [(benign >= logit).sum() for logit in found.logits]
    np.testing.assert_array_equal(found.stored.counts, [all_rows] * 5)
