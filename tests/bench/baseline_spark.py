"""Plain Spark: the DataFrame API with its default settings.

    spark-submit tests/bench/baseline_spark.py SOURCE TARGET

Duplicates are removed by `dropDuplicates` on all columns. Statistics, scaling and shuffle are column expressions, which
is faster than `VectorAssembler` and `StandardScaler` with their vectors, and gives the same columns.
"""

import sys
from itertools import chain

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.bench import work


def _looked_up(values: list[str] | list[int]) -> Column:
    return F.create_map(*chain.from_iterable((F.lit(i), F.lit(value)) for i, value in enumerate(values)))[
        F.col("label19")
    ]


def read(spark: SparkSession, source: str, split: str) -> DataFrame:
    """Return every capture of a split as typed flows with their classes."""
    ids = {path.rsplit("/", 1)[1]: label for path, label in work.captures(source, split)}
    by_file = F.create_map(*chain.from_iterable((F.lit(name), F.lit(label)) for name, label in ids.items()))
    return (
        spark.read.parquet(f"{source}/{split}")
        .withColumn("label19", by_file[F.element_at(F.split(F.input_file_name(), "/"), -1)])
        .withColumn("class19", _looked_up(list(work.CLASS19)))
        .withColumn("class6", _looked_up(work.NAMES_6))
        .withColumn("class2", _looked_up(work.NAMES_2))
    )


def write_features(rows: DataFrame, means: dict[str, float], stds: dict[str, float], folder: str) -> None:
    """Scale, cast, label, shuffle and write."""
    scaled = [((F.col(name) - means[name]) / stds[name]).cast("float").alias(name) for name in stds]
    labels = ["label19", _looked_up(work.TO_6).alias("label6"), _looked_up(work.TO_2).alias("label2")]
    rows.select(*scaled, *labels).orderBy(F.rand(work.SEED)).write.parquet(folder)


def main(source: str, target: str) -> None:
    """Prepare one source."""
    spark = SparkSession.builder.appName("plain Spark").getOrCreate()
    columns = [*work.FEATURES, "label19"]
    for split in ("train", "test"):
        read(spark, source, split).write.parquet(f"{target}/flows/split={split}")
    distinct = {
        split: spark.read.parquet(f"{target}/flows/split={split}").select(columns).dropDuplicates()
        for split in ("train", "test")
    }
    share = work.VALIDATION_SHARE
    distinct["train"] = distinct["train"].persist()  # read four times, and split at random
    train, validation = distinct["train"].randomSplit([1 - share, share], work.SEED)
    found = train.select(
        *(F.avg(name).alias(f"mean {name}") for name in work.FEATURES),
        *(F.stddev_pop(name).alias(f"std {name}") for name in work.FEATURES),
    ).first()
    stds = {name: found[f"std {name}"] for name in work.FEATURES if found[f"std {name}"] > work.MIN_STD}
    means = {name: found[f"mean {name}"] for name in stds}
    write_features(train, means, stds, f"{target}/features/split=train")
    write_features(validation, means, stds, f"{target}/features/split=validation")
    distinct["train"].unpersist()
    write_features(distinct["test"], means, stds, f"{target}/features/split=test")
    work.finish(target, means, stds)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
