"""Blends a network and boosted trees to one model, for every number of classes and feature set of the configuration.

    spark-submit --py-files dist/ids_spark.zip jobs/blend.py --set lake=LAKE

Reads: the newest versions of `models/<blend.network>-<classes>-<feature_set>` and of
`models/<blend.trees>-<classes>-<feature_set>`, or those named, which were trained on `features/<recipe>`; the
validation rows of this table. The probability of the blend is share · network + (1 - share) · trees.
Writes: `models/blend[-<variant>]-<classes>-<feature_set>/<version>`; the version is the run id. With `train.sign_key`
they are signed; with `score.trusted_keys` both models must be.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.models import signatures
from ids_spark.runtime import job
from ids_spark.train import blending


def run(context: job.Context) -> Report:
    """Blend every pair of models of the configuration."""
    config = context.config
    signing = signatures.open_signing(context.lake, config.score.trusted_keys, config.train.sign_key)
    return blending.blend_models(
        *(context.spark.sparkContext, context.lake, context.staged, config.features.recipe),
        *(config.blend, config.train, context.run_id, signing),
    )


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
