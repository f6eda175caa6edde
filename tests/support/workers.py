"""Python workers of the shared Spark session that a test has killed, or that it must not leave to the next one."""

import contextlib

import psutil
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession


def end_workers(spark: SparkSession) -> None:
    """End idle Python workers: after an error, one in a communicator of XGBoost listens until it ends."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("libxgboost" in each.path for each in process.memory_maps()):
                process.kill()
    forget_dead_workers(spark)


def forget_dead_workers(spark: SparkSession) -> None:
    """Run tasks until none is given to an idle worker that was killed, with which the next test would fail."""
    for _ in range(20):
        with contextlib.suppress(Py4JJavaError):
            spark.sparkContext.parallelize(range(32), 32).map(abs).count()
            return
