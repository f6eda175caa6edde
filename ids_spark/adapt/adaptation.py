"""From the flow logs of a site's own nights to a challenger that knows them: what `jobs/adapt.py` does."""

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from ids_spark.adapt import evaluation, gate, local_rows, mlflow_mirror, review
from ids_spark.adapt.gate import Judged
from ids_spark.base.errors import InputError
from ids_spark.base.report import Report
from ids_spark.config.boost import BoostConfig
from ids_spark.config.settings import Config
from ids_spark.config.train import TrainConfig
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.features import fitting
from ids_spark.lake.filesystem import absolute, write_bytes
from ids_spark.lake.store import Lake, TableMissing
from ids_spark.models import artifact, registry, signatures
from ids_spark.models.artifact import Model, ModelCard
from ids_spark.models.registry import Aliases
from ids_spark.models.signatures import Signing, SignKey, Trust
from ids_spark.report import adaptation_page
from ids_spark.report.adaptation_page import Adaptation, Flagged, Learned, LeftOut, ModelFigures
from ids_spark.score import night_files
from ids_spark.score.identifiers import identifiers_of
from ids_spark.score.night_files import NightMissing
from ids_spark.train import blending, boosting, training
from ids_spark.train.tasks import FeatureTable, open_features

log = logging.getLogger(__name__)

_STEPS: Final = ("local nights", "review", "features", "training", "comparison")


