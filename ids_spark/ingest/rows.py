"""Raw rows to typed, labelled flows with a row key, or to quarantine with a reason. Pure functions."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ids, Mask
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import SOURCE_SPLITS, FeatureSchema
from ids_spark.dataset.tables import QUARANTINE, flows_contract
from ids_spark.ingest import quality, row_hash
from ids_spark.ingest.parse import any_fault, refused_rows, to_doubles
from ids_spark.ingest.sources import LABEL, RowGroup, SourceUnusable


@dataclass(frozen=True)
class TypedRows:
    """Some rows of a source after typing: for each split and class, rows read = flows + quarantine.

    Attributes:
        read: Rows by (split, class19); empty strings for a broken line, which has neither.
        flows: As `typed_contract`.
        quarantine: As `tables.QUARANTINE`, run_id null.
        warnings: Rows that violate a `warn` rule, by (rule, split, class19).
    """

    read: Counter[tuple[str, str]]
    flows: pa.Table
    quarantine: pa.Table
    warnings: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def typed_contract(schema: FeatureSchema) -> pa.Schema:
    """Return the columns of a typed row: those of a flow without the marks of duplicates, plus its split."""
    own = [column for column in flows_contract(schema.features) if column.name not in ("duplicate", "label_conflict")]
    return pa.schema([*own, pa.field("split", pa.string())])


def type_rows(table: pa.Table, row_group: RowGroup, schema: FeatureSchema, source_rows: NDArray[np.int64]) -> TypedRows:
    """Type, check, label and key the rows of a raw table.

    Args:
        table: Feature columns as text or numbers, and `label` if the row group has no class.
        row_group: The row group of the rows.
        schema: Feature schema of the source.
        source_rows: Row number in the file, shape (rows,).

    Numbers may be infinite. A row goes to quarantine for null, empty text, NaN, text that is no number, or a violated
    `reject` rule of `quality`.
    """
    values, faults = to_doubles(table, schema.features)
    class_ids, splits = _labels(table, row_group)
    warned: dict[str, Mask] = {}
    for rule, masks in quality.check(values, schema).items():
        if rule.severity == "reject":
            faults[rule.name] = masks
        else:
            warned[rule.name] = np.logical_or.reduce(list(masks.values()))
    bad = any_fault(faults, len(table))
    warnings: Counter[tuple[str, str, str]] = Counter()
    for name, mask in warned.items():
        rows = mask & ~bad
        for (split, class19), n in _count(class_ids[rows], splits[rows]).items():
            warnings[name, split, class19] += n
    read, refused = _count(class_ids, splits), QUARANTINE.empty_table()
    if bad.any():
        known = {
            "source_file": row_group.name,
            "source_row": source_rows,
            "split": np.array(SOURCE_SPLITS)[splits],
            "label": np.array(taxonomy.CLASS19)[class_ids],
        }
        refused = refused_rows(table, faults, schema.features, known)
        good = np.flatnonzero(~bad)
        values = {feature: column[good] for feature, column in values.items()}
        class_ids, splits, source_rows = class_ids[good], splits[good], source_rows[good]
    return TypedRows(read, _flows(row_group, schema, source_rows, values, class_ids, splits), refused, warnings)


def _flows(
    row_group: RowGroup,
    schema: FeatureSchema,
    source_rows: NDArray[np.int64],
    values: Mapping[str, Floats],
    class_ids: Ids,
    splits: Ids,
) -> pa.Table:
    columns: list[Any] = [
        pa.array([row_group.name]).take(pa.array(np.zeros(len(class_ids), dtype=np.int32))),
        pa.array(source_rows),
        pa.array(row_hash.row_keys(list(values.values()))),
        *(pa.array(column) for column in values.values()),
    ]
    columns += class_columns(class_ids).values()
    columns += [pa.array(class_ids), pa.array(SOURCE_SPLITS).take(pa.array(splits))]
    return pa.Table.from_arrays(columns, schema=typed_contract(schema))


def class_columns(class_ids: Ids) -> dict[str, pa.Array]:
    """Return the class names of 19-class ids at every level, as `class19`, `class6` and `class2`."""
    names = {level: [taxonomy.CLASSES[level][i] for i in taxonomy.parents(19, level)] for level in (19, 6, 2)}
    return {f"class{level}": pa.array(text).take(pa.array(class_ids)) for level, text in names.items()}


def _count(class_ids: Ids, splits: Ids) -> Counter[tuple[str, str]]:
    n = len(taxonomy.CLASS19)
    found = np.bincount(splits * n + class_ids, minlength=2 * n)
    return Counter({(SOURCE_SPLITS[i // n], taxonomy.CLASS19[i % n]): int(found[i]) for i in np.flatnonzero(found)})


def _labels(table: pa.Table, row_group: RowGroup) -> tuple[Ids, Ids]:
    """Return the class id and the split (index into `SOURCE_SPLITS`) of each row."""
    if row_group.class19 is not None:
        class_id, split = taxonomy.CLASS19.index(row_group.class19), SOURCE_SPLITS.index(str(row_group.split))
        return np.full(len(table), class_id, np.int32), np.full(len(table), split, np.int32)
    encoded = table.column(LABEL).combine_chunks().dictionary_encode()
    if encoded.null_count:
        raise SourceUnusable(
            f"{row_group.name}: {encoded.null_count} rows have no label; expected the name of a capture file in each"
        )
    names = [str(name).strip('" ') for name in encoded.dictionary.to_pylist()]
    class_of = np.array([taxonomy.CLASS19.index(taxonomy.class19_of(n)) for n in names], dtype=np.int32)
    split_of = [taxonomy.split_of(n) or row_group.split for n in names]
    if None in split_of:
        raise SourceUnusable(
            f"{row_group.name}: label {names[split_of.index(None)]!r} does not end in _train or _test and the file"
            " is in no folder train or test; add one of the two"
        )
    index = encoded.indices.to_numpy()
    return class_of[index], np.array([SOURCE_SPLITS.index(str(s)) for s in split_of], dtype=np.int32)[index]
