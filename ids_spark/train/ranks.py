"""What a rank asks of the others: the one place where training depends on a library for all-reduce.

Tensors are TensorFlow's, in graphs too; `name` is of the tensor, equal on every rank and unique among concurrent calls.
Every rank makes the same calls in the same order, with tensors of the same shape and type, and gets the same result.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from numpy.typing import NDArray


class Ranks(Protocol):
    """The ranks of a training run, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Number of this rank, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def local_rank(self) -> int:
        """Number of this rank among those of its machine, from 0."""
        ...

    def mean(self, tensor: Any, name: str) -> Any:
        """Return the mean of a tensor over ranks, by element."""
        ...

    def total(self, tensor: Any, name: str) -> Any:
        """Return the sum of a tensor over ranks, by element."""
        ...

    def broadcast(self, variables: Iterable[Any]) -> None:
        """Set variables to the values that they have on rank 0."""
        ...

    def gathered(self, rows: NDArray[Any], name: str) -> NDArray[Any]:
        """Return the rows of all ranks, those of rank 0 first; they may differ in number, but not in their shape."""
        ...
