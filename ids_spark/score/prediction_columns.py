"""Columns of predictions, the same for nights and splits: those computed from class probabilities, and constants.

Pure functions on Arrow and numpy columns.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats32, Ids, largest_columns
from ids_spark.dataset import taxonomy
from ids_spark.dataset.tables import TOP
from ids_spark.models.levels import at_levels

_TOP: Final = 3


def attack_probabilities(probabilities: Floats32) -> Floats32:
    """Return the probability of attack: the sum over all attack classes, at most 1, shape (rows,).

    Not 1 - P(benign): in float32 that is 0 for every flow whose attack probability is below 6e-8. The sum of 18 rounded
    numbers can exceed 1 by a rounding error and is therefore limited. NaN stays NaN.

    Args:
        probabilities: Of a softmax, benign first, shape (rows, classes).
    """
    total: Floats32 = np.minimum(probabilities[:, taxonomy.BENIGN_ID + 1 :].sum(axis=1), np.float32(1.0))
    return total


def predicted_ids(probabilities: Floats32, level: taxonomy.Level) -> dict[taxonomy.Level, Ids]:
    """Return the most probable class id at the model's level and at every coarser one, each of shape (rows,).

    The prediction at a coarser level need not be the parent of the most probable finer class.
    """
    return most_probable(at_levels(probabilities, level))


def most_probable(probabilities: Mapping[taxonomy.Level, Floats32]) -> dict[taxonomy.Level, Ids]:
    """Return the most probable class id of each row, shape (rows,), for probabilities of `models.levels.at_levels`."""
    return {level: largest_columns(found) for level, found in probabilities.items()}


def score_columns(
    probabilities: Floats32, predicted: Mapping[taxonomy.Level, Ids], contract: pa.Schema
) -> dict[str, Any]:
    """Return every column that is computed from class probabilities alone, by name.

    Args:
        probabilities: Shape (rows, classes), finite.
        predicted: From `predicted_ids`.
        contract: `top3` is computed only if the contract has it, as it costs more than all others together.
    """
    columns: dict[str, Any] = {
        "probability": pa.array(probabilities.max(axis=1, initial=0.0)),
        "attack_probability": pa.array(attack_probabilities(probabilities)),
    }
    for level, ids in predicted.items():
        columns[f"predicted_class{level}_id"] = pa.array(ids)
        columns[f"predicted_class{level}"] = dictionary(ids, taxonomy.CLASSES[level])
    if "top3" in contract.names:
        columns["top3"] = top_classes(probabilities, max(predicted))
    return columns


def top_classes(probabilities: Floats32, level: taxonomy.Level) -> pa.Array:
    """Return the three most probable classes of each row (both for a model of two), most probable first."""
    k = min(_TOP, level)
    remaining = probabilities.copy()
    rows = np.arange(len(remaining))
    ids, values = np.empty((len(remaining), k), np.int32), np.empty((len(remaining), k), np.float32)
    for i in range(k):  # three passes cost a fraction of sorting 19 columns
        ids[:, i] = remaining.argmax(axis=1)
        values[:, i] = remaining[rows, ids[:, i]]
        remaining[rows, ids[:, i]] = -1.0
    names = pa.array(taxonomy.CLASSES[level]).take(pa.array(ids.ravel()))
    pairs = pa.StructArray.from_arrays([names, pa.array(values.ravel())], fields=list(TOP))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(remaining) + 1, dtype=np.int32) * k), pairs)


def label_columns(labels: pa.ChunkedArray) -> dict[str, pa.Array]:
    """Return the true class at every level, `class19`, `class6` and `class2`, from labels at 19 classes.

    A label that is null or not a class gives null.
    """
    ids = label_ids(labels, 19)
    columns = {}
    for level in taxonomy.LEVELS:
        names = pa.array([taxonomy.CLASSES[level][i] for i in taxonomy.parents(19, level)])
        columns[f"class{level}"] = names.take(pa.array(ids, mask=ids < 0))
    return columns


def label_ids(labels: pa.ChunkedArray, level: taxonomy.Level) -> Ids:
    """Return class ids at a level for labels at 19 classes, -1 where a label is null or not a class."""
    encoded = labels.combine_chunks().dictionary_encode()
    id_of = {name: int(taxonomy.parents(19, level)[i]) for i, name in enumerate(taxonomy.CLASS19)}
    ids = np.array([*(id_of.get(name, -1) for name in encoded.dictionary.to_pylist()), -1], dtype=np.int32)
    found: Ids = ids[encoded.indices.fill_null(len(ids) - 1).to_numpy(zero_copy_only=False)]
    return found


def dictionary(ids: Ids, names: tuple[str, ...]) -> pa.DictionaryArray:
    """Return names by id as a dictionary column: no text is copied."""
    return pa.DictionaryArray.from_arrays(pa.array(ids), pa.array(names))


def constant(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    """Return a column that holds one value in all rows; text as a dictionary column."""
    if pa.types.is_string(kind):
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([value], kind))
    return pa.repeat(pa.scalar(value, kind), rows)


def constants(values: Mapping[str, Any], contract: pa.Schema, rows: int) -> dict[str, pa.Array]:
    """Return a `constant` column of the contract's type for each name."""
    return {name: constant(value, contract.field(name).type, rows) for name, value in values.items()}


def scatter(values: pa.Array, at: NDArray[np.int64], rows: int) -> pa.Array:
    """Return a column of so many rows that holds `values` at the rows `at` and null elsewhere."""
    places = np.full(rows, -1, dtype=np.int64)
    places[at] = np.arange(len(at))
    return values.take(pa.array(places, mask=places < 0))


def assemble(columns: Mapping[str, Any], contract: pa.Schema) -> pa.Table:
    """Return the columns of a contract as a table: missing ones are null, those outside the contract are dropped.

    Dictionary columns stay dictionaries: the writer stores them as the contract's type.
    """
    rows = len(next(iter(columns.values())))
    arrays = [columns[f.name] if f.name in columns else pa.nulls(rows, f.type) for f in contract]
    fields = [
        f.with_type(a.type) if isinstance(a, pa.DictionaryArray) else f for f, a in zip(contract, arrays, strict=True)
    ]
    return pa.table(
        [a if isinstance(a, pa.DictionaryArray) else a.cast(f.type) for a, f in zip(arrays, fields, strict=True)],
        schema=pa.schema(fields),
    )
