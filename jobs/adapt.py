"""Learns the site's own nights: from their flow logs to a challenger that knows them.

    spark-submit --py-files dist/ids_spark.zip jobs/adapt.py --config conf/site.yaml --set lake=LAKE MORE

with MORE: --set adapt.flow_logs=LOGS, and the number of newest nights to learn: --set adapt.nights=7

Reads: `LOGS/event_date=…/`, the champion of `adapt.model`, the flows of the data set in `flows/`.
Writes, in this order: `flows/split=local`, flows that may be attacks marked as left out; `features/<adapt.recipe>`;
`models/<name>/<version>`; then in one commit its evaluation card, `reports/adaptation/<name>/<version>/adaptation.html`
with both models side by side, and the alias challenger, unless the challenger is refused because it lost recall.
`jobs/promote.py` makes it the champion. Exit code 3: the challenger was refused.
"""

import datetime as dt
import sys

from ids_spark.adapt import adaptation
from ids_spark.base.report import Report
from ids_spark.runtime import job


def run(context: job.Context) -> Report:
    """Adapt one model."""
    spark, now = context.spark.sparkContext, dt.datetime.now(dt.UTC)
    return adaptation.adapt(
        adaptation.Run(spark, context.lake, context.staged, context.commit, context.config, context.run_id, now)
    )


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
