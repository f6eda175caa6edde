"""Two real ranks on loopback that run a function of a test: of Horovod, and tasks of a barrier stage of Spark."""

import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import horovod
import pytest
from pyspark import cloudpickle as spark_pickle
from pyspark.sql import SparkSession

from ids_spark.train.barrier_ranks import on_ranks
from ids_spark.train.ranks import Ranks
from tests.support.flows import ROOT


def on_two_ranks(function: Callable[[], Any]) -> list[Any]:
    """Return what each of two ranks returns."""
    cloudpickle.register_pickle_by_value(sys.modules[function.__module__])  # ranks cannot import a test
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        found: list[Any] = horovod.run(function, np=2, use_gloo=True, network_interfaces=["lo"])
    return found


def on_two_tasks(spark: SparkSession, function: Callable[[Ranks], Any]) -> list[Any]:
    """Return what a function returns for each of two ranks."""
    module = sys.modules[function.__module__]
    spark_pickle.register_pickle_by_value(module)
    try:
        return on_ranks(spark.sparkContext, 2, function)
    finally:
        spark_pickle.unregister_pickle_by_value(module)
