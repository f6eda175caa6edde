"""Blends of a network and boosted trees that were trained on the same rows: what `jobs/blend.py` does.

Nothing is trained: Spark tasks score the validation rows with both, and the driver writes a model directory with the
weights of the network, the trees, a threshold of their own, and the network's detector of unknown attacks. That both
saw the same train rows follows from equal preprocessors, whose moments are those of all train rows.
"""

import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from pyspark import SparkContext

from ids_spark.base.arrays import Floats, Floats32
from ids_spark.base.errors import InputError
from ids_spark.base.packaging import code_version
from ids_spark.base.report import Report
from ids_spark.base.spark_tasks import run_each
from ids_spark.config.blend import BlendConfig, BlendParts
from ids_spark.config.train import TrainConfig
from ids_spark.dataset.features import column_of
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, inference, registry, signatures
from ids_spark.models.artifact import BLEND, TREES, Model, ModelCard
from ids_spark.models.novelty import Novelty
from ids_spark.models.signatures import Signing
from ids_spark.models.threshold import ValidationScores
from ids_spark.train import feature_rows, slots, validation
from ids_spark.train.feature_rows import RowGroup
from ids_spark.train.tasks import FeatureTable, open_features
from ids_spark.train.validation import ScoredRows

log = logging.getLogger(__name__)

_SHARES: Final = tuple(round(0.1 * i, 1) for i in range(1, 10))
_BATCH_ROWS: Final = 8_192
_LEAST: Final = 1e-7  # of a probability, as Keras clips it in cross-entropy


class NotOneBlend(InputError):
    """Raised when a network and trees are not of the same inputs, classes and train rows."""


def blend_models(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    recipe: str,
    config: BlendConfig,
    train: TrainConfig,
    run_id: str,
    signing: Signing,
) -> Report:
    """Blend stored models and stage the directories of the blends.

    Args:
        spark_context: Its executors score the validation rows.
        lake: Holds the models and the feature table.
        staged: Returns the URI of the staged version of a table.
        recipe: Name of the feature table.
        config: Which models, and the share of the network.
        train: Its numbers of classes, feature sets and variant.
        run_id: Of the run, and version of the blends.
        signing: Keys of which the models must be signed, and that of the blends.

    Raises:
        ModelUnusable: a model or version does not exist, or cannot be read.
        SignatureRefused: a model is not signed as it should be.
        NotOneBlend: see `require_one_blend`.
        TableMissing: the recipe was not written yet.
    """
    table, models = open_features(lake, recipe, 1), lake.uri("models")
    report = Report(feature_schema=table.preprocessor.schema.name, data_origin=table.preprocessor.data_origin)
    pairs = []
    for classes, feature_set in itertools.product(train.classes, train.feature_sets):
        pair = []
        for title, version in ((config.network, config.network_version), (config.trees, config.trees_version)):
            [uri] = artifact.choose_models(models, [artifact.model_name(title, classes, feature_set)], version)
            _, name, found = uri.rsplit("/", 2)
            pair.append(registry.read_version(models, name, found, signing.trust))
        require_one_blend(pair[0], pair[1], table)
        pairs.append(pair)
    for network, trees in pairs:
        card = card_of(network.card, trees.card, train.variant, run_id, config.share)
        path = f"models/{card.name}/{card.version}"
        write_blend(spark_context, table, (network, trees), card, staged(path), config.share, signing, report)
        report.models.append(f"{card.name}/{card.version}")
        report.tables.append(path)
    if signing.key is not None:
        report.notes.append(f"models were signed by the key {signing.key.key_id}")
    report.rows_in = report.rows_out = table.rows["validation"]
    return report


def require_one_blend(network: Model, trees: Model, table: FeatureTable) -> None:
    """Check that a network and trees can be blended, and that the table holds their validation rows.

    Raises:
        NotOneBlend: one is of another kind; inputs, classes or train rows differ; or the table is of other rows.
    """
    own, other = (f"{each.card.name}/{each.card.version}" for each in (network, trees))
    remedy = "train both on the same feature table, or choose versions with blend.network_version, blend.trees_version"
    if network.card.architecture in (TREES, BLEND) or trees.card.architecture != TREES:
        raise NotOneBlend(
            f"{own} is of kind {network.card.architecture}, {other} of kind {trees.card.architecture}; expected a"
            f" network and {TREES}; set blend.network and blend.trees"
        )
    for name in ("classes", "feature_set", "features", "classes_absent_in_train"):
        if getattr(network.card, name) != getattr(trees.card, name):
            raise NotOneBlend(f"{own} and {other} differ in {name}; {remedy}")
    expected = table.preprocessor.sha256()
    for name, each in ((own, network), (other, trees)):
        if each.preprocessor.sha256() != expected:
            raise NotOneBlend(
                f"{name} was not trained on the present rows of {table.uri}: its preprocessor is"
                f" {each.preprocessor.sha256()[:16]}…, that of the table {expected[:16]}…; {remedy}, or set"
                " features.recipe to its table"
            )


def card_of(network: ModelCard, trees: ModelCard, variant: str, version: str, share: float | str) -> ModelCard:
    """Return the card of a blend; a share that is still to be chosen is that of two equal parts."""
    boosting = artifact.parts_of(trees).boosting
    assert boosting is not None  # `require_one_blend`
    parts = BlendParts.model_validate(
        {
            "share": share if isinstance(share, float) else 0.5,
            "network": network.architecture,
            "network_hyperparameters": network.hyperparameters,
            "boosting": boosting,
        }
    )
    return replace(
        network,
        name=artifact.model_name(artifact.title_of(BLEND, variant), network.classes, network.feature_set),
        version=version,
        architecture=BLEND,
        variant=variant,
        hyperparameters=parts.model_dump(mode="json"),
    )


