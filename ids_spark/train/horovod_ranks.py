"""Ranks that Horovod started, and that reduce with Gloo, or NCCL on GPUs."""

from collections.abc import Iterable
from typing import Any

import horovod.tensorflow as hvd
from numpy.typing import NDArray


class HorovodRanks:
    """The ranks of a run after `hvd.init()`; see `ranks.Ranks`."""

    @property
    def rank(self) -> int:
        """Number of this rank."""
        return int(hvd.rank())

    @property
    def size(self) -> int:
        """Number of ranks."""
        return int(hvd.size())

    @property
    def local_rank(self) -> int:
        """Number of this rank among those of its machine."""
        return int(hvd.local_rank())

    def mean(self, tensor: Any, name: str) -> Any:
        """Return the mean over ranks."""
        return tensor if self.size == 1 else hvd.allreduce(tensor, op=hvd.Average, name=name)

    def total(self, tensor: Any, name: str) -> Any:
        """Return the sum over ranks."""
        return tensor if self.size == 1 else hvd.allreduce(tensor, op=hvd.Sum, name=name)

    def broadcast(self, variables: Iterable[Any]) -> None:
        """Set variables to the values of rank 0."""
        hvd.broadcast_variables(list(variables), root_rank=0)

    def gathered(self, rows: NDArray[Any], name: str) -> NDArray[Any]:
        """Return the rows of all ranks."""
        found: NDArray[Any] = hvd.allgather(rows, name=name).numpy()
        return found
