"""From validation rows to what is stored with a model: its validation scores, and the detector of unknown attacks.

Ranks (`worker`) and Spark tasks (`boosting`) read the rows, as blocks: columns of shape (rows, features and more), with
the columns of `more_columns` after the features, and class ids.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from ids_spark.base.arrays import Floats, Floats32, Ids
from ids_spark.dataset.taxonomy import BENIGN_ID
from ids_spark.models import novelty, threshold
from ids_spark.models.novelty import Novelty
from ids_spark.models.threshold import LocalOrigin, ValidationScores
from ids_spark.train.tasks import LOCAL, FeatureTable

BASELINE_ROWS: Final = 20_000  # benign rows for their median
NOVELTY_ROWS: Final = 50_000  # benign train rows that the second detector is fitted on
NOVELTY_READ: Final = 2_000_000  # train rows that are read at most to find them
_LAB_ROWS: Final = 2_000  # of the data set among these, at least, where there are few local ones


class ScoredRows(NamedTuple):
    """Validation rows with their scores; arrays of shape (rows,), of benign rows (benign rows,).

    Attributes:
        logits: Attack logits.
        classes: Class ids.
        attack_ids: Most probable attack classes.
        predicted: Most probable classes.
        benign: Features of the first benign rows, shape (rows, features).
        distances: Of every benign row from the others; empty without a detector.
        blocks: Held-out blocks, `threshold.NO_BLOCK` for none.
    """

    logits: Floats
    classes: Ids
    attack_ids: Ids
    predicted: Ids
    benign: Floats32
    distances: Floats32
    blocks: Ids


def more_columns(table: FeatureTable) -> tuple[str, ...]:
    """Return the columns that blocks of validation rows hold after the features."""
    local = local_origin(table) is not None
    return (("block",) if table.blocked_rows or local else ()) + ((LOCAL,) if local else ())


def local_origin(table: FeatureTable) -> LocalOrigin | None:
    """Return where the benign validation rows of a table are from, if it holds out local ones."""
    if table.local is None or not table.local_rows("held_out"):
        return None
    return LocalOrigin(tuple(table.local["held_out_dates"]), table.local["held_out_by"])


def scored(
    table: FeatureTable,
    forward: Callable[[Floats32], Floats32],
    detector: Novelty | None,
    columns: Floats32,
    labels: Ids,
    most: int,
) -> ScoredRows:
    """Score a block of validation rows; if the table holds out local rows, they are its benign rows.

    Args:
        table: The feature table.
        forward: Returns class probabilities of scaled features.
        detector: The second detector; None without one.
        columns: Features and `more_columns`.
        labels: Class ids.
        most: Benign rows whose features are returned at most.
    """
    more = more_columns(table)
    n_features = columns.shape[1] - len(more)
    extra = dict(zip(more, columns[:, n_features:].T, strict=True))
    used = (labels != BENIGN_ID) | (extra[LOCAL] > 0) if LOCAL in extra else np.ones(len(labels), dtype=np.bool_)
    features, labels = np.ascontiguousarray(columns[:, :n_features])[used], labels[used]
    probabilities, benign = forward(features), features[labels == BENIGN_ID]
    blocks = np.full(len(used), threshold.NO_BLOCK, dtype=np.int32)
    if "block" in extra:  # ids are small enough to be exact as float32
        blocks = np.nan_to_num(extra["block"], nan=threshold.NO_BLOCK).astype(np.int32)
    return ScoredRows(
        threshold.attack_logits(probabilities),
        labels,
        threshold.most_probable_attacks(probabilities),
        probabilities.argmax(axis=1).astype(np.int32),
        benign[:most],
        detector.distances(benign) if detector else np.empty(0, dtype=np.float32),
        blocks[used],
    )


def joined(parts: Sequence[ScoredRows]) -> ScoredRows:
    """Return the rows of all parts in their order."""
    return ScoredRows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def stored_scores(
    table: FeatureTable, classes: int, rows: ScoredRows, detector: Novelty | None
) -> tuple[ValidationScores, Novelty | None]:
    """Return the validation scores of a model of so many classes, and its second detector with theirs."""
    local = local_origin(table)
    baseline = threshold.benign_baseline(rows.benign, np.ones(len(rows.benign), dtype=bool))
    benign = rows.classes == BENIGN_ID
    counts = np.bincount(rows.predicted[benign] if benign.any() else rows.predicted, minlength=classes)
    found = threshold.validation_scores_of(
        *(rows.logits, rows.classes, rows.attack_ids, counts, baseline, rows.blocks, local)
    )
    if detector is None:
        return found, None
    below = rows.logits[benign] < found.operating_point().logit
    detector = detector.calibrated(rows.distances, below)
    if local:
        reaching = below[:, np.newaxis] & (rows.distances[:, np.newaxis] >= detector.levels(threshold.RATES))
        found = found.with_unknown(rows.blocks[benign], reaching)
    return found, detector


def first_benign(
    blocks: Iterable[tuple[Floats32, Ids]], n_features: int, local: bool, wanted: int
) -> tuple[Floats32, Floats32]:
    """Return the features of the first benign train rows: of the data set, and local ones.

    Args:
        blocks: Features, with the column `local` after them if there are local rows, and class ids.
        n_features: Number of features.
        local: Whether there are local rows.
        wanted: Rows of each kind at most; without local rows, only the first two million rows are searched.
    """
    rows: tuple[list[Floats32], ...] = tuple([np.empty((0, n_features), dtype=np.float32)] for _ in range(2))
    seen = 0
    for columns, labels in blocks:
        benign = columns[labels == BENIGN_ID]
        for i in range(1 + local):
            rows[i].append(benign[(benign[:, -1] > 0) == i][:, :-1] if local else benign)
        seen += len(labels)
        enough = all(sum(len(part) for part in rows[i]) >= wanted for i in range(1 + local))
        if enough or (seen >= NOVELTY_READ and not local):  # local rows may be the last ones
            break
    of_data_set, own = (np.concatenate(parts)[:wanted] for parts in rows)
    return of_data_set, own


def fit_detector(of_data_set: Floats32, own: Floats32, local: bool) -> Novelty | None:
    """Return the second detector of benign train rows, as from `first_benign`; None if there are too few.

    Half of them are of the site's own nights if there are enough; rows of the data set are not more than those, but at
    least `_LAB_ROWS`, so that few local rows do not leave it with too few.
    """
    if local:
        of_data_set = of_data_set[:: max(1, round(len(of_data_set) / max(len(own), _LAB_ROWS)))]
    return novelty.fit(np.concatenate([of_data_set, own]))
