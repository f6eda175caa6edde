"""From sources to `flows/`: the data set, flow logs of the site's own nights, or both; what `jobs/ingest.py` does."""

import json
import logging
from collections.abc import Callable
from typing import Any, Final

from pyspark import SparkContext

from ids_spark.adapt import local_rows
from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.base.report import Report
from ids_spark.config.settings import Config
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import SOURCE_SPLITS
from ids_spark.ingest import files, join_windows, shuffle, sources
from ids_spark.ingest.shuffle import IngestCounts
from ids_spark.ingest.sources import Source
from ids_spark.lake.filesystem import files_in, write_json
from ids_spark.lake.parquet import SUFFIX, open_part
from ids_spark.lake.store import TABLE_FACTS, Lake

log = logging.getLogger(__name__)
FLOWS: Final = "flows"
QUARANTINE: Final = "quarantine/job=ingest"
_CELLS_SHOWN: Final = 3  # of a refused row
_DAMAGED_LABELS: Final = 3  # rows with one unknown label; more rows are a class that this version does not know


def write_sources(
    spark: Callable[[], SparkContext], lake: Lake, staged: Callable[[str], str], config: Config, run_id: str
) -> Report:
    """Stage the flows of the sources that the configuration names, and the rows that are refused.

    Without `ingest.source` the data set of the lake stays as it is; without `ingest.local` its local rows stay if the
    new data set has the same release and window length.

    Args:
        spark: Starts Spark; called once the files of a data set are known.
        lake: Where the tables will be.
        staged: Returns the URI of the staged version of a table.
        config: `ingest.…`; for nights also `score.…`.
        run_id: Of the run.

    Raises:
        InputError: no source is set, or it cannot be used.
    """
    if config.ingest.source is None and config.ingest.local is None:
        raise InputError(
            "neither ingest.source nor ingest.local is set; expected a folder of flows of the data set, for example"
            " --set ingest.source=flows, or of flow logs of nights"
        )
    report, facts = Report(), None
    if config.ingest.source is not None:
        report, facts = _write_data_set(spark, staged, config, run_id)
    if config.ingest.local is not None:
        local = local_rows.write_local(spark(), lake, staged, config, run_id, facts)
        if facts is None:
            return local
        local.tables = []  # parts of those of the data set
        report.add(local)
    elif facts is not None:
        report.notes += local_rows.keep_local(lake, staged, facts["feature_schema"], facts["window"])
    return report


def _write_data_set(
    spark: Callable[[], SparkContext], staged: Callable[[str], str], whole: Config, run_id: str
) -> tuple[Report, dict[str, Any]]:
    """Stage the flows of the data set; return the report and the facts of the flows."""
    config = whole.ingest
    source = sources.discover(config)
    log.info("found files=%d schema=%s origin=%s", source.files, source.schema.name, source.data_origin)
    for note in files.unread_notes(file for file in source.unread if file.reason in files.USUAL):
        log.info("%s", note)
    plan = shuffle.ShufflePlan(
        source.schema,
        shuffle.bucket_counts(source, config.rows_per_file),
        staged(FLOWS),
        staged(QUARANTINE),
        run_id,
        source.data_origin,
        config.rows_per_file,
        shuffle.most_rejected(source, config.max_rejected_share),
        config.window,
    )
    done = shuffle.write_flows(spark(), source, plan)

    report = Report(feature_schema=source.schema.name, data_origin=source.data_origin, tables=[FLOWS, QUARANTINE])
    done.count_into(report)
    done.reconcile()
    report.notes += files.unread_notes(file for file in source.unread if file.reason not in files.USUAL)
    report.notes += source.undivided_notes()
    report.notes += _without_flows(source, done)
    report.inputs = sorted({row_group.name for row_group in source.row_groups})
    report.inputs += [f"{file.name}: not read: {file.reason}" for file in source.unread]
    if config.window is not None:
        report.notes.append(
            f"{report.rows_joined} rows of {join_windows.SHORT_WINDOW} packets were joined to the rows before them, to"
            f" windows of {config.window} packets; whether rows are in the order of their capture cannot be checked"
        )
    if source.narrow:
        report.notes.append(
            f"{len(source.narrow)} columns of the source are float32: rows that differ in double may be equal here"
        )
    rejected = report.rows_quarantined > config.max_rejected_share * report.rows_in
    repeated = any(n > _DAMAGED_LABELS for n in done.unknown_labels.values())
    if repeated or (rejected and done.unknown_labels):
        raise taxonomy.UnknownClass(shuffle.unknown_labels_text(done, config.label_column))
    if rejected:
        reasons = ", ".join(f"{n} {reason} in {label}" for (_, label, reason), n in done.quarantined.most_common(3))
        raise InputError(
            f"{report.rows_quarantined} of {report.rows_in} rows cannot be used, more than ingest.max_rejected_share"
            f" {config.max_rejected_share:g} ({reasons}){_example(plan.quarantine)}; correct the source, or raise the"
            " share to accept the rest"
        )
    splits = {split: sum(n for (s, _), n in done.flows.items() if s == split) for split in SOURCE_SPLITS}
    if not any(splits.values()):  # an empty table would replace good flows
        raise InputError(
            f"{config.source}: none of its {report.rows_in} rows in {source.files} file(s) can be used; expected flows"
            " of the classes of CICIoMT2024. The flows of the lake stay as they are; correct the source"
        )
    log.info("rows train=%d test=%d quarantined=%d", splits["train"], splits["test"], report.rows_quarantined)
    if not all(splits.values()):
        report.notes.append(f"the source has rows of one split only: {splits}; training needs train, evaluation test")
    facts: dict[str, Any] = {
        "run_id": run_id,
        "feature_schema": source.schema.name,
        "data_origin": source.data_origin,
    }
    facts |= {"rows": splits, "window": config.window}
    write_json(f"{plan.flows}/{TABLE_FACTS}", facts)
    return report, facts


def _without_flows(source: Source, done: IngestCounts) -> list[str]:
    """Return a sentence for people for each class of a split that has files or rows, and of which no row is a flow."""
    notes = []
    for split, class19 in sorted(source.named | {cell for cell in done.read if all(cell)}):
        if done.flows[split, class19]:
            continue
        reasons = {why: n for (s, label, why), n in done.quarantined.items() if (s, label) == (split, class19)}
        shown = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
        state = f"all rows are in quarantine ({shown})" if reasons else "its files are not read or hold no row"
        notes.append(f"no flow of {class19} in {split}: {state}")
    return notes


def _example(quarantine: str) -> str:
    """Return the first refused row, as the end of a clause: file, row, reason, and the cells at fault or the fields."""
    for uri in files_in(quarantine, SUFFIX):
        with open_part(uri) as part:
            if not part.rows:
                continue
            row = part.read(["source_file", "source_row", "reason", "features", "raw"], 0).slice(0, 1).to_pylist()[0]
        raw = json.loads(row["raw"])
        cells = {name: raw[name] for name in row["features"] if name in raw} or raw
        shown_cells = ", ".join(f"{name} {value!r}" for name, value in list(cells.items())[:_CELLS_SHOWN])
        return f", such as row {row['source_row']} of {printable(row['source_file'])}: {row['reason']}, {shown_cells}"
    return ""
