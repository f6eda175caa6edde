"""What a labelled split's predictions say of each flow. Pure functions on Arrow and numpy columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats32
from ids_spark.dataset import taxonomy
from ids_spark.score import prediction_columns


def identity(table: pa.Table, there: Sequence[str]) -> dict[str, Any]:
    """Return the columns that name a flow, and its labels at every level where the table has them.

    Args:
        table: With `source_file`, `source_row`, `row_key`.
        there: Columns that the source itself has; `class19` is used if named here.
    """
    columns = {name: table[name] for name in ("source_file", "source_row", "row_key")}
    if "class19" in there:
        ids = label_ids(table["class19"], 19)
        for level in taxonomy.LEVELS:
            names = pa.array([taxonomy.CLASSES[level][i] for i in taxonomy.parents(19, level)])
            columns[f"class{level}"] = names.take(pa.array(ids, mask=ids < 0))
    return columns


def label_ids(column: Any, level: taxonomy.Level) -> NDArray[np.int32]:
    """Return class ids at a level, -1 where the label is null or unknown."""
    encoded = column.combine_chunks().dictionary_encode()
    of_name = {name: int(taxonomy.parents(19, level)[i]) for i, name in enumerate(taxonomy.CLASS19)}
    ids = np.array([*(of_name.get(name, -1) for name in encoded.dictionary.to_pylist()), -1], dtype=np.int32)
    found: NDArray[np.int32] = ids[encoded.indices.fill_null(len(ids) - 1).to_numpy(zero_copy_only=False)]
    return found


def columns_of(probabilities: Floats32, level: taxonomy.Level) -> dict[str, Any]:
    """Return prediction columns from probabilities of shape (rows, level).

    The probability of a coarser class is the sum over its members, so the prediction at a coarser level is the most
    probable class of that level, which need not be the parent of the most probable finer class.
    """
    columns: dict[str, Any] = {"top3": prediction_columns.top(probabilities, level)}
    for coarser, best in prediction_columns.levels(probabilities, level).items():
        columns[f"predicted_class{coarser}_id"] = pa.array(best)
        columns[f"predicted_class{coarser}"] = prediction_columns.coded(best, taxonomy.CLASSES[coarser])
    columns["probability"] = pa.array(probabilities.max(axis=1, initial=0.0))
    columns["attack_probability"] = pa.array(1.0 - probabilities[:, taxonomy.BENIGN_ID])
    return columns
