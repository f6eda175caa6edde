"""Flows of a night to predictions and incidents, on the executors; counts and incidents come back.

A task holds one row group at a time; `night_rows` says what becomes of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa
from pyspark import SparkContext

from ids_spark.alerts import incidents
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.ingest.sources import bin_pack, scoring_tasks
from ids_spark.lake.parquet import keep_only, part_name, write_part
from ids_spark.score import night_reader, night_rows
from ids_spark.score.night_files import NightRowGroup
from ids_spark.score.night_tasks import NightCounts, NightTask, no_counts

_PLAIN: Final = ("flow_id",)  # text that a dictionary would hold once for every row


def score_row_groups(spark_context: SparkContext, row_groups: Sequence[NightRowGroup], task: NightTask) -> NightCounts:
    """Score every row group of a night; writes predictions and quarantine."""
    by_row_group = {row_group.row_group: row_group for row_group in row_groups}
    tasks = scoring_tasks(list(by_row_group), spark_context.defaultParallelism)
    partitions = [
        [by_row_group[row_group] for row_group in partition] for partition in bin_pack(list(by_row_group), tasks)
    ]
    key = task.pseudonyms  # goes with the function: a broadcast is a file on disk, also after a killed run
    shared = spark_context.broadcast(replace(task, pseudonyms=None))

    def score_partition(index: int, dealt: Iterable[list[NightRowGroup]]) -> Iterator[NightCounts]:
        for partition in dealt:
            yield _score_partition(index, partition, replace(shared.value, pseudonyms=key))

    total = no_counts(task)
    for scored in (
        spark_context.parallelize(partitions, len(partitions)).mapPartitionsWithIndex(score_partition).collect()
    ):
        total.add(scored)
    keep_only(total.parts, task.target, task.quarantine)
    shared.destroy()
    return total


def _score_partition(index: int, row_groups: Sequence[NightRowGroup], task: NightTask) -> NightCounts:
    total, name, contract = no_counts(task), part_name(index), task.contract
    refused: list[pa.Table] = []
    found: dict[str, list[pa.Table]] = {"champion": [], "challenger": []}

    def predictions() -> Iterator[pa.Table]:
        for row_group in row_groups:
            rows = night_reader.read_row_group(row_group, task.read_spec)
            total.rows_read += len(rows.source_rows) + len(rows.refused)
            total.warnings += rows.warnings
            predicted, lost = night_rows.predict(row_group.row_group.name, rows, task, total, found)
            refused.extend((rows.refused, lost))
            yield predicted

    metadata = {"ids_spark.data_origin": task.data_origin, "ids_spark.model": task.champion.model.card.name}
    texts = [f.name for f in contract if pa.types.is_string(f.type) and f.name not in _PLAIN]
    write_part(task.target, name, predictions(), contract, metadata, [*texts, "top3.list.element.class_name"])
    total.champion.found = incidents.merge(found["champion"])
    total.challenger.found = incidents.merge(found["challenger"])
    rejected = pa.concat_tables([QUARANTINE.empty_table(), *refused])
    if len(rejected) or index == 0:  # the quarantine of a clean night is an empty table that replaces an older one
        write_part(task.quarantine, name, [rejected], QUARANTINE, metadata, ("source_file", "reason"))
        total.quarantined.update(rejected["reason"].to_pylist())
    total.parts.append(name)
    return total