@dataclass
class _Clock:
    """Logs the beginning of each step and keeps its duration."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        log.info("step %d of %d: %s", _STEPS.index(name) + 1, len(_STEPS), name)
        begin = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begin


@dataclass(frozen=True)
class Run:
    """What every step of an adaptation needs.

    Attributes:
        spark_context: Its executors read, score, train and write.
        lake: Holds the champion and the flows of the data set.
        staged: Returns the URI of the staged version of a table.
        commit: Commits everything that is staged.
        config: Of the run.
        run_id: Of the run, and version of the challenger.
        now: Present time in UTC.
    """

    spark_context: SparkContext
    lake: Lake
    staged: Callable[[str], str]
    commit: Callable[[Sequence[str]], None]
    config: Config
    run_id: str
    now: dt.datetime


def adapt(run: Run) -> Report:
    """Learn local nights, train a challenger, compare it with the champion; stage page, evaluation card and alias.

    Local rows, the feature table and the model are committed on the way, as later steps read them; a run that fails
    afterwards leaves every alias as it was.

    Raises:
        NightMissing: the flow logs hold no night that was asked for, or no flow that can be learned.
        ModelUnusable: the model has no champion that can be read and compared.
        SignatureRefused: `score.trusted_keys` is set, and the champion or the aliases are not signed as they should be.
        SignKeyUnusable: the challenger and its alias cannot be signed.
        TableMissing: the lake has no flows of the data set, or none of split train.
        SchemaMismatch: they are of another release than the champion.
        ClientMissing: MLflow is to be told, but its client is not installed.
    """
    clock, own, lake = _Clock(), run.config.adapt, run.lake
    mlflow_mirror.require_client(run.config.promote)
    signing = signatures.open_signing(lake, run.config.score.trusted_keys, run.config.train.sign_key)
    champion = _champion(lake, own.model, signing.trust)
    with clock.step("local nights"):
        report = local_rows.write_local(
            run.spark_context, lake, run.staged, _nights(run.config, run.now.date()), run.run_id
        )
        run.commit(report.tables)
    left_out = review.LEFT_OUT.empty_table()
    with clock.step("review"):
        if own.review:
            minutes = run.config.alerts.window_minutes
            key_id = identifiers_of(run.config.score).key_id
            reviewed = review.review(run.spark_context, lake, run.staged, champion, minutes, run.run_id, key_id)
            left_out = reviewed.left_out
            if reviewed.unmatched:
                report.notes.append(
                    f"verdicts on {reviewed.unmatched} incident(s) were not used: their nights name devices under"
                    " another key of pseudonyms than this run"
                )
            run.commit([local_rows.TABLE])
    with clock.step("features"):
        same = {"recipe": own.recipe, "local": True, "ratios": bool(champion.preprocessor.recipe.ratios)}
        recipe = run.config.features.model_copy(update=same)
        run.commit(fitting.write_recipe(run.spark_context, lake, run.staged, recipe, run.run_id).tables)
        table = open_features(lake, own.recipe, run.config.train.ranks)
        facts = _facts(table)
    with clock.step("training"):
        challenger = _train(run, champion, table, signing)
    with clock.step("comparison"):
        judged = gate.judge(run.spark_context, lake, champion, challenger, own.most_recall_lost)
    adaptation = _adaptation(run, (champion, challenger), judged, report, left_out, facts, clock)
    report.tables, aliases = _stage_results(run, adaptation, challenger, judged, signing)
    if (recorded := aliases.recorded()) is not None:
        report.aliases[own.model] = recorded
    report.models = [f"{own.model}/{model.card.version}" for model in (champion, challenger)]
    report.data_origin = challenger.card.data_origin
    report.notes += [_threshold_statement(challenger), judged.comparison.statement(), *_left_out_notes(left_out)]
    if adaptation.refusals:
        report.degrade(f"the challenger {challenger.card.version} is refused: {' '.join(adaptation.refusals)}")
    page = lake.uri(f"{report.tables[0]}/adaptation.html")
    report.lines = adaptation_page.summary(adaptation, page)
    report.after_commit.append(mlflow_mirror.follow_up(lake, own.model, run.config.promote, signing.trust))
    return report


def _champion(lake: Lake, name: str, trust: Trust | None) -> Model:
    """Return the champion, after a check of all that later steps need of it and of the lake.

    Raises:
        ModelUnusable, TableMissing, SchemaMismatch: see `adapt`.
    """
    champion = registry.model_of_alias(lake.uri("models"), name, "champion", trust)
    if champion is None or champion.validation_scores is None:  # a champion without a threshold flags nothing
        raise artifact.ModelUnusable(
            f"model {name} has no champion with validation scores, with which a challenger is compared; train it again"
        )
    facts = lake.facts("flows", "jobs/ingest.py")
    found, expected = facts["feature_schema"], champion.preprocessor.schema.name
    if found != expected:
        raise SchemaMismatch(
            f"{lake.uri('flows')} is of feature schema {found}, the champion {champion.card.version} of {name} of"
            f" {expected}; ingest the data set of {expected} again, or name a model of {found} in adapt.model"
        )
    if not facts["rows"]["train"]:
        raise TableMissing(
            f"{lake.uri('flows')} holds no train row of the data set, from which a challenger is trained; run"
            " jobs/ingest.py on a source with both splits"
        )
    return champion


def _threshold_statement(model: Model) -> str:
    """Return a sentence on the threshold of a model."""
    scores = model.validation_scores
    return scores.operating_point().statement() if scores is not None else "The model has no validation scores."


def _nights(config: Config, today: dt.date) -> Config:
    """Return a configuration whose `ingest.local…` are the nights to learn; a date that is not over is none.

    Raises:
        InputError: `adapt.flow_logs` is not set.
        NightMissing: there is no night up to `adapt.last_date`.
    """
    own = config.adapt
    if own.flow_logs is None:
        raise InputError(
            "adapt.flow_logs is not set; expected a folder of flow logs, event_date=YYYY-MM-DD below it (with make:"
            " LOGS=FOLDER)"
        )
    found = night_files.dates_in(absolute(own.flow_logs))
    dates = [date for date in found if date < today and (own.last_date is None or date <= own.last_date)]
    if not dates:
        until = f" up to {own.last_date or 'yesterday'}" if found else ""
        raise NightMissing(
            f"adapt.flow_logs is {absolute(own.flow_logs)}, which holds no folder event_date=YYYY-MM-DD{until}"
        )
    chosen = {"local": own.flow_logs, "local_dates": tuple(dates[-own.nights :]), "local_nights": None}
    return config.model_copy(update={"ingest": config.ingest.model_copy(update=chosen)})


def _train(run: Run, champion: Model, table: FeatureTable, signing: Signing) -> Model:
    """Train a model of the champion's kind, and commit it beside the champion, which becomes one if it was alone."""
    name, models = run.config.adapt.model, run.lake.uri("models")
    parts = artifact.parts_of(champion.card)
    if parts.boosting is None:
        tables = _train_network(run, champion, table, signing.key)
    elif parts.network is None:
        tables = _train_trees(run, champion.card, parts.boosting, signing.key)
    else:
        tables = _train_blend(run, champion, table, signing)
    adopted = registry.adopt(models, name, champion.card.version, run.run_id, run.now, signing.trust)
    if adopted is not None:
        tables += registry.stage_aliases(run.staged, name, adopted, signing.key)
    run.commit(tables)
    return registry.read_version(models, name, run.run_id, signing.trust)


