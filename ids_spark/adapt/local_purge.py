"""Retention of rows of flows: local rows of old nights leave `flows/split=local`, old rows the quarantine of ingest."""

import datetime as dt
from collections.abc import Callable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import SparkContext

from ids_spark.adapt import local_rows
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.lake.filesystem import files_in, make_folder, resolve
from ids_spark.lake.parquet import SUFFIX, open_part, part_name, part_writer
from ids_spark.lake.store import Lake

_DATE: Final = len("event_date=")


def purge_local(
    spark_context: Callable[[], SparkContext], lake: Lake, staged: Callable[[str], str], first: dt.date, run_id: str
) -> dict[str, int]:
    """Stage the tables that have rows of nights before a date, or refused rows of runs before it, without them.

    Args:
        spark_context: Starts Spark; called only if there is a row to remove.
        lake: Holds the tables.
        staged: Returns the URI of the staged version of a table.
        first: First night to keep.
        run_id: Of the run.

    Returns:
        Rows removed, by staged table.
    """
    removed = {}
    nights = lake.read("flows", ["event_date"], split=local_rows.SPLIT)["event_date"]
    if old := int(pc.sum(pc.less(nights, first)).as_py() or 0):
        removed[local_rows.TABLE] = old
        if old == len(nights):
            make_folder(resolve(lake.root)[0], resolve(staged(local_rows.TABLE))[1])
        else:
            kept = _since(first)
            local_rows.rewrite(spark_context(), lake, staged, kept, run_id)
    if old := _purge_quarantine(lake, staged, first):
        removed[local_rows.QUARANTINE_TABLE] = old
    return removed


def _since(first: dt.date) -> Callable[[pa.Table], pa.Table]:
    def kept(table: pa.Table) -> pa.Table:
        return table.filter(pc.greater_equal(table["event_date"], first))

    return kept


def _purge_quarantine(lake: Lake, staged: Callable[[str], str], first: dt.date) -> int:
    """Stage the quarantine of ingest without rows of nights before a date; return their number, 0 if none is staged."""
    uris = files_in(lake.uri(local_rows.QUARANTINE_TABLE), SUFFIX)
    old = 0
    for uri in uris:
        with open_part(uri) as file:
            old += int(pc.sum(_is_old(file.read(["source_file", "split", "run_id"]), first)).as_py() or 0)
    if not old:
        return 0
    target = staged(local_rows.QUARANTINE_TABLE)
    for i, uri in enumerate(uris):
        start = uri.rsplit("/", 1)[1].split("-", 1)[0]
        with (
            open_part(uri) as file,
            part_writer(target, part_name(i, start), QUARANTINE, {}, ("source_file", "reason")) as write,
        ):
            for group in range(len(file.rows)):
                table = file.read(QUARANTINE.names, group).replace_schema_metadata()
                write(table.filter(pc.invert(_is_old(table, first))))
    return old


def _is_old(table: pa.Table, first: dt.date) -> pa.ChunkedArray:
    """Return which refused rows are of before a date: local ones by their night, with which their file names begin.

    Those of the data set are as old as the run that refused them.
    """
    of_night = pc.utf8_slice_codeunits(table["source_file"], _DATE, _DATE + 10)
    of_run = pc.less(pc.utf8_slice_codeunits(table["run_id"], 0, 8), f"{first:%Y%m%d}")
    local = pc.equal(table["split"], local_rows.SPLIT)
    return pc.fill_null(pc.if_else(pc.fill_null(local, False), pc.less(of_night, str(first)), of_run), False)
