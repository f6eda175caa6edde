"""Attacks of a class that training has never seen: the share flagged with the second detector and without.

    python -m tests.bench.held_out DATA --out OUT

`make held-out` calls it. Each attack class in turn is left out of train and validation rows; a gru_dnn of 19 classes is
trained with Keras on the rest, and the class's test rows are scored. The network alone may flag `--rate` of the benign
flows; with the second detector, each of the two half of it. Prints a table and writes OUT/held_out.json.

DATA has the official layout. Where its train split holds no benign row (as in what is published of the first release),
both splits are joined and 30 % of the rows drawn as test.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from ids_spark.base.arrays import Floats, Floats32, Ids, Mask
from ids_spark.config.train import ModelConfig
from ids_spark.dataset.features import FEATURE_SCHEMAS, FeatureSchema
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19, class19_of
from ids_spark.features.moments import moments_of
from ids_spark.features.preprocess import Recipe, fit
from ids_spark.models import novelty, threshold

VALIDATION: Final = 0.25  # of the train rows
TEST: Final = 0.3  # of all rows, where train has no benign row
BATCH: Final = 128
LEARNING_RATE: Final = 3e-3
TRANSFORMS: Final = ("none", "signed_log")


@dataclass(frozen=True)
class Rows:
    """Flows: raw features, shape (rows, features), and ids of the 19 classes, shape (rows,)."""

    features: Floats
    labels: Ids

    def of(self, which: Mask) -> "Rows":
        """Return some of the rows."""
        return Rows(self.features[which], self.labels[which])


@dataclass(frozen=True)
class Split:
    """Train and test rows of a release."""

    schema: FeatureSchema
    train: Rows
    test: Rows


@dataclass(frozen=True)
class Shares:
    """Shares of test rows that are flagged, of one training; `found_*` of the class held out, `false_*` of benign rows.

    `alone`: the network at the whole rate. `half`: the network at half of it. `both`: the network or the second
    detector, each at half. `second`: the second detector, of the flows below the operating point.
    """

    class19: str
    draw: int
    rows: int
    benign_train_rows: int
    benign_validation_rows: int
    found_alone: float
    found_half: float
    found_both: float
    found_second: float
    false_alone: float
    false_half: float
    false_both: float
    false_second: float


Network = Callable[[Floats32], Floats32]
"""Scaled features to class probabilities."""


def read(folder: Path, seed: int) -> Split:
    """Read both splits without duplicates."""
    train, test = (_read(folder / split) for split in ("train", "test"))
    names = set(train.columns)
    [schema] = [each for each in FEATURE_SCHEMAS.values() if set(each.features) == names - {"label"}]
    own, other = (Rows(f[list(schema.features)].to_numpy(float), f["label"].to_numpy()) for f in (train, test))
    if (own.labels == BENIGN_ID).any():
        return Split(schema, own, other)
    joined = Rows(np.concatenate([own.features, other.features]), np.concatenate([own.labels, other.labels]))
    drawn = np.random.default_rng(seed).random(len(joined.labels)) < TEST
    return Split(schema, joined.of(~drawn), joined.of(drawn))


def _read(folder: Path) -> pd.DataFrame:
    parts = []
    for path in sorted(folder.glob("*.csv")):
        label = np.int32(CLASS19.index(class19_of(path.name)))
        parts.append(pd.read_csv(path, dtype=float).drop_duplicates().dropna().assign(label=label))
    return pd.concat(parts, ignore_index=True)


def measure(split: Split, held_out: int, draw: int, transform: str, rate: float, epochs: int) -> Shares:
    """Train without a class, and return what is flagged of it and of benign test rows."""
    random = np.random.default_rng((draw, held_out))
    known = split.train.labels != held_out
    held = random.random(len(known)) < VALIDATION
    train, validation = split.train.of(known & ~held), split.train.of(known & held)
    test = split.test.of((split.test.labels == held_out) | (split.test.labels == BENIGN_ID))
    scale = _scaling(split.schema, train, transform)
    x, x_validation, x_test = (scale(rows.features) for rows in (train, validation, test))
    network = _trained(x, train.labels, epochs, seed=draw)

    p = network(x_validation)
    logits, counts = threshold.attack_logits(p), np.bincount(p.argmax(axis=1), minlength=len(CLASS19))
    attacks = threshold.most_probable_attacks(p)
    scores = threshold.validation_scores_of(logits, validation.labels, attacks, counts, np.zeros(x.shape[1]))
    operating, whole, half = (
        level.logit for level in (scores.operating_point(), *map(scores.at_rate, (rate, rate / 2)))
    )
    benign = validation.labels == BENIGN_ID
    detector = novelty.fit(x[train.labels == BENIGN_ID])
    if detector is None:
        raise SystemExit("too few benign train rows for a detector")
    detector = detector.calibrated(detector.distances(x_validation[benign]), logits[benign] < operating)

    own, is_benign = threshold.attack_logits(network(x_test)), test.labels == BENIGN_ID
    second = (own < operating) & (detector.distances(x_test) >= detector.levels((rate / 2,))[0])
    flagged = {"alone": own >= whole, "half": own >= half, "both": (own >= half) | second, "second": second}
    return Shares(
        CLASS19[held_out],
        draw,
        int((~is_benign).sum()),
        int((train.labels == BENIGN_ID).sum()),
        int(benign.sum()),
        **{f"found_{name}": float(which[~is_benign].mean()) for name, which in flagged.items()},
        **{f"false_{name}": float(which[is_benign].mean()) for name, which in flagged.items()},
    )


def _scaling(schema: FeatureSchema, train: Rows, transform: str) -> Callable[[Floats], Floats32]:
    """Return the preprocessor fitted on train rows, as a function of raw features."""
    recipe = Recipe("held_out", schema, transform, 1e-8, "measured")
    columns = [recipe.transformed(np.ascontiguousarray(column)) for column in train.features.T]
    fitted = fit(recipe, [moments_of(column) for column in columns], np.column_stack(columns))

    def scale(features: Floats) -> Floats32:
        raw = {name: np.ascontiguousarray(column) for name, column in zip(schema.features, features.T, strict=True)}
        return np.column_stack(fitted.transform(raw))

    return scale


def _trained(x: Floats32, labels: Ids, epochs: int, seed: int) -> Network:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from ids_spark.models.architectures import build, keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    network = build("gru_dnn", x.shape[1], len(CLASS19), ModelConfig().model_dump(mode="json"))
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * -(-len(x) // BATCH))
    network.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    network.fit(x, labels, batch_size=BATCH, epochs=epochs, verbose=0)

    def predict(features: Floats32) -> Floats32:
        return np.asarray(network.predict(features, batch_size=4_096, verbose=0))

    return predict


def means(measured: Sequence[Shares]) -> pd.DataFrame:
    """Return the means over draws by class, in the order of ids, and last the mean over classes."""
    by_class = pd.DataFrame([asdict(shares) for shares in measured]).drop(columns="draw").groupby("class19").mean()
    by_class = by_class.reindex([name for name in CLASS19 if name in by_class.index])
    return pd.concat([by_class, by_class.mean().to_frame("mean of classes").T])


def show(console: Console, measured: Sequence[Shares], title: str) -> None:
    """Print a table: one line for each class."""
    table = Table(title=title)
    table.add_column("class held out")
    for heading in ("test rows", "network alone", "network, half", "and second detector", "benign: alone", "both"):
        table.add_column(heading, justify="right")
    for name, row in means(measured).iterrows():
        shares = (row[column] for column in ("found_alone", "found_half", "found_both"))
        false = (row[column] for column in ("false_alone", "false_both"))
        table.add_row(
            str(name), f"{row['rows']:,.0f}", *(f"{share:.3f}" for share in shares), *(f"{s:.4f}" for s in false)
        )
    console.print(table)


def main() -> int:
    """Hold out each class in turn."""
    parser = argparse.ArgumentParser(prog="tests.bench.held_out", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with train/ and test/")
    parser.add_argument("--out", type=Path, default=Path("runs/held-out"))
    parser.add_argument("--rate", type=float, default=0.01, help="share of the benign flows that may be flagged")
    parser.add_argument("--draws", type=int, default=1, help="trainings for each class, with other validation rows")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--transform", choices=TRANSFORMS, default="none", help="of the features, before scaling")
    given = parser.parse_args()
    if not 0 < given.rate <= threshold.RATES[0]:
        parser.error(f"--rate is {given.rate:g}; expected more than 0 and at most {threshold.RATES[0]:g}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    measured = []
    for draw in range(given.draws):
        split = read(given.data, draw)
        for held_out in sorted(set(split.train.labels) & set(split.test.labels) - {BENIGN_ID}):
            begin = time.monotonic()
            shares = measure(split, int(held_out), draw, given.transform, given.rate, given.epochs)
            measured.append(shares)
            console.print(
                f"{shares.class19}: {shares.found_alone:.3f} alone, {shares.found_both:.3f} with the second detector,"
                f" {time.monotonic() - begin:.0f} s"
            )
            given.out.mkdir(parents=True, exist_ok=True)
            facts = {"data": given.data.name, "rate": given.rate, "transform": given.transform, "epochs": given.epochs}
            content = {**facts, "trainings": [asdict(each) for each in measured]}
            (given.out / "held_out.json").write_text(json.dumps(content, indent=2) + "\n")
    show(console, measured, f"{given.data.name}, transform {given.transform}, benign rate {given.rate:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
