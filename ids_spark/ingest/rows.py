"""Raw rows to typed, labelled flows with a row key, or to quarantine with a reason. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ids, Mask
from ids_spark.base.text import short, valid_text
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import SOURCE_SPLITS, FeatureSchema
from ids_spark.dataset.tables import FLOW_ORIGIN, QUARANTINE, flows_contract
from ids_spark.ingest import quality, row_hash
from ids_spark.ingest.parse import any_fault, refused_rows, to_doubles
from ids_spark.ingest.sources import RowGroup

LABEL: Final = "label"
"""Column of labels in the table of `type_rows`."""
UNKNOWN_LABEL: Final = "unknown_label"
TEXT: Final = pa.dictionary(pa.int32(), pa.string())
"""Type of columns of text with few values, in memory."""


@dataclass(frozen=True)
class TypedRows:
    """Some rows of a source after typing: for each split and class, rows read = flows + quarantine + joined.

    Attributes:
        read: Rows by (split, class19); empty strings for a row of which they are unknown.
        flows: As `typed_contract`.
        quarantine: As `tables.QUARANTINE`, run_id null.
        warnings: Rows that violate a `warn` rule, by (rule, split, class19).
        unknown_labels: Rows without other fault whose label names no class, or no split, by (label, what is wrong).
        joined: Rows that are part of another row, by (split, class19); over a whole file, not in each part of it.
    """

    read: Counter[tuple[str, str]]
    flows: pa.Table
    quarantine: pa.Table
    warnings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unknown_labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    joined: Counter[tuple[str, str]] = field(default_factory=Counter)


def merged(parts: Iterable[TypedRows], rows: int) -> Iterator[TypedRows]:
    """Yield the same rows in their order, parts of fewer rows than given put together: each costs some milliseconds."""
    waiting: list[TypedRows] = []
    count = 0
    for part in parts:
        size = len(part.flows) + len(part.quarantine)
        if waiting and (size >= rows or count >= rows):
            yield _sum(waiting)
            waiting, count = [], 0
        waiting.append(part)
        count += size
    if waiting:
        yield _sum(waiting)


def _sum(parts: Sequence[TypedRows]) -> TypedRows:
    if len(parts) == 1:
        return parts[0]
    names = ("read", "warnings", "unknown_labels", "joined")
    counts = {name: sum((getattr(part, name) for part in parts), start=Counter[Any]()) for name in names}
    flows = pa.concat_tables([part.flows for part in parts]).unify_dictionaries().combine_chunks()
    return TypedRows(flows=flows, quarantine=pa.concat_tables([part.quarantine for part in parts]), **counts)


def typed_contract(schema: FeatureSchema) -> pa.Schema:
    """Return the columns of a typed row: those of a flow without marks of duplicates and origin, plus its split.

    Texts are dictionaries.
    """
    derived = ("duplicate", "label_conflict", *FLOW_ORIGIN.names)
    own = [column for column in flows_contract(schema.features) if column.name not in derived]
    columns = [*own, pa.field("split", pa.string())]
    return pa.schema([c.with_type(TEXT) if pa.types.is_string(c.type) else c for c in columns])


def type_rows(table: pa.Table, row_group: RowGroup, schema: FeatureSchema, source_rows: NDArray[np.int64]) -> TypedRows:
    """Type, check, label and key the rows of a raw table.

    Args:
        table: Features under their official names, as text or numbers, and `LABEL` if the row group has no class.
        row_group: The row group of the rows.
        schema: Feature schema of the source.
        source_rows: Row number in the file, shape (rows,).

    Numbers may be infinite. A row goes to quarantine for null, empty text, NaN, text that is no number, a label that
    names no class or no split, or a violated `reject` rule of `quality`.
    """
    values, faults = to_doubles(table, schema.features)
    labels = _labels(table, row_group)
    class_ids, splits = labels.class_ids, labels.splits
    warned: dict[str, Mask] = {}
    for rule, masks in quality.check(values, schema).items():
        if rule.severity == "reject":
            faults[rule.name] = masks
        else:
            warned[rule.name] = np.logical_or.reduce(list(masks.values()))
    unlabelled = (class_ids < 0) | (splits < 0)
    unknown_labels: Counter[tuple[str, str]] = Counter()
    if unlabelled.any():
        unknown_labels = labels.unknown(unlabelled & ~any_fault(faults, len(table)))
        faults[UNKNOWN_LABEL] = {LABEL: unlabelled}
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
            "split": np.array([*SOURCE_SPLITS, None], dtype=object)[splits],
            "label": np.array([*taxonomy.CLASS19, None], dtype=object)[class_ids],
        }
        shown = [*schema.features, *([LABEL] if LABEL in table.column_names else [])]
        refused = refused_rows(table, faults, shown, known)
        good = np.flatnonzero(~bad)
        values = {feature: column[good] for feature, column in values.items()}
        class_ids, splits, source_rows = class_ids[good], splits[good], source_rows[good]
    flows = flows_table(row_group, schema, source_rows, values, class_ids, splits)
    return TypedRows(read, flows, refused, warnings, unknown_labels)


def flows_table(
    row_group: RowGroup,
    schema: FeatureSchema,
    source_rows: NDArray[np.int64],
    values: Mapping[str, Floats],
    class_ids: Ids,
    splits: Ids,
) -> pa.Table:
    """Return rows as `typed_contract`, with their row keys.

    Args:
        row_group: The row group of the rows.
        schema: Feature schema of the source.
        source_rows: Row number in the file, shape (rows,).
        values: Each feature in the order of the schema, shape (rows,).
        class_ids: 19-class ids, shape (rows,).
        splits: Index into `SOURCE_SPLITS`, shape (rows,).
    """
    columns: list[Any] = [
        texts(np.zeros(len(class_ids), dtype=np.int32), [row_group.name]),
        pa.array(source_rows),
        pa.array(row_hash.row_keys(list(values.values()))),
        *(pa.array(column) for column in values.values()),
    ]
    columns += class_columns(class_ids).values()
    columns += [pa.array(class_ids), texts(splits, SOURCE_SPLITS)]
    return pa.Table.from_arrays(columns, schema=typed_contract(schema))


def texts(codes: Ids, names: Sequence[str]) -> pa.DictionaryArray:
    """Return the name of each code as a dictionary, shape (rows,)."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))


