"""Retention of verdicts: those on incidents of old nights go, except what still applies, which loses its free text.

A `benign` and a `mute` also decide about later nights, by the entities and the category of their incident. As long as
they do, decision and entities stay; who decided and why is removed with the night.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ids_spark.alerts import verdicts
from ids_spark.alerts.verdicts import Cell
from ids_spark.dataset.tables import TABLES
from ids_spark.lake.filesystem import delete_all, files_in, resolve
from ids_spark.lake.parquet import SUFFIX, read_file
from ids_spark.lake.store import Lake

Row = Mapping[str, Any]


def purge_verdicts(lake: Lake, staged: Callable[[str], str], first: dt.date) -> dict[str, int]:
    """Stage the files of `verdicts/` that hold verdicts on nights before a date, without those or without their text.

    What still applies of them is gathered in the oldest of these files, so that nights read few files. Files that an
    earlier purge has emptied are deleted.

    Args:
        lake: Holds the verdicts.
        staged: Returns the URI of the staged version of a table.
        first: First night to keep.

    Returns:
        Verdicts removed or shortened, by staged table; nothing if there are none.
    """
    files = _rows_by_file(lake)
    kept = after_purge([row for rows in files.values() for row in rows], first)
    after = {name: [row for row in rows if row["event_date"] >= first] for name, rows in files.items()}
    if oldest := next((name for name, rows in files.items() if len(rows) > len(after[name])), None):
        after[oldest] = [*(row for row in kept if row["event_date"] < first), *after[oldest]]
    left = {_key(row): row for row in kept}
    changed = {}
    for name, rows in files.items():
        if rows != after[name]:
            run_id = name.removesuffix(SUFFIX)
            lake.write("verdicts", after[name], staged, run_id=run_id)
            changed[TABLES["verdicts"].place(run_id=run_id)] = sum(left.get(_key(row)) != row for row in rows)
    return changed


def _rows_by_file(lake: Lake) -> dict[str, list[Row]]:
    """Return the verdicts of each file, in the order of their names; files without any are deleted."""
    folder, table = lake.uri("verdicts"), TABLES["verdicts"]
    names = [uri.rsplit("/", 1)[1] for uri in files_in(folder, SUFFIX)]
    found = {name: read_file(f"{folder}/{name}", table, table.contract.names, {}).to_pylist() for name in names}
    delete_all(*resolve(folder), (name for name, rows in found.items() if not rows))
    return {name: rows for name, rows in found.items() if rows}


def _key(row: Row) -> tuple[str, str]:
    return row["run_id"], row["incident_id"]


def after_purge(rows: Sequence[Row], first: dt.date) -> list[Row]:
    """Return the verdicts that a purge keeps; on nights from `first` on they say what they said before.

    Args:
        rows: All verdicts.
        first: First night to keep.
    """
    old = [row for row in rows if row["event_date"] < first]
    later = [row for row in rows if row["event_date"] >= first]
    kept = [row for row in old if row["verdict"] == "unlearn" and any(_forgets(row, other) for other in later)]
    for found in verdicts.by_incident(old).values():
        if found.kind is not None and found.learned:
            cells = (Cell(row["kind"], row["entity"], row["category"]) for row in found.kind["learned"])
            pairs = zip(found.kind["learned"], cells, strict=True)
            kept.append({**found.kind, "learned": [row for row, cell in pairs if cell in found.learned]})
        if found.handling is not None and found.muted and found.handling["until"] >= first:
            names = {(cell.entity_kind, cell.entity) for cell in found.muted}
            entities = [each for each in found.handling["entities"] if (each["kind"], each["name"]) in names]
            kept.append({**found.handling, "entities": entities})
    shortened = [{**row, "owner": None, "reason": None} for row in kept]
    return verdicts.in_order([*shortened, *later])


def _forgets(row: Row, other: Row) -> bool:
    """Return whether an `unlearn` removes what an earlier verdict taught or muted."""
    return row["created_at"] >= other["created_at"] and not verdicts.cells_of(row).isdisjoint(verdicts.cells_of(other))
