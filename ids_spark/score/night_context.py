"""What every night of a run is scored with: models, policies and keys, checked before the first night begins."""

import datetime as dt
from dataclasses import dataclass
from typing import Final, get_args

from ids_spark.alerts import allow_list, pseudonyms, severity
from ids_spark.alerts.allow_list import AllowList
from ids_spark.alerts.pseudonyms import Pseudonyms
from ids_spark.alerts.severity import SeverityPolicy
from ids_spark.base.errors import InputError
from ids_spark.base.report import combined_origin
from ids_spark.config.score import ColumnGroup, ScoreConfig
from ids_spark.config.settings import Config
from ids_spark.dataset.tables import night_predictions
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, registry
from ids_spark.models.artifact import Model, ModelUnusable
from ids_spark.models.threshold import Threshold, ValidationScores
from ids_spark.score.night_files import NightSource

_EVENT_TIME: Final = "event_time"
_CLASS: Final = "class_name"


@dataclass(frozen=True)
class ScoringContext:
    """What is the same for every night of a run.

    Attributes:
        config: Of the run.
        champion: Whose scores count.
        challenger: Who scores beside it; None for nobody.
        policy: Severities.
        allowed: What is known and accepted.
        pseudonyms: For the columns in `score.pseudonymise`; None where there are none.
        run_id: Of the run.
        now: In UTC; one time for the whole run.
    """

    config: Config
    champion: Model
    challenger: Model | None
    policy: SeverityPolicy
    allowed: AllowList
    pseudonyms: Pseudonyms | None
    run_id: str
    now: dt.datetime

    @property
    def needed(self) -> tuple[str, ...]:
        """Features that any of the models sees, in official order."""
        models = [model for model in (self.champion, self.challenger) if model is not None]
        seen = {feature for model in models for feature in model.card.features}
        return tuple(feature for feature in self.champion.preprocessor.schema.features if feature in seen)

    def threshold(self, model: Model, flows: int) -> Threshold:
        """Return from which score on a model flags flows in a night of so many."""
        return validation_scores_of_model(model).threshold(flows, self.config.alerts.per_night)

    def origin(self, source: NightSource, model: Model | None = None) -> str:
        """Return `synthetic` as soon as the flows or the train rows of a model, by default the champion, are."""
        return combined_origin(source.data_origin, (model or self.champion).card.data_origin)

    def facts(self) -> dict[str, str]:
        """Return what else decides what a night becomes, text by name, without any secret."""
        alerts = self.config.alerts
        said = {
            "severity policy": f"{alerts.severity_policy or 'built in'}, SHA-256 {self.policy.sha256()[:16]}…",
            "allow-list": f"{alerts.allow_list or 'none'}, SHA-256 {self.allowed.sha256()[:16]}…",
        }
        if self.pseudonyms is not None:
            said["pseudonyms"] = f"{', '.join(self.config.score.pseudonymise)}, key {self.pseudonyms.key_id}"
        return said


def validation_scores_of_model(model: Model) -> ValidationScores:
    """Return what a model's scores are on validation rows.

    Raises:
        ModelUnusable: it was stored without.
    """
    if model.validation_scores is None:
        raise ModelUnusable(
            f"model {model.card.name} version {model.card.version} has no validation scores, without which no threshold"
            " follows from a budget; retrain with this version"
        )
    return model.validation_scores


def open_context(lake: Lake, config: Config, run_id: str, now: dt.datetime) -> ScoringContext:
    """Read and check everything that a run needs; nothing is written and no flow is read.

    Raises:
        InputError: no model or several are named; a pass-through column bears a name that is taken; or the key, the
            severity policy or the allow-list is not usable.
        ModelUnusable: a model is not as it was written, has no validation scores, or is of another feature schema.
    """
    _refuse_taken_names(config.score)
    models_uri, name = lake.uri("models"), _name_of(lake, config)
    champion = registry.model_of_alias(models_uri, name, "champion")
    challenger = registry.model_of_alias(models_uri, name, "challenger") if config.score.challenger else None
    if champion is None:  # a champion is found or refused; for the type checker
        raise ModelUnusable(f"model {name} has no champion")
    for model in (champion, challenger):
        if model is not None:
            validation_scores_of_model(model)
    if challenger is not None and challenger.preprocessor.schema != champion.preprocessor.schema:
        raise ModelUnusable(
            f"champion {champion.card.version} is of feature schema {champion.preprocessor.schema.name}, challenger"
            f" {challenger.card.version} of {challenger.preprocessor.schema.name}; promote one of the same schema"
        )
    carried = [column for column in config.score.pass_through if column != config.score.event_time]
    return ScoringContext(
        config,
        champion,
        challenger,
        severity.read_severity_policy(config.alerts.severity_policy),
        allow_list.read_allow_list(config.alerts.allow_list, now.date(), carried),
        pseudonyms.load_key(config.score),
        run_id,
        now,
    )


def _refuse_taken_names(config: ScoreConfig) -> None:
    wanted = config.pass_through
    own = night_predictions((), config.event_time, get_args(ColumnGroup)).names
    if config.event_time != _EVENT_TIME:
        own = [*own, _EVENT_TIME]  # incidents and allow-list call it so, whatever the logs do
    taken = sorted({name for name in wanted if name in (*own, _CLASS) or wanted.count(name) > 1})
    if taken:
        raise InputError(
            f"score.pass_through names {', '.join(taken)} twice, or what predictions have a column of already; name"
            " each column once, and rename such columns where the logs are written"
        )


def _name_of(lake: Lake, config: Config) -> str:
    wanted, models_uri = config.score.models, lake.uri("models")
    there = wanted or tuple(artifact.model_names(models_uri))
    if len(there) == 1:
        return there[0]
    if not there:
        artifact.choose_models(models_uri, [], "latest")  # says that there is none
    raise InputError(
        f"a night is scored by one model, found {len(there)}: {', '.join(there)}; name it, for example"
        f" --set 'score.models=[{there[-1]}]'"
    )
