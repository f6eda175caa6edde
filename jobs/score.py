"""Flows to predictions: nights of flow logs to incidents, or a labelled split to metrics.

    spark-submit --py-files dist/ids_spark.zip jobs/score.py --set lake=LAKE --set score.flow_logs=LOGS NIGHTS
    spark-submit --py-files dist/ids_spark.zip jobs/score.py --set lake=LAKE [--set score.source=FLOWS]

with NIGHTS: --set score.date=DATE, or score.first_date and score.last_date, or score.last_days=K.

A night reads `LOGS/event_date=DATE/`, is scored by the model's champion (and challenger), and replaces that date in
`predictions/`, `alerts/`, `drift/`, `nights/`, `exports/`, `reports/night/` and `quarantine/job=score/`. Duplicates
are kept: two equal flows are two events.

A split reads `flows/`, or any parquet with the model's feature columns, and every chosen model; it writes
`split_predictions/split=…/model=…`, `quarantine/job=score_split/…`, `metrics/` and `confusion/`, which scoring of
nights does not change. Metrics count each distinct labelled flow once.
"""

import datetime as dt
import logging
import sys

from ids_spark.base.report import Report
from ids_spark.lake.filesystem import write_bytes
from ids_spark.models import registry
from ids_spark.runtime import job
from ids_spark.score import night_context, night_files, nightly, split

log = logging.getLogger(__name__)


def run(context: job.Context) -> Report:
    """Score the configured nights or split."""
    config, now = context.config.score, dt.datetime.now(dt.UTC)
    if config.flow_logs is None:
        return split.score_split(context.spark.sparkContext, context.lake, context.staged, config, context.run_id)
    scoring = night_context.open_context(context.lake, context.config, context.run_id, now)
    card = scoring.champion.card
    models = [model.card for model in (scoring.champion, scoring.challenger) if model is not None]
    report = Report(feature_schema=scoring.champion.preprocessor.schema.name)
    report.models = [f"{model.name}/{model.version}" for model in models]
    scored: dict[dt.date, list[nightly.Row]] = {}
    for date in night_files.dates_of(config, now.date()):
        source = night_files.find_night(config, date, scoring.champion.preprocessor.schema, scoring.needed)
        if source is None:
            if config.date is not None:
                raise night_files.NightMissing(
                    f"{config.flow_logs}/event_date={date} holds no parquet file; expected the flow logs of that night"
                )
            report.notes.append(f"{date}: there are no flow logs; nothing of that date was changed")
            continue
        report.add(
            nightly.score_night(context.spark.sparkContext, context.lake, context.staged, source, scoring, scored)
        )
    if not scored:
        return report
    adopted = registry.adopt(context.lake.uri("models"), card.name, context.run_id, now)
    if adopted is not None:
        write_bytes(context.staged(registry.aliases_path(card.name)), adopted.to_json())
        report.tables.append(registry.aliases_path(card.name))
        report.notes.append(f"{card.name}: {card.version} became champion: it scored its first night")
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
