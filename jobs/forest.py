"""Grows random forests of Spark ML on the features of the networks, as a reference.

    spark-submit --driver-java-options -XX:+UseParallelGC --py-files dist/ids_spark.zip jobs/forest.py --set lake=LAKE

The option enables the JVM's optimising compiler, which conf/spark disables for the other jobs; without it forests take
several times as long.

Reads: `features/<recipe>`: grows on split train, evaluates on split test, which holds each distinct labelled flow once,
like the metrics of `jobs/score.py`. One forest for each of `train.classes` and `train.feature_sets`.
Writes: `metrics/` and `confusion/` as model `random_forest`, with metrics `fit_seconds`, `nodes`, `trees`, `depth`.
No model directory is written.
"""

import itertools
import logging
import sys
from multiprocessing.pool import ThreadPool

from ids_spark.base.report import Report
from ids_spark.evaluate import forest
from ids_spark.evaluate.results import Results, unseen_classes
from ids_spark.models.artifact import ModelCard
from ids_spark.runtime import job
from ids_spark.train.tasks import open_features

log = logging.getLogger(__name__)
SPLIT = "test"


def run(context: job.Context) -> Report:
    """Grow and evaluate every forest of the configuration."""
    config, spark, seed = context.config.forest, context.spark, context.config.seed
    table = open_features(context.lake, context.config.features.recipe, ranks=1)
    combinations = itertools.product(context.config.train.feature_sets, context.config.train.classes)
    cards = [
        forest.card_of(table, config, classes, feature_set, context.run_id) for feature_set, classes in combinations
    ]
    train = forest.read_split(spark, table, "train", config.rows_per_partition).cache()
    test = forest.read_split(spark, table, SPLIT, config.rows_per_partition).cache()

    def grow(card: ModelCard) -> forest.Grown:
        grown = forest.grow(train, test, card, config, seed)
        log.info("grown %s %s", card.name, " ".join(f"{name}={value:.0f}" for name, value in grown.facts.items()))
        return grown

    # A forest uses one core as long as its rows are one partition, so several are grown at the same time.
    with ThreadPool(config.at_once) as pool:
        grown = pool.map(grow, sorted(cards, key=lambda card: -card.classes), chunksize=1)
    train.unpersist()
    test.unpersist()

    origin, rows = table.preprocessor.data_origin, table.rows["train"] + table.rows[SPLIT]
    report = Report(feature_schema=table.preprocessor.schema.name, data_origin=origin, rows_in=rows, rows_out=rows)
    results = Results(context.run_id, SPLIT, seed)
    for one in grown:
        results.add(one.card, one.counts, origin, one.facts)
        report.models.append(f"{one.card.name}/{one.card.version}")
        unseen = unseen_classes(one.card, one.counts.confusions[one.card.classes])
        if unseen:
            report.notes.append(
                f"{one.card.name}: {len(unseen)} classes occur that were not in train: {', '.join(unseen)}"
            )
    report.tables += results.write(context.lake, context.staged)
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