def _train_network(run: Run, champion: Model, table: FeatureTable, key: SignKey | None) -> list[str]:
    """Train a network of the champion's kind; return the tables that were staged."""
    initial = ""
    if run.config.adapt.warm_start:
        initial = run.lake.uri(f"models/{champion.card.name}/{champion.card.version}")
    return training.train_models(
        run.spark_context,
        run.lake,
        run.staged,
        table,
        _settings(run.config.train, champion.card),
        run.config.seed,
        run.run_id,
        initial,
        champion.sha256 if initial else None,
        key,
    ).tables


def _train_trees(run: Run, card: ModelCard, boosting_config: BoostConfig, key: SignKey | None) -> list[str]:
    """Train boosted trees of the champion's kind; return the tables that were staged."""
    return boosting.train_models(
        run.spark_context,
        run.lake,
        run.staged,
        run.config.adapt.recipe,
        run.config.boost.model_copy(update=dict(boosting_config)),
        _settings(run.config.train, card),
        run.config.seed,
        run.run_id,
        key,
    ).tables


def _train_blend(run: Run, champion: Model, table: FeatureTable, signing: Signing) -> list[str]:
    """Train network and trees of the champion's kind and blend them with its share; return the tables that were staged.

    Network and trees are not committed: they are in the blend. With a key they are signed as they were trained, so that
    the blend has nothing else that is in their folders by then.
    """
    card, parts = champion.card, artifact.parts_of(champion.card)
    assert parts.boosting is not None  # of a blend
    [of_network] = _train_network(run, champion, table, signing.key)
    [of_trees] = _train_trees(run, card, parts.boosting, signing.key)
    own = signing.key.trust(run.lake) if signing.key is not None else None
    places = [path.split("/") for path in (of_network, of_trees)]
    network, trees = (registry.read_version(run.staged(top), name, version, own) for top, name, version in places)
    blending.require_one_blend(network, trees, table)
    blend = blending.card_of(network.card, trees.card, card.variant, run.run_id, parts.share)
    path = f"models/{blend.name}/{blend.version}"
    blending.write_blend(
        *(run.spark_context, table, (network, trees), blend, run.staged(path), parts.share, signing, Report())
    )
    return [path]


def _settings(config: TrainConfig, card: ModelCard) -> TrainConfig:
    """Return settings of training for a model of the same kind as a card."""
    kind: dict[str, Any] = {
        "classes": [card.classes],
        "feature_sets": [card.feature_set],
        "variant": card.variant,
        "resume": False,
    }
    if (network := artifact.parts_of(card).network) is not None:
        architecture, hyperparameters = network
        kind |= {"models": [architecture], architecture: hyperparameters}
    return TrainConfig.model_validate(config.model_dump() | kind)


