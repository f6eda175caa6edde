"""Makes a version of a model its champion, which scores nights, or its challenger, which is compared with it.

    spark-submit --py-files dist/ids_spark.zip jobs/promote.py --set lake=LAKE --set promote.model=MODEL [MORE]

with MORE: --set promote.version=VERSION (or latest, or previous), --set promote.alias=challenger, --set
promote.sign=true (signs the version and the aliases with train.sign_key, whatever signatures they have),
promote.mlflow_uri=https://HOST (registers the version in MLflow, with the same aliases; exit code 3: MLflow was not
reached, the promotion is valid, and the next run tells MLflow).

Reads: `models/<name>/<version>/`; checks the hash of every file. Before a version becomes champion, it and the present
champion score the test rows of `flows/`: it is refused if the recall of a class fell by more than
`adapt.most_recall_lost` beyond chance, unless promote.force=true and promote.reason=WHY are set.
Writes, in one commit with the audit row: `models/<name>/_aliases.json`, with `train.sign_key` its signature, and
`models/<name>/<version>/evaluation.json`.
`promote.version=previous` rolls back without a comparison.
"""

import datetime as dt
import logging
import sys

from ids_spark.adapt import evaluation, gate, mlflow_mirror
from ids_spark.adapt.replay import replay
from ids_spark.base.errors import InputError
from ids_spark.base.report import Report
from ids_spark.config.score import PromoteConfig
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.ingest.sources import SourceUnusable
from ids_spark.lake.filesystem import files_in, write_bytes
from ids_spark.lake.parquet import SUFFIX
from ids_spark.models import registry, signatures
from ids_spark.models.artifact import Model, ModelCard, ModelUnusable
from ids_spark.models.registry import Aliases
from ids_spark.models.signatures import SignKey, SignKeyUnusable, Trust
from ids_spark.runtime import job

log = logging.getLogger(__name__)


class RecallFell(InputError):
    """Raised when a version would become champion that flags less of a class."""


def run(context: job.Context) -> Report:
    """Promote one version."""
    config, models = context.config.promote, context.lake.uri("models")
    mlflow_mirror.require_client(config)
    signing = signatures.open_signing(context.lake, context.config.score.trusted_keys, context.config.train.sign_key)
    if config.sign and signing.key is None:
        raise SignKeyUnusable("promote.sign is set, but train.sign_key is not; expected the key that signs")
    trust = None if config.sign else signing.trust
    before, now = registry.read_aliases(models, config.model, trust), dt.datetime.now(dt.UTC)
    reason = config.reason if config.force else "signed again" if config.sign else None
    after = registry.promote(
        models, config.model, config.version, config.alias, context.run_id, now, reason, trust, again=config.sign
    )
    version = str(after.holder(config.alias))
    model = registry.read_version(models, config.model, version, trust)
    report = Report(models=[f"{config.model}/{version}"], data_origin=model.card.data_origin)
    report.after_commit.append(mlflow_mirror.follow_up(context.lake, config.model, config, signing.trust))
    if (recorded := after.recorded()) is not None:
        report.aliases[config.model] = recorded
    if after == before:
        report.notes.append(f"{config.model}: {version} is already the {config.alias}; nothing changed")
        return report
    if config.version == registry.PREVIOUS:
        report.lines += _stored_card(models, model, report)
    elif config.alias == "champion" and before.champion != version:
        _compare(context, model, _champion(models, config, before, signing.trust, report), report, now)
    registry.require_unchanged(models, config.model, before, trust)  # a comparison takes minutes
    report.tables += registry.stage_aliases(context.staged, config.model, after, signing.key)
    if config.sign and signing.key is not None:
        _sign(context, model, signing.key, report)
    for change in after.history[len(before.history) :]:
        report.notes.append(
            f"{config.model}: {change.alias} is {change.version or 'none'}, was {before.holder(change.alias) or 'none'}"
        )
    if signing.key is not None:
        report.notes.append(f"{config.model}: aliases were signed by the key {signing.key.key_id}")
    log.info("promoted model=%s version=%s alias=%s", config.model, version, config.alias)
    return report


