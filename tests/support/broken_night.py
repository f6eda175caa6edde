"""Breaks a night of flow logs in ten ways, a tenth of the broken flows each, and returns the expected counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

IN_PLACE: Final = ("nan", "infinity", "negative_rate", "share")
FILES: Final = ("text", "missing", "truncated", "extra_column", "duplicated_column", "empty")
NOT_NUMBERS: Final = ("n/a", "12,5", "1.2.3", "--", "0x1F")
EXTRA: Final = "collector_version"
_RATES: Final = ("Rate", "Srate")  # the first release has the same value twice


@dataclass(frozen=True)
class Broken:
    """The faults of a night, and the counts that scoring must return.

    Attributes:
        rows: Flows in the footers of readable files; scored + quarantined.
        scored: Of them, those that must be scored, saturated infinities among them.
        quarantined: Of them, those that must not be, by reason.
        files: Reason by name of each file that cannot be used.
        lost: Flows of files whose footer cannot be read, which cannot be counted.
        flow_ids: Flows by kind of fault; those of `text` that hold no number, and those of `extra_column`, which are
            sound.
    """

    rows: int
    scored: int
    quarantined: Mapping[str, int]
    files: Mapping[str, str]
    lost: int
    flow_ids: Mapping[str, tuple[str, ...]]


def break_night(folder: Path, share: float = 0.01, seed: int = 5) -> Broken:
    """Break a share of a night's flows in place; the files `broken-*.parquet` have the faults of files.

    Args:
        folder: `event_date=…` of a night as `synthesize_night` writes it; read whole, so of moderate size.
        share: Of its flows; at least 3 for each kind.
        seed: Chooses them.
    """
    paths = sorted(folder.glob("*.parquet"))
    tables = [pq.ParquetFile(path).read() for path in paths]
    night = pa.concat_tables(tables)
    each = max(3, round(len(night) * share / (len(IN_PLACE) + len(FILES))))
    finite = np.flatnonzero(np.isfinite(night["Rate"].to_numpy()))
    chosen = np.random.default_rng(seed).permutation(finite)[: (len(IN_PLACE) + len(FILES) + 1) * each]
    rows = dict(zip((*IN_PLACE, *FILES, "sound_text"), chosen.reshape(-1, each), strict=True))
    ids = {kind: tuple(night["flow_id"].take(pa.array(where)).to_pylist()) for kind, where in rows.items()}
    carved = np.concatenate([rows[kind] for kind in (*FILES, "sound_text")])
    night = _break_cells(night, rows)
    stays = np.isin(np.arange(len(night)), carved, invert=True)
    start = 0
    for path, table in zip(paths, tables, strict=True):
        own = slice(start, start + len(table))
        pq.write_table(night.slice(start, len(table)).filter(pa.array(stays[own])), path)
        start += len(table)
    for kind in FILES:
        where = np.append(rows[kind], rows["sound_text"]) if kind == "text" else rows[kind]
        _write_broken_file(folder / f"broken-{kind}.parquet", kind, night.take(pa.array(np.sort(where))), ids["text"])
    pq.write_table(night.slice(0, 0), folder / "broken-no_rows.parquet")
    quarantined = {"not_a_number": each, "negative": each, "share_out_of_range": each}
    quarantined |= {"unparsable": each, "duplicated_column": each}
    lost = 3 * each  # missing, truncated, empty
    return Broken(
        rows=len(night) - lost,
        scored=len(night) - lost - sum(quarantined.values()),
        quarantined=quarantined,
        files={
            "broken-missing.parquet": "missing_file",
            "broken-truncated.parquet": "unreadable_file",
            "broken-empty.parquet": "empty_file",
            "broken-no_rows.parquet": "no_rows",
            "broken-duplicated_column.parquet": "duplicated_column",
        },
        lost=lost,
        flow_ids={kind: ids[kind] for kind in (*IN_PLACE, *FILES)},
    )


def _break_cells(night: pa.Table, rows: Mapping[str, NDArray[np.int64]]) -> pa.Table:
    values = {"nan": ("AVG",), "infinity": _RATES, "negative_rate": _RATES, "share": ("ack_flag_number",)}
    wrong = {"nan": np.nan, "infinity": np.inf, "negative_rate": -2.0, "share": 1.7}
    for kind in IN_PLACE:
        for feature in set(values[kind]) & set(night.column_names):
            column = night[feature].to_numpy().copy()
            column[rows[kind]] = wrong[kind]
            night = night.set_column(night.column_names.index(feature), feature, pa.array(column))
    return night


def _write_broken_file(path: Path, kind: str, table: pa.Table, no_numbers: tuple[str, ...]) -> None:
    if kind == "missing":
        path.symlink_to(path.with_name(".gone"))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        bad = pc.is_in(table["flow_id"], pa.array(no_numbers))
        texts = pa.array([NOT_NUMBERS[i % len(NOT_NUMBERS)] for i in range(len(table))])
        text = pc.if_else(bad, texts, table["Rate"].cast(pa.string()))
        pq.write_table(table.set_column(table.column_names.index("Rate"), "Rate", text), path)
    elif kind == "extra_column":
        pq.write_table(table.append_column(EXTRA, pa.array(["4.2"] * len(table))), path)
    elif kind == "duplicated_column":
        columns, names = [*table.columns, table["Rate"]], [*table.column_names, "Rate"]
        pq.write_table(pa.Table.from_arrays(columns, names=names), path)
    else:
        pq.write_table(table, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
