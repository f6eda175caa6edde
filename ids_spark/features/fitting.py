"""From `flows/` to the feature table of one recipe: what `jobs/features.py` does."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pyspark import SparkContext

from ids_spark.base.report import Report, combined_origin
from ids_spark.base.text import shown
from ids_spark.config.settings import FeaturesConfig
from ids_spark.dataset.features import FEATURE_SCHEMAS, FeatureSchema, SchemaMismatch
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.features import feature_table, preprocess, ratios
from ids_spark.features.feature_table import FeatureCounts
from ids_spark.features.local_balance import Balance
from ids_spark.features.local_split import LocalHeldOut, Survey, survey
from ids_spark.features.validation_rows import HeldOut
from ids_spark.lake.filesystem import exists, files_in, write_bytes, write_json
from ids_spark.lake.parquet import SUFFIX
from ids_spark.lake.store import TABLE_FACTS, Lake

log = logging.getLogger(__name__)
_LOCAL: Final = "flows/split=local"


@dataclass(frozen=True)
class _LocalNights:
    """Local rows that join the data set.

    Attributes:
        found: What they are.
        held_out: Which of them are held out.
        data_origin: `measured` or `synthetic`.
    """

    found: Survey
    held_out: LocalHeldOut
    data_origin: str

    def facts(self, kept: FeatureCounts, balance: Balance) -> dict[str, Any]:
        """Return the facts of a feature table on its local rows, in JSON."""
        rows = {"train_rows": kept.local["train"], "held_out_rows": kept.local["validation"]}
        of_devices = {"devices": len(self.found.devices), "data_origin": self.data_origin}
        return rows | self.held_out.facts(self.found.dates) | of_devices | {"balance": balance.total}

    def note(self, kept: FeatureCounts) -> str:
        """Return a sentence on the local rows."""
        held = {
            "date": f"the nights {shown(sorted(self.held_out.dates))}",
            "rows": f"the last {self.held_out.share:.0%} of the rows of each source file",
        }
        return (
            f"{kept.local['train']} benign rows of local nights are in train, {kept.local['validation']} are held out:"
            f" {held[self.held_out.by]}"
        )


def _local_nights(
    spark_context: SparkContext, lake: Lake, config: FeaturesConfig, schema: FeatureSchema
) -> _LocalNights | None:
    """Return the local rows of a lake; None if it has none in use."""
    if not exists(lake.uri(f"{_LOCAL}/{TABLE_FACTS}")):
        return None
    facts = lake.facts(_LOCAL, "jobs/ingest.py with ingest.local")
    if facts["feature_schema"] != schema.name:
        raise SchemaMismatch(
            f"{lake.uri(_LOCAL)} has the features of {facts['feature_schema']}, the data set those of {schema.name};"
            " ingest nights of that release (ingest.local), or set features.local=false"
        )
    found = survey(spark_context, files_in(lake.uri(_LOCAL), SUFFIX))
    if not found.rows:
        return None
    held_out = LocalHeldOut.of_dates(found.dates, config.local_held_out)
    return _LocalNights(found, held_out, facts["data_origin"])


def write_recipe(
    spark_context: SparkContext, lake: Lake, staged: Callable[[str], str], config: FeaturesConfig, run_id: str
) -> Report:
    """Fit the preprocessor and write the feature table of one recipe; the table is staged.

    Rows of `flows/split=local`, if there are any and `config.local` is set, join those of the data set.

    Args:
        spark_context: Its executors read and write.
        lake: Holds the flows.
        staged: Returns the URI of the staged version of a table.
        config: The recipe.
        run_id: Of the run.

    Raises:
        TableMissing: there are no flows.
        SchemaMismatch: the local rows are of another release than those of the data set.
    """
    facts = lake.facts("flows", "jobs/ingest.py")
    schema, origin = FEATURE_SCHEMAS[facts["feature_schema"]], facts["data_origin"]
    buckets = feature_table.buckets_of(lake.uri("flows"), schema)
    nights = _local_nights(spark_context, lake, config, schema) if config.local else None
    local, train_rows = None, facts["rows"]["train"]
    if nights is not None:
        used = nights.found.rows.total()
        local, buckets = feature_table.with_local_rows(lake.uri("flows"), schema, nights.held_out, buckets, used)
        origin, train_rows = combined_origin(origin, nights.data_origin), train_rows + used

    derived = ratios.names_of(schema) if config.ratios else ()
    recipe = preprocess.Recipe(config.recipe, schema, config.transform, config.min_std, origin, derived)
    share = config.sample_rows / max(1, train_rows)
    held_out = HeldOut(config.validation_share, config.blocked_share, config.block_rows)
    measured = feature_table.measure_train(spark_context, buckets, recipe, held_out, share, local)
    fitted = preprocess.fit(recipe, measured.moments, measured.sample, measured.benign)
    dropped = [f for f in fitted.features if not f.kept]
    log.info("fitted rows=%d kept=%d dropped=%s", fitted.rows, len(fitted.kept), [f.name for f in dropped])

    table = f"features/{config.recipe}"
    target = feature_table.Target(
        staged(table), held_out, config.files, config.rows_per_row_group, local, measured.balance
    )
    kept = feature_table.write_features(spark_context, buckets, fitted, target)
    copied = feature_table.copied_rows(spark_context, lake.uri("flows"))
    kept.flows += copied
    kept.duplicates += copied

    rows: Counter[str] = Counter()
    for (split, _), n in kept.rows.items():
        rows[split] += n
    log.info("rows %s", " ".join(f"{split}={n}" for split, n in sorted(rows.items())))
    absent = [name for name in CLASS19 if not kept.rows["train", name]]

    write_bytes(f"{target.uri}/_preprocessor.json", fitted.to_json().encode())
    table_facts = {"run_id": run_id, "feature_schema": schema.name, "data_origin": origin, "rows": rows}
    table_facts |= {"row_groups": kept.row_groups, "classes_absent_in_train": absent, "preprocessor": fitted.sha256()}
    table_facts["blocked_rows"] = kept.blocks.total()
    if nights is not None and measured.balance is not None:
        table_facts["local"] = nights.facts(kept, measured.balance)
    write_json(f"{target.uri}/{TABLE_FACTS}", table_facts)

    report = Report(feature_schema=schema.name, data_origin=origin, tables=[table])
    _count_into(report, kept, nights)
    report.notes += [f"feature {f.name} dropped: {f.reason}" for f in dropped]
    if kept.blocks:
        report.notes.append(f"validation has {kept.blocks.total()} benign rows of {len(kept.blocks)} held-out blocks")
    if absent:
        report.notes.append(f"train has no row of {len(absent)} classes: {', '.join(absent)}")
    return report


def _count_into(report: Report, kept: FeatureCounts, nights: _LocalNights | None) -> None:
    """Set the totals of a new report, and add counts by split and class, and the note on local rows."""
    report.rows_in, report.rows_out = kept.flows.total(), kept.rows.total()
    report.rows_duplicate, report.rows_left_out = kept.duplicates.total(), kept.left_out.total()
    report.count("flows", kept.flows)
    report.count("duplicates", kept.duplicates)
    report.count("features", kept.rows)
    for split, n in kept.label_conflict_vectors.items():
        report.counts["label conflicts", split, None] = n
        report.counts["rows of label conflicts", split, None] = kept.label_conflict_rows[split]
    report.count("left out", kept.left_out)
    if nights is not None:
        report.counts["label conflicts with local rows", "train", None] = kept.local_conflict_vectors
        report.counts["rows of label conflicts with local rows", "train", None] = kept.local_conflict_rows
        report.notes.append(nights.note(kept))
