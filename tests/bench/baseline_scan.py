"""The minimum work of Spark on flow logs: read the columns of the model, write nothing.

spark-submit tests/bench/baseline_scan.py SOURCE TARGET LAKE
"""

import sys

from pyspark.sql import SparkSession

from tests.bench.score_work import read_model


def main(source: str, lake: str) -> None:
    """Read one night."""
    features = read_model(lake).card.features
    spark = SparkSession.builder.appName("scan").getOrCreate()
    spark.read.parquet(source).select(*(f"`{name}`" for name in features)).write.format("noop").mode("overwrite").save()
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3])
