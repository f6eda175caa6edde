"""Raw CICIoMT2024 flows, and flows of the site's own nights, to typed, labelled flows.

    spark-submit --py-files dist/ids_spark.zip jobs/ingest.py --set lake=LAKE --set ingest.source=FOLDER
    spark-submit --py-files dist/ids_spark.zip jobs/ingest.py --set lake=LAKE --set ingest.local=LOGS

Reads: with `ingest.source` the official tree of CSV files (also gzip), the same tree as parquet, or one table with a
column of labels (file names); of a Delta table, the files of its newest state. Every file below the source that is not
read is named, with the reason. With `ingest.local` flow logs of nights, as scoring does; their flows count as benign.
Writes: `flows/split=train|test` (rows shuffled by hash), `flows/split=local` and `quarantine/job=ingest` (rows refused,
with reason). Without `ingest.source` the data set stays as it is; without `ingest.local` the local rows stay if the new
data set has the same release and window length, else they are removed.
"""

import logging
import sys
from typing import Any

from ids_spark.adapt import local_rows
from ids_spark.base.errors import InputError
from ids_spark.base.report import Report
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import SOURCE_SPLITS
from ids_spark.ingest import files, join_windows, shuffle, sources
from ids_spark.lake.filesystem import write_json
from ids_spark.lake.store import TABLE_FACTS
from ids_spark.runtime import job

log = logging.getLogger(__name__)
FLOWS, QUARANTINE = "flows", "quarantine/job=ingest"
_DAMAGED_LABELS = 3  # rows with one unknown label; more rows are a class that this version does not know


def run(context: job.Context) -> Report:
    """Ingest a data set, nights, or both."""
    config, facts = context.config.ingest, None
    if config.source is None and config.local is None:
        raise InputError(
            "neither ingest.source nor ingest.local is set; expected a folder of flows of the data set, for example"
            " --set ingest.source=flows, or of flow logs of nights"
        )
    report = Report()
    if config.source is not None:
        report, facts = _ingest_data_set(context)
    if config.local is not None:
        spark = context.spark.sparkContext
        local = local_rows.write_local(spark, context.lake, context.staged, context.config, context.run_id, facts)
        if facts is None:
            return local
        local.tables = []  # parts of those of the data set
        report.add(local)
    elif facts is not None:
        schema, window = facts["feature_schema"], facts["window"]
        report.notes += local_rows.keep_local(context.lake, context.staged, schema, window)
    return report


def _ingest_data_set(context: job.Context) -> tuple[Report, dict[str, Any]]:
    """Stage the flows of the data set; return the report and the facts of the flows."""
    config = context.config.ingest
    source = sources.discover(config)
    log.info("found files=%d schema=%s origin=%s", source.files, source.schema.name, source.data_origin)
    for note in files.unread_notes(file for file in source.unread if file.reason in files.USUAL):
        log.info("%s", note)
    plan = shuffle.ShufflePlan(
        source.schema,
        shuffle.bucket_counts(source, config.rows_per_file),
        context.staged(FLOWS),
        context.staged(QUARANTINE),
        context.run_id,
        source.data_origin,
        config.rows_per_file,
        shuffle.most_rejected(source, config.max_rejected_share),
        config.window,
    )
    done = shuffle.write_flows(context.spark.sparkContext, source, plan)

    report = Report(feature_schema=source.schema.name, data_origin=source.data_origin, tables=[FLOWS, QUARANTINE])
    report.rows_in, report.rows_out = done.read.total(), done.flows.total()
    report.rows_quarantined, report.rows_joined = done.quarantined.total(), done.joined.total()
    report.count("read", done.read)
    report.count("flows", done.flows)
    report.count("joined", done.joined)
    done.count_faults(report)
    done.reconcile()
    report.notes += files.unread_notes(file for file in source.unread if file.reason not in files.USUAL)
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
            f" {config.max_rejected_share:g} ({reasons}); correct the source, or raise the share to accept the rest"
        )
    splits = {split: sum(n for (s, _), n in done.flows.items() if s == split) for split in SOURCE_SPLITS}
    log.info("rows train=%d test=%d quarantined=%d", splits["train"], splits["test"], report.rows_quarantined)
    if not all(splits.values()):
        report.notes.append(f"the source has rows of one split only: {splits}; training needs train, evaluation test")
    facts: dict[str, Any] = {
        "run_id": context.run_id,
        "feature_schema": source.schema.name,
        "data_origin": source.data_origin,
    }
    facts |= {"rows": splits, "window": config.window}
    write_json(f"{plan.flows}/{TABLE_FACTS}", facts)
    return report, facts


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