def class_columns(class_ids: Ids) -> dict[str, pa.DictionaryArray]:
    """Return the class names of 19-class ids at every level, as `class19`, `class6` and `class2`."""
    return {
        f"class{level}": texts(taxonomy.parents(19, level)[class_ids], taxonomy.CLASSES[level]) for level in (19, 6, 2)
    }


def _count(class_ids: Ids, splits: Ids) -> Counter[tuple[str, str]]:
    """Return the rows by (split, class19), empty strings where they are unknown (id -1)."""
    classes, names = ("", *taxonomy.CLASS19), ("", *SOURCE_SPLITS)
    found = np.bincount((splits + 1) * len(classes) + class_ids + 1, minlength=len(names) * len(classes))
    cells = (divmod(int(i), len(classes)) for i in np.flatnonzero(found))
    return Counter({(names[s], classes[c]): int(found[s * len(classes) + c]) for s, c in cells})


@dataclass(frozen=True)
class _Labels:
    """Labels of rows.

    Attributes:
        class_ids: Class of each row, -1 if unknown, shape (rows,).
        splits: Index into `SOURCE_SPLITS`, -1 if unknown, shape (rows,).
        codes: Index into `names` of each row, shape (rows,); empty if the row group has one class.
        names: Distinct labels, each with what is wrong with it, else an empty text.
    """

    class_ids: Ids
    splits: Ids
    codes: NDArray[np.int64]
    names: list[tuple[str, str]]

    def unknown(self, rows: Mask) -> Counter[tuple[str, str]]:
        """Return how many of some rows have each label that is wrong."""
        counts = np.bincount(self.codes[rows], minlength=len(self.names))
        return Counter({name: int(n) for name, n in zip(self.names, counts, strict=True) if n and name[1]})


def _labels(table: pa.Table, row_group: RowGroup) -> _Labels:
    n = len(table)
    if row_group.class19 is not None:
        class_id, split = taxonomy.CLASS19.index(row_group.class19), SOURCE_SPLITS.index(str(row_group.split))
        return _Labels(np.full(n, class_id, np.int32), np.full(n, split, np.int32), np.empty(0, np.int64), [])
    column = table.column(LABEL)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    encoded = column.unify_dictionaries().combine_chunks()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy().astype(np.int64)
    texts = pa.chunked_array([encoded.dictionary]).cast(pa.string(), safe=False)
    names = [*valid_text(texts).to_pylist(), None]  # a pandas category column may hold names that no row has
    known = [_class_and_split(name, row_group) for name in names]
    shown = [(short(name or ""), fault) for name, (_, _, fault) in zip(names, known, strict=True)]
    class_of, split_of = (np.array([each[i] for each in known], dtype=np.int32) for i in (0, 1))
    return _Labels(class_of[codes], split_of[codes], codes, shown)


def _class_and_split(name: str | None, row_group: RowGroup) -> tuple[int, int, str]:
    """Return class id and split of a label, -1 if unknown, and what is wrong with it."""
    text = (name or "").strip('" ')
    if not text:
        return -1, -1, "no label"
    class19, split = taxonomy.find_class19(text), taxonomy.split_of(text) or row_group.split
    if class19 is None:
        return -1, -1, "names no known class"
    if split is None:
        return taxonomy.CLASS19.index(class19), -1, "ends neither in _train nor in _test"
    return taxonomy.CLASS19.index(class19), SOURCE_SPLITS.index(split), ""
