"""Class probabilities of flows to columns of predictions. Pure functions on Arrow and numpy columns."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats32, Ids
from ids_spark.dataset import taxonomy
from ids_spark.dataset.tables import TOP

_TOP: Final = 3


def coded(ids: Ids, names: tuple[str, ...]) -> pa.DictionaryArray:
    """Return names by id as a dictionary column: no text is copied."""
    return pa.DictionaryArray.from_arrays(pa.array(ids), pa.array(names))


def constant(value: Any, kind: pa.DataType, times: int) -> pa.Array:
    """Return one value, `times` long; text as a dictionary column."""
    if pa.types.is_string(kind):
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, dtype=np.int32)), pa.array([value], kind))
    return pa.repeat(pa.scalar(value, kind), times)


def levels(probabilities: Floats32, level: taxonomy.Level) -> dict[taxonomy.Level, Ids]:
    """Return the most probable class id at the model's level and every coarser one, each of shape (rows,).

    A coarser class's probability is the sum over its members.
    """
    found: dict[taxonomy.Level, Ids] = {}
    for coarser in taxonomy.levels_from(level):
        if coarser == level:
            sums = probabilities
        else:
            member = np.zeros((level, coarser), dtype=np.float32)
            member[np.arange(level), taxonomy.parents(level, coarser)] = 1.0
            sums = probabilities @ member
        found[coarser] = sums.argmax(axis=1).astype(np.int32)
    return found


def top(probabilities: Floats32, level: taxonomy.Level) -> pa.Array:
    """Return the three most probable classes of each row (two where there are no more), best first."""
    shown = min(_TOP, level)
    left = probabilities.copy()
    rows = np.arange(len(left))
    ids, values = np.empty((len(left), shown), np.int32), np.empty((len(left), shown), np.float32)
    for i in range(shown):  # three passes for the largest cost a fraction of sorting 19
        ids[:, i] = left.argmax(axis=1)
        values[:, i] = left[rows, ids[:, i]]
        left[rows, ids[:, i]] = -1.0
    names = pa.array(taxonomy.CLASSES[level]).take(pa.array(ids.ravel()))
    pairs = pa.StructArray.from_arrays([names, pa.array(values.ravel())], fields=list(TOP))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(left) + 1, dtype=np.int32) * shown), pairs)


def scattered(values: pa.Array, rows: NDArray[np.int64], times: int) -> pa.Array:
    """Return an array `times` long that holds `values` at `rows` and null elsewhere."""
    at = np.full(times, -1, dtype=np.int64)
    at[rows] = np.arange(len(rows))
    return values.take(pa.array(at, mask=at < 0))


def assembled(known: Mapping[str, Any], contract: pa.Schema) -> pa.Table:
    """Return known columns as a table of the contract; a column that is not known is null."""
    times = len(next(iter(known.values())))
    arrays = [known[f.name] if f.name in known else pa.nulls(times, f.type) for f in contract]
    fields = [
        f.with_type(a.type) if isinstance(a, pa.DictionaryArray) else f for f, a in zip(contract, arrays, strict=True)
    ]
    return pa.table(
        [a if isinstance(a, pa.DictionaryArray) else a.cast(f.type) for a, f in zip(arrays, fields, strict=True)],
        schema=pa.schema(fields),
    )
