"""Makes a version of a model its champion, which scores nights, or its challenger, which is compared with it.

    spark-submit --py-files dist/ids_spark.zip jobs/promote.py --set lake=LAKE --set promote.model=MODEL [MORE]

with MORE: --set promote.version=VERSION (or latest, or previous), --set promote.alias=challenger.

Reads: `models/<name>/<version>/`; checks the hash of every file.
Writes: `models/<name>/_aliases.json`, in one commit with the audit row. `promote.version=previous` rolls back.
"""

import datetime as dt
import logging
import sys

from ids_spark.base.report import Report
from ids_spark.lake.filesystem import write_bytes
from ids_spark.models import artifact, registry
from ids_spark.runtime import job

log = logging.getLogger(__name__)


def run(context: job.Context) -> Report:
    """Promote one version."""
    config, models = context.config.promote, context.lake.uri("models")
    before = registry.read_aliases(models, config.model)
    after = registry.promote(
        models, config.model, config.version, config.alias, context.run_id, dt.datetime.now(dt.UTC)
    )
    version = after.holder(config.alias)
    card = artifact.read_model(f"{models}/{config.model}/{version}").card
    report = Report(models=[f"{config.model}/{version}"], data_origin=card.data_origin)
    if after == before:
        report.notes.append(f"{config.model}: {version} is already the {config.alias}; nothing changed")
        return report
    write_bytes(context.staged(registry.aliases_path(config.model)), after.to_json())
    report.tables.append(registry.aliases_path(config.model))
    for change in after.history[len(before.history) :]:
        report.notes.append(
            f"{config.model}: {change.alias} is {change.version or 'none'}, was {change.previous or 'none'}"
        )
    log.info("promoted model=%s version=%s alias=%s", config.model, version, config.alias)
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
