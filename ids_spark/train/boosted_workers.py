"""Boosting of trees by XGBoost, on one Spark task or on several that exchange their histograms.

A worker reads its row groups twice, for quantiles and for bins, and holds its rows as bins: a byte for each value with
up to 256 bins, and for each class 12 bytes (margin, gradient, second derivative) for each row.

Several workers are one barrier stage: if one is lost, Spark ends all of them.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xgboost
from pyspark import BarrierTaskContext, SparkContext

from ids_spark.base import process
from ids_spark.base.arrays import Floats32
from ids_spark.base.spark_tasks import run_each
from ids_spark.config.boost import BoostConfig
from ids_spark.train import xgboost_network
from ids_spark.train.feature_rows import RowGroup, read
from ids_spark.train.progress import ProgressFile
from ids_spark.train.tasks import LOCAL

_PROGRESS_S: Final = 20.0  # between two lines


@dataclass(frozen=True)
class Share:
    """What one worker trains with; the same for all workers of a model but for the row groups.

    Attributes:
        name: Of the model, for progress.
        groups: Row groups of split train.
        columns: Features, in input order.
        label: Column of the class ids.
        present: Ids of the classes that have train rows, ascending; the trees number them 0, 1, …
        config: Hyperparameters.
        seed: Of the draws of rows and features.
        threads: Of this worker.
        row_weights: Weights of rows, as `FeatureTable.row_weights`; None: all rows weigh the same.
        progress: URI of the progress file; only the first worker writes it.
    """

    name: str
    groups: Sequence[RowGroup]
    columns: tuple[str, ...]
    label: str
    present: tuple[int, ...]
    config: BoostConfig
    seed: int
    threads: int
    row_weights: tuple[float, float] | None
    progress: str


def train(spark_context: SparkContext, shares: Sequence[Share]) -> bytes:
    """Return the trees as XGBoost's JSON; each share is trained on by a Spark task, at the same time."""
    if len(shares) == 1:
        return run_each(spark_context, shares, lambda share: boosted(share, first=True))[0]
    rows = spark_context.parallelize(shares, len(shares)).barrier().mapPartitions(_work)
    found: list[bytes] = rows.collect()
    return found[0]


def boosted(share: Share, first: bool) -> bytes:
    """Return the trees of a share, or of all shares if this process is in a communicator of XGBoost."""
    matrix = xgboost.QuantileDMatrix(_Batches(share), max_bin=share.config.max_bin, nthread=share.threads)
    progress = [_Progress(share)] if first else []
    booster = xgboost.train(parameters(share), matrix, share.config.rounds, callbacks=progress)
    return bytes(booster.save_raw("json"))


def parameters(share: Share) -> dict[str, Any]:
    """Return the parameters of XGBoost."""
    of_classes = {"objective": "multi:softprob", "num_class": len(share.present)}
    if len(share.present) == 2:
        of_classes = {"objective": "binary:logistic"}
    given = share.config.model_dump(exclude={"rounds"})
    own = {"tree_method": "hist", "seed": share.seed, "nthread": share.threads, "verbosity": 0}
    return of_classes | given | own


def _work(own: Iterable[Share]) -> Iterator[bytes]:
    """Train as one worker of several; the first one returns the trees."""
    process.begin()
    context = BarrierTaskContext.get()
    index, [share] = context.partitionId(), own
    with xgboost_network.joined(context) as arguments, xgboost.collective.CommunicatorContext(**arguments):
        trees = boosted(share, first=index == 0)
    if index == 0:
        yield trees


class _Batches(xgboost.DataIter):  # type: ignore[misc]
    """The rows of a share, row group by row group."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._rows: Iterator[Any] = iter(())
        super().__init__()

    def reset(self) -> None:
        """Begin another pass."""
        more = () if self._share.row_weights is None else (LOCAL,)
        self._rows = read(self._share.groups, (*self._share.columns, *more), self._share.label)

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Pass the next row group on; return whether there was one."""
        rows = next(self._rows, None)
        if rows is None:
            return False
        (columns, labels), weights = rows, None
        if self._share.row_weights is not None:
            weights, columns = weights_of(columns[:, -1], self._share.row_weights), columns[:, :-1]
        input_data(
            data=np.ascontiguousarray(columns), label=np.searchsorted(self._share.present, labels), weight=weights
        )
        return True


def weights_of(local: Floats32, row_weights: tuple[float, float]) -> Floats32:
    """Return the weight of each row, as networks have it: see `FeatureTable.row_weights`.

    Args:
        local: Column `local`: rows of the group of a local row, 0 for a row of the data set.
        row_weights: Of a row of the data set, and of a local row that is alone in its group.
    """
    of_data_set, of_local = row_weights
    return np.where(local > 0, of_local / np.sqrt(np.maximum(local, 1)), of_data_set).astype(np.float32)


class _Progress(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Writes a line about the rounds so far every `_PROGRESS_S` seconds."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share, self._file = share, ProgressFile(share.progress)
        self._begin = self._last = time.monotonic()

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Write a line if it is time; training never stops early."""
        now, done, rounds = time.monotonic(), epoch + 1, self._share.config.rounds
        if now - self._last >= _PROGRESS_S:
            left = (now - self._begin) / done * (rounds - done)
            self._file.add(f"{self._share.name} round {done}/{rounds} left={left:.0f}s")
            self._last = now
        return False