def _facts(table: FeatureTable) -> dict[str, Any]:
    """Return what a feature table holds of local nights.

    Raises:
        NightMissing: no local row is in use.
    """
    if table.local is None:
        raise NightMissing("every flow of the chosen nights was left out or refused; there is nothing to learn")
    return table.local


def _adaptation(
    run: Run,
    models: tuple[Model, Model],
    judged: Judged,
    ingested: Report,
    left_out: pa.Table,
    facts: dict[str, Any],
    clock: _Clock,
) -> Adaptation:
    origin = models[1].card.data_origin
    return Adaptation(
        model=run.config.adapt.model,
        run_id=run.run_id,
        data_origin=origin,
        champion=_figures(models[0], judged, 0),
        challenger=_figures(models[1], judged, 1),
        budget=judged.comparison.at,
        learned=Learned(
            read=ingested.rows_in,
            train_rows=facts["train_rows"],
            held_out_rows=facts["held_out_rows"],
            train_dates=facts["train_dates"],
            held_out_dates=facts["held_out_dates"],
            held_out_by=facts["held_out_by"],
            devices=facts["devices"],
            dropped={
                name: n
                for name, n in (
                    ("beyond the limits of rows", ingested.rows_left_out),
                    ("in quarantine", ingested.rows_quarantined),
                )
                if n
            },
        ),
        left_out=[
            LeftOut(row["reason"], str(row["event_date"] or ""), row["device"] or "", row["class_name"], row["rows"])
            for row in left_out.to_pylist()
        ],
        refusals=[] if judged.comparison.accepted else [judged.comparison.statement()],
        seconds=clock.seconds,
    )


def _figures(model: Model, judged: Judged, place: int) -> ModelFigures:
    replayed, classes = judged.replayed, judged.comparison.classes
    patterns = np.arange(2 ** len(replayed.logits)) >> place & 1 == 1
    benign = {
        (str(date or ""), device or ""): Flagged(int(counts.sum()), int(counts[patterns].sum()))
        for (date, device), counts in replayed.local.items()
    }
    return ModelFigures(
        version=model.card.version,
        statement=_threshold_statement(model),
        benign=benign,
        recall={each.class_name: Flagged(each.rows, (each.champion, each.challenger)[place]) for each in classes},
        own_recall={
            each.class_name: Flagged(each.rows, (each.champion, each.challenger)[place]) for each in judged.own.classes
        },
        macro_f1=replayed.macro_f1(place),
    )


def _stage_results(
    run: Run, adaptation: Adaptation, challenger: Model, judged: Judged, signing: Signing
) -> tuple[list[str], Aliases]:
    """Stage page, evaluation card and, unless the challenger is refused, its alias; return their paths, and aliases."""
    name, version = challenger.card.name, challenger.card.version
    page = f"reports/adaptation/{name}/{version}"
    adaptation_page.write_page(run.staged(page), adaptation)
    card = evaluation.evaluation_of(challenger, judged.replayed, 1, run.run_id, run.now)
    write_bytes(run.staged(evaluation.path_of(name, version)), card.to_json())
    tables = [page, evaluation.path_of(name, version)]
    models = run.lake.uri("models")
    if not judged.comparison.accepted:
        return tables, registry.read_aliases(models, name, signing.trust)
    aliases = registry.promote(models, name, version, "challenger", run.run_id, run.now, trust=signing.trust)
    return tables + registry.stage_aliases(run.staged, name, aliases, signing.key), aliases


def _left_out_notes(left_out: pa.Table) -> list[str]:
    counts: dict[str, int] = {}
    for row in left_out.select(["reason", "rows"]).to_pylist():
        counts[row["reason"]] = counts.get(row["reason"], 0) + row["rows"]
    return [f"{n:,} local flows were left out for review: {reason}" for reason, n in sorted(counts.items())]
