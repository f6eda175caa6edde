"""From `flows/` to the feature table of one recipe: what `jobs/features.py` does."""

import logging
from collections import Counter
from collections.abc import Callable

from pyspark import SparkContext

from ids_spark.base.report import Report
from ids_spark.config.settings import FeaturesConfig
from ids_spark.dataset.features import FEATURE_SCHEMAS
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.features import feature_table, preprocess
from ids_spark.features.validation_rows import HeldOut
from ids_spark.lake.filesystem import write_bytes, write_json
from ids_spark.lake.store import TABLE_FACTS, Lake

log = logging.getLogger(__name__)


def write_recipe(
    spark_context: SparkContext, lake: Lake, staged: Callable[[str], str], config: FeaturesConfig, run_id: str
) -> Report:
    """Fit the preprocessor and write the feature table of one recipe; the table is staged.

    Args:
        spark_context: Its executors read and write.
        lake: Holds the flows.
        staged: Returns the URI of the staged version of a table.
        config: The recipe.
        run_id: Of the run.

    Raises:
        TableMissing: there are no flows.
    """
    facts = lake.facts("flows", "jobs/ingest.py")
    schema, origin = FEATURE_SCHEMAS[facts["feature_schema"]], facts["data_origin"]
    buckets = feature_table.buckets_of(lake.uri("flows"), schema)

    recipe = preprocess.Recipe(config.recipe, schema, config.transform, config.min_std, origin)
    share = config.sample_rows / max(1, facts["rows"]["train"])
    held_out = HeldOut(config.validation_share, config.blocked_share, config.block_rows)
    measured = feature_table.measure_train(spark_context, buckets, recipe, held_out, share)
    fitted = preprocess.fit(recipe, *measured)
    dropped = [f for f in fitted.features if not f.kept]
    log.info("fitted rows=%d kept=%d dropped=%s", fitted.rows, len(fitted.kept), [f.name for f in dropped])

    table = f"features/{config.recipe}"
    target = feature_table.Target(staged(table), held_out, config.files, config.rows_per_row_group)
    kept = feature_table.write_features(spark_context, buckets, fitted, target)

    report = Report(feature_schema=schema.name, data_origin=origin, tables=[table])
    report.rows_in, report.rows_out = kept.flows.total(), kept.rows.total()
    report.rows_duplicate = kept.duplicates.total()
    report.count("flows", kept.flows)
    report.count("duplicates", kept.duplicates)
    report.count("features", kept.rows)
    for split, n in kept.label_conflict_vectors.items():
        report.counts["label conflicts", split, None] = n
        report.counts["rows of label conflicts", split, None] = kept.label_conflict_rows[split]
    report.notes += [f"feature {f.name} dropped: {f.reason}" for f in dropped]
    rows: Counter[str] = Counter()
    for (split, _), n in kept.rows.items():
        rows[split] += n
    if kept.blocks:
        report.notes.append(f"validation has {kept.blocks.total()} benign rows of {len(kept.blocks)} held-out blocks")
    absent = [name for name in CLASS19 if not kept.rows["train", name]]
    if absent:
        report.notes.append(f"train has no row of {len(absent)} classes: {', '.join(absent)}")
    log.info("rows %s", " ".join(f"{split}={n}" for split, n in sorted(rows.items())))

    write_bytes(f"{target.uri}/_preprocessor.json", fitted.to_json().encode())
    table_facts = {"run_id": run_id, "feature_schema": schema.name, "data_origin": origin, "rows": rows}
    table_facts |= {"row_groups": kept.row_groups, "classes_absent_in_train": absent, "preprocessor": fitted.sha256()}
    table_facts["blocked_rows"] = kept.blocks.total()
    write_json(f"{target.uri}/{TABLE_FACTS}", table_facts)
    return report
