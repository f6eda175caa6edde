"""Spark ML's random forest on the feature table, as a reference for the networks.

A tree uses only the order of values, so transform and standardisation of the recipe have almost no effect on it.

The defaults of `settings.ForestConfig` were chosen on validation (8,508 real rows of the second release, 19 classes,
one seed). 100 trees, depth 20, 32 bins reach macro F1 .799; depth 30 .802 and 64 bins .801, at 1.4 times the CPU; a
third of the features at each split .800; a subsampling rate of .7 .797. Of 20 trees, 32 bins gave .800, 128 bins .791,
512 bins .794; at depth 30 one row to a leaf gave .801, two .790, five .786.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyspark.ml.classification import RandomForestClassificationModel, RandomForestClassifier
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from ids_spark.base import process
from ids_spark.config.settings import ForestConfig
from ids_spark.config.train import Classes, FeatureSetName
from ids_spark.dataset.features import column_of
from ids_spark.dataset.tables import features_contract
from ids_spark.evaluate import score_counts
from ids_spark.evaluate.score_counts import ScoreCounts
from ids_spark.lake.parquet import SUFFIX
from ids_spark.models.artifact import ModelCard
from ids_spark.models.levels import at_levels
from ids_spark.train.tasks import FeatureTable, untrained_card

TITLE: Final = "random_forest"
_VECTOR: Final = "vector"


@dataclass(frozen=True)
class Grown:
    """A grown forest and its results.

    Attributes:
        card: Card of the forest; no model directory is written, as the forest is only a reference.
        counts: Of the test split of `features/`, which holds each distinct flow once; a forest has no threshold.
        facts: `fit_seconds`, `nodes` (of all trees together), `trees` and `depth` (of the deepest tree).
    """

    card: ModelCard
    counts: ScoreCounts
    facts: dict[str, float]


def card_of(
    table: FeatureTable, config: ForestConfig, classes: Classes, feature_set: FeatureSetName, version: str
) -> ModelCard:
    """Return the card of a forest: inputs by feature set, outputs by classes."""
    return untrained_card(table, TITLE, "", config.model_dump(mode="json"), classes, feature_set, version)


def read_split(spark: SparkSession, table: FeatureTable, split: str, rows_per_partition: int) -> DataFrame:
    """Return a split of the feature table in an order that is the same in every run.

    A forest draws the rows of each tree by partition and position, so these must not depend on names and sizes of
    files.

    The schema is given, because Spark would otherwise import the classes that a file's metadata names.
    """
    partitions = max(1, -(-table.rows.get(split, 0) // rows_per_partition))
    reader = spark.read.schema(from_arrow_schema(features_contract(table.preprocessor.columns)))
    reader = reader.option("pathGlobFilter", f"*{SUFFIX}").option("__globPaths__", "false")  # the path is no pattern
    rows = reader.parquet(f"{table.uri}/split={split}").repartition(partitions, "row_key")
    return rows.sortWithinPartitions("row_key", "label19")


def as_vectors(rows: DataFrame, features: Sequence[str], classes: int) -> DataFrame:
    """Return `vector` (features in this order) and `label` for Spark ML, and `label19`. Rows: unchanged."""
    assembler = VectorAssembler(inputCols=[column_of(name) for name in features], outputCol=_VECTOR)
    labelled = rows.withColumn("label", F.col(f"label{classes}").cast("double"))
    return assembler.transform(labelled).select(_VECTOR, "label", "label19")


def fit(train: DataFrame, config: ForestConfig, seed: int) -> RandomForestClassificationModel:
    """Grow a forest on rows with `vector` and `label`.

    Every row caches its node in every tree (`cacheNodeIds`): otherwise all trees so far are sent to the tasks for each
    pass over the rows, which takes half of the time.
    """
    estimator = RandomForestClassifier(
        featuresCol=_VECTOR,
        labelCol="label",
        numTrees=config.trees,
        maxDepth=config.max_depth,
        maxBins=config.max_bins,
        featureSubsetStrategy=config.features_per_split,
        subsamplingRate=config.subsampling_rate,
        minInstancesPerNode=config.min_rows_per_leaf,
        cacheNodeIds=True,
        seed=seed,
    )
    model: RandomForestClassificationModel = estimator.fit(train)
    return model


def count(model: RandomForestClassificationModel, rows: DataFrame, classes: Classes) -> ScoreCounts:
    """Count the predictions for rows of `as_vectors`; executors count, and return sums."""

    def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        process.begin()
        found = [score_counts.no_counts(classes)]
        for batch in batches:
            values = batch["probability"].flatten().to_numpy(zero_copy_only=False)
            at_each = at_levels(values.reshape(-1, classes).astype(np.float32), classes)
            predicted = {level: each.argmax(axis=1).astype(np.int32) for level, each in at_each.items()}
            predicted[classes] = batch["prediction"].to_numpy().astype(np.int32)
            labels = batch["label19"].to_numpy()
            found.append(score_counts.count(at_each, predicted, labels, np.full(len(labels), True), None))
        content = score_counts.packed(score_counts.merged(found))
        yield pa.RecordBatch.from_pylist([content])

    schema = ", ".join(f"{name} binary" for name in score_counts.packed(score_counts.no_counts(classes)))
    probabilities = vector_to_array(F.col("probability")).alias("probability")
    scored = model.transform(rows).select(probabilities, "prediction", "label19")
    parts = [row.asDict() for row in scored.mapInArrow(counted, schema).collect()]
    return score_counts.merged(score_counts.unpacked(part, classes) for part in parts)


def grow(train: DataFrame, test: DataFrame, card: ModelCard, config: ForestConfig, seed: int) -> Grown:
    """Grow one forest on the rows of one split and count its predictions for another split."""
    begin = time.monotonic()
    model = fit(as_vectors(train, card.features, card.classes), config, seed)
    trees: list[Any] = list(model.trees)
    facts = {
        "fit_seconds": time.monotonic() - begin,
        "nodes": float(model.totalNumNodes),
        "trees": float(len(trees)),
        "depth": float(max(tree.depth for tree in trees)),
    }
    return Grown(card, count(model, as_vectors(test, card.features, card.classes), card.classes), facts)