def write_blend(
    spark_context: SparkContext,
    table: FeatureTable,
    pair: tuple[Model, Model],
    card: ModelCard,
    target: str,
    share: float | str,
    signing: Signing,
    report: Report,
) -> None:
    """Write the model directory of a blend.

    Args:
        spark_context: Its executors score the validation rows.
        table: The feature table.
        pair: Network and trees, after `require_one_blend`.
        card: From `card_of`.
        target: URI of the staged directory.
        share: Of the network; `validation`: it is chosen.
        signing: Its key signs the blend.
        report: Receives what was chosen.
    """
    network, trees = pair
    begin = time.monotonic()
    facts: dict[str, Any] = {
        "code_version": code_version(),
        "network": f"{network.card.name}/{network.card.version}",
        "trees": f"{trees.card.name}/{trees.card.version}",
        "train_rows": table.rows["train"],
        **{name: network.card.training[name] for name in ("parameters", "epochs") if name in network.card.training},
        **{name: trees.card.training[name] for name in ("nodes",) if name in trees.card.training},
    }
    if not isinstance(share, float):
        costs = cross_entropies(spark_context, table, network, trees)
        chosen = min(costs, key=lambda each: costs[each])
        card = replace(card, hyperparameters={**card.hyperparameters, "share": chosen})
        facts["validation_loss_of_shares"] = {str(each): cost for each, cost in costs.items()}
        report.notes.append(
            f"{card.name}: the network has a share of {chosen}, with a cross-entropy of {costs[chosen]:.4f} of the"
            f" validation rows ({min(costs.values()):.4f} to {max(costs.values()):.4f} for shares of"
            f" {_SHARES[0]} to {_SHARES[-1]})"
        )
    blend = blended(network, trees, card)
    scores, detector = score_validation_rows(spark_context, table, blend)
    parts_seconds = sum(float(each.card.training.get("seconds", 0)) for each in pair)
    facts["seconds"] = parts_seconds + time.monotonic() - begin
    sha256 = artifact.write_model(
        *(target, replace(card, training=facts), blend.weights, table.preprocessor, scores, detector, blend.booster)
    )
    if signing.key is not None:
        signatures.sign_model(target, signing.key, card.name, card.version, sha256)
    log.info("blended %s of %s and %s", card.name, facts["network"], facts["trees"])


def blended(network: Model, trees: Model, card: ModelCard) -> Model:
    """Return a blend that is not stored yet; its hash identifies both models and the share."""
    identity = f"{network.sha256} {trees.sha256} {card.hyperparameters['share']}"
    sha256 = hashlib.sha256(identity.encode()).hexdigest()
    return Model(card, network.weights, network.preprocessor, sha256, None, network.novelty, trees.booster)


def cross_entropies(
    spark_context: SparkContext, table: FeatureTable, network: Model, trees: Model
) -> dict[float, float]:
    """Return the mean cross-entropy of the validation rows for each share of the network."""
    card = network.card
    columns = tuple(column_of(name) for name in card.features)

    def summed(run: Sequence[RowGroup]) -> Floats:
        total = np.zeros(len(_SHARES))
        for rows in feature_rows.read(run, columns, f"label{card.classes}"):
            own, other = (
                inference.forward(model, rows.columns, _BATCH_ROWS)[np.arange(len(rows.labels)), rows.labels]
                for model in (network, trees)
            )
            for i, share in enumerate(_SHARES):
                total[i] -= np.log(np.maximum(share * own.astype(np.float64) + (1 - share) * other, _LEAST)).sum()
        return total

    sums = np.sum(run_each(spark_context, _runs(spark_context, table), summed), axis=0)
    return dict(zip(_SHARES, (sums / table.rows["validation"]).tolist(), strict=True))


def score_validation_rows(
    spark_context: SparkContext, table: FeatureTable, model: Model
) -> tuple[ValidationScores, Novelty | None]:
    """Return the validation scores of a model, and its second detector with theirs."""
    card, detector = model.card, model.novelty
    columns = (*(column_of(name) for name in card.features), *validation.more_columns(table))
    of_each = -(-validation.BASELINE_ROWS // max(1, len(feature_rows.row_groups(f"{table.uri}/split=validation"))))

    def scored(run: Sequence[RowGroup]) -> ScoredRows:
        def forward(matrix: Floats32) -> Floats32:
            return inference.forward(model, matrix, _BATCH_ROWS)

        read = feature_rows.read(run, columns, f"label{card.classes}")
        return validation.joined(
            [validation.scored(table, forward, detector, rows.columns, rows.labels, of_each) for rows in read]
        )

    found = validation.joined(run_each(spark_context, _runs(spark_context, table), scored))
    return validation.stored_scores(table, card.classes, found, detector)


def _runs(spark_context: SparkContext, table: FeatureTable) -> list[list[RowGroup]]:
    groups = feature_rows.row_groups(f"{table.uri}/split=validation")
    return feature_rows.in_runs(groups, slots.at_once(spark_context) or spark_context.defaultParallelism)
