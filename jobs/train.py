"""Features to models: every architecture and number of classes of the configuration, on Horovod ranks.

    spark-submit --py-files dist/ids_spark.zip jobs/train.py --set lake=LAKE

Reads: `features/<recipe>`. Each model trains on `train.ranks` Spark tasks until the validation loss, averaged over
ranks, stops falling; the best weights are kept.
Writes: `models/<architecture>-<classes>-<profile>/<version>`; the version is the run id.
"""

import logging
import sys
from typing import Any

from ids_spark import feed, job, model_store, preprocess, training
from ids_spark.audit import Report
from ids_spark.config import Classes, ModelName
from ids_spark.errors import InputError
from ids_spark.lake import read_bytes
from ids_spark.schema import column_of
from ids_spark.taxonomy import CLASSES, parents

log = logging.getLogger(__name__)


def run(context: job.Context) -> Report:
    """Train every model that the configuration names."""
    config, features = context.config.train, f"features/{context.config.features.recipe}"
    facts = context.lake.facts(features, "jobs/features.py")
    for split in ("train", "validation"):
        feed.require_row_groups(facts["row_groups"].get(split, 0), config.ranks, f"{features}/split={split}")
    report = Report(feature_schema=facts["feature_schema"], data_origin=facts["data_origin"])
    for classes in config.classes:
        for architecture in config.models:
            task = plan(context, features, facts, architecture, classes)
            done = training.launch(context.spark.sparkContext, task)
            log.info("trained %s epochs=%d best_epoch=%d", task.card.name, done["epochs"], done["best_epoch"])
            report.models.append(f"{task.card.name}/{task.card.version}")
            report.tables.append(f"models/{task.card.name}/{task.card.version}")
    rows = sum(facts["rows"].get(split, 0) for split in ("train", "validation"))
    report.rows_in = report.rows_out = rows
    return report


def plan(
    context: job.Context, features: str, facts: dict[str, Any], architecture: ModelName, classes: Classes
) -> training.Task:
    """Say all that a rank needs to know to train one model."""
    config, where = context.config.train, context.lake.uri(features)
    fitted = preprocess.from_json(read_bytes(f"{where}/_preprocessor.json").decode(), where)
    if fitted.sha256() != facts["preprocessor"]:
        raise InputError(
            f"{where}/_preprocessor.json was changed after jobs/features.py wrote it; rerun jobs/features.py"
        )
    inputs = tuple(name for name in fitted.schema.profile(config.profile) if name in fitted.kept)
    present = {
        parents(19, classes)[CLASSES[19].index(n)] for n in CLASSES[19] if n not in facts["classes_absent_in_train"]
    }
    name = model_store.model_name(architecture, classes, config.profile)
    card = model_store.Card(
        name=name,
        version=context.run_id,
        architecture=architecture,
        hyper=getattr(config, architecture).model_dump(mode="json"),
        classes=classes,
        profile=config.profile,
        recipe=fitted.recipe,
        features=inputs,
        data_origin=fitted.data_origin,
        classes_absent_in_train=tuple(n for i, n in enumerate(CLASSES[classes]) if i not in present),
    )
    return training.Task(
        features=where,
        target=context.staged(f"models/{name}/{context.run_id}"),
        card=card,
        columns=tuple(column_of(n) for n in inputs),
        label=f"label{classes}",
        preprocessor=fitted,
        config=config,
        train_rows=facts["rows"]["train"],
        seed=context.config.seed,
        threads=int(context.spark.conf.get("spark.task.cpus", "1") or 1),
    )


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
