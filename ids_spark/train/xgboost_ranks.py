"""Ranks that reduce with XGBoost's collective: training without Horovod, and of any version of TensorFlow.

The second implementation of `ranks.Ranks`, not the default. Arrays alone cross the network: its broadcast, which reads
pickle, is not used. Nobody authenticates; `xgboost_network` says what that requires.

A communicator belongs to the thread that joined it, while TensorFlow calls Python from threads of its own; a reduction
in one of those would return this rank's own values. So every call is made by one thread of this object.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
import xgboost
from numpy.typing import NDArray


class XGBoostRanks:
    """The ranks of a barrier stage; see `ranks.Ranks`.

    Args:
        arguments: Of `xgboost.collective.init`, from `xgboost_network.joined`.
        local_rank: Number of this rank among those of its machine.

    Raises:
        XGBoostError: a rank or the tracker cannot be reached.
    """

    def __init__(self, arguments: Mapping[str, Any], local_rank: int) -> None:
        self._thread = ThreadPoolExecutor(1, "all-reduce")
        self._thread.submit(xgboost.collective.init, **arguments).result()
        self._rank = int(self._thread.submit(xgboost.collective.get_rank).result())
        self._size = int(self._thread.submit(xgboost.collective.get_world_size).result())
        self._local_rank = local_rank

    @property
    def rank(self) -> int:
        """Number of this rank."""
        return self._rank

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._size

    @property
    def local_rank(self) -> int:
        """Number of this rank among those of its machine."""
        return self._local_rank

    def mean(self, tensor: Any, name: str) -> Any:
        """Return the mean over ranks."""
        return self.total(tensor, name) / self._size

    def total(self, tensor: Any, name: str) -> Any:
        """Return the sum over ranks; `name` is not needed, as calls are in order."""
        del name
        tensor = tf.convert_to_tensor(tensor)
        return tf.ensure_shape(tf.numpy_function(self._sum, [tensor], tensor.dtype), tensor.shape)

    def broadcast(self, variables: Iterable[Any]) -> None:
        """Set variables to the values of rank 0: the sum over ranks, where all others have zeros."""
        for variable in variables:
            own = variable.numpy()
            variable.assign(self._sum(own if self._rank == 0 else np.zeros_like(own)))

    def gathered(self, rows: NDArray[Any], name: str) -> NDArray[Any]:
        """Return the rows of all ranks: the sum of arrays for all rows, where each rank has filled in its own."""
        del name
        counts = np.zeros(self._size, dtype=np.int64)
        counts[self._rank] = len(rows)
        ends = np.cumsum(self._sum(counts))
        of_all = np.zeros((int(ends[-1]), *rows.shape[1:]), dtype=rows.dtype)
        of_all[ends[self._rank] - len(rows) : ends[self._rank]] = rows
        return self._sum(of_all)

    def __enter__(self) -> "XGBoostRanks":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Leave with all others at the end; after an error at once, so that the others get one too."""
        if error is None:
            self._thread.submit(xgboost.collective.finalize).result()
        self._thread.shutdown()  # the end of the thread closes its connections

    def _sum(self, array: NDArray[Any]) -> NDArray[Any]:
        if self._size == 1 or not array.size:
            return array
        reduce = xgboost.collective.allreduce
        flat: NDArray[Any] = self._thread.submit(reduce, np.asarray(array), xgboost.collective.Op.SUM).result()
        return flat.reshape(array.shape)