def _sign(context: job.Context, model: Model, key: SignKey, report: Report) -> None:
    """Stage the signature of a version, whatever signature it has."""
    name, version = model.card.name, model.card.version
    path = f"models/{name}/{version}/{signatures.MODEL_SIGNATURE}"
    write_bytes(context.staged(path), key.sign("model", signatures.of_model(name, version, model.sha256)))
    report.tables.append(path)
    report.notes.append(f"{name}: {version} was signed by the key {key.key_id}")


def _champion(models: str, config: PromoteConfig, before: Aliases, trust: Trust | None, report: Report) -> Model | None:
    """Return the present champion; None with a note if there is none, or none that can be read.

    Raises:
        ModelUnusable: it cannot be read, signatures are checked, and the promotion is not forced. Otherwise whoever can
            damage the champion could spare a version the comparison.
    """
    name = config.model
    if before.champion is None:
        report.notes.append(f"{name}: there was no champion to compare with")
        return None
    try:
        return registry.model_of_alias(models, name, "champion", trust)
    except ModelUnusable as error:
        if trust is not None and not config.force:
            raise ModelUnusable(
                f"the champion, with which {name} is compared, cannot be used: {error}. Or promote without a"
                " comparison: promote.force=true and promote.reason=WHY"
            ) from error
        report.notes.append(f"{name}: not compared with the champion, which cannot be read: {error}")
        return None


def _stored_card(models: str, model: Model, report: Report) -> list[str]:
    """Return the text of the evaluation card of a version; none, perhaps with a note, if there is no card to read."""
    try:
        card = evaluation.read_evaluation(models, model.card.name, model.card.version, model.sha256)
    except evaluation.EvaluationUnusable as error:
        report.notes.append(str(error))
        return []
    return [] if card is None else card.lines()


def _compare(context: job.Context, model: Model, champion: Model | None, report: Report, now: dt.datetime) -> None:
    """Compare a version with the champion, and stage its evaluation card.

    Raises:
        RecallFell: the recall of a class fell, and the promotion is not forced.
    """
    config, card, flows = context.config.promote, model.card, context.lake.uri("flows/split=test")
    spark, reason = None, f"there are no flows in {flows}"
    judged: gate.Judged | None = None
    try:
        if files_in(flows, SUFFIX):  # else Spark need not start
            spark = context.spark.sparkContext
            if champion is None:
                replayed, place = replay(spark, context.lake, [model], gate.held_out_of(model)), 0
            else:
                judged = gate.judge(spark, context.lake, champion, model, context.config.adapt.most_recall_lost)
                replayed, place = judged.replayed, 1
    except (SchemaMismatch, SourceUnusable) as error:
        spark, reason = None, str(error)
    if spark is None:
        report.notes.append(f"{card.name}: recall was not compared: {reason}")
        return
    if judged is not None and champion is not None:
        _require_recall(judged, card, champion.card, config, report)
    path = evaluation.path_of(card.name, card.version)
    evaluated = evaluation.evaluation_of(model, replayed, place, context.run_id, now)
    write_bytes(context.staged(path), evaluated.to_json())
    report.tables.append(path)
    report.lines += evaluated.lines()


def _require_recall(
    judged: gate.Judged, card: ModelCard, champion: ModelCard, config: PromoteConfig, report: Report
) -> None:
    """Note how a version compares with the champion.

    Raises:
        RecallFell: the recall of a class fell, and the promotion is not forced.
    """
    compared = judged.comparison
    for each in dict.fromkeys((compared, judged.own)):
        report.notes.append(f"{card.name}: {card.version} against champion {champion.version}: {each.statement()}")
    if compared.accepted:
        return
    if not config.force:
        raise RecallFell(
            f"{card.name} version {card.version} was not promoted; champion stays {champion.version}."
            f" {compared.statement()} Train it again, or promote it all the same with promote.force=true and"
            " promote.reason=WHY"
        )
    report.notes.append(f"{card.name}: {card.version} was promoted all the same: {config.reason}")


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
