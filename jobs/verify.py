"""Checks a lake: the hash chain of its audit and, with trusted keys, the signatures of all models and aliases.

    spark-submit --py-files dist/ids_spark.zip jobs/verify.py --set lake=LAKE [MORE]

with MORE: --set verify.head=HASH, the `head=` of the last log line of a run: its row, and all before it, must be there;
--set 'score.trusted_keys=[FILE]', public keys.

Reads: `audit/`; with trusted keys `models/`.
Writes: nothing, so that it can run with read access only; it is not in the audit itself.
Exit code 0: everything is as it was written. 3: it is not; every fault is named, the first broken link first.
"""

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace

from ids_spark.config.settings import Config
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, registry, signatures
from ids_spark.models.artifact import ModelUnusable
from ids_spark.models.signatures import NotSigned, Trust
from ids_spark.runtime import chain, job

log = logging.getLogger(__name__)


def run(config: Config, lake: Lake) -> list[str]:
    """Check audit and signatures."""
    trust = signatures.open_trust(lake, config.score.trusted_keys)
    checked = chain.check(lake, config.verify.head)
    log.info("audit rows=%d before_the_chain=%d heads=%s", checked.rows, checked.before, " ".join(checked.heads))
    if trust is None:
        log.info("signatures of models were not checked: score.trusted_keys is not set")
        return checked.faults
    return [*checked.faults, *dict.fromkeys(_faults(lake, replace(trust, thorough=True)))]


def _faults(lake: Lake, trust: Trust) -> Iterator[str]:
    """Yield what is wrong with each model and each file of aliases.

    A version without a signature of a trusted key is no fault unless it has an alias: nothing uses it. A model whose
    whole directory is gone is one if an audit row names its aliases.
    """
    models = lake.uri("models")
    for name in sorted({*artifact.model_names(models), *trust.promoted()}):
        try:
            present = registry.read_aliases(models, name, trust)
            for alias in registry.ALIASES:
                if present.holder(alias) is not None:
                    registry.model_of_alias(models, name, alias, trust)
        except ModelUnusable as error:
            yield str(error)
        for version in artifact.model_versions(models, name):
            try:
                registry.read_version(models, name, version, trust)
                log.info("signed: model %s version %s", name, version)
            except NotSigned:
                log.info("not signed by a trusted key, so that nothing may use it: model %s version %s", name, version)
            except ModelUnusable as error:
                yield str(error)


if __name__ == "__main__":
    sys.exit(job.check(run, __doc__))
