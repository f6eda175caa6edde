"""Models, policies and keys for all nights of a run, checked before the first night is scored."""

import datetime as dt
from dataclasses import dataclass
from typing import Final, get_args

from ids_spark.alerts import allow_list, severity
from ids_spark.alerts.allow_list import AllowList
from ids_spark.alerts.known_devices import KnownDevices, known_devices
from ids_spark.alerts.severity import SeverityPolicy
from ids_spark.base.errors import InputError
from ids_spark.base.report import combined_origin
from ids_spark.base.text import one_line
from ids_spark.config.score import ColumnGroup, ScoreConfig
from ids_spark.config.settings import Config
from ids_spark.dataset.tables import night_predictions
from ids_spark.extract.inventory import Inventory, read_inventory
from ids_spark.lake.filesystem import absolute
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, registry, signatures
from ids_spark.models.artifact import Model, ModelUnusable
from ids_spark.models.signatures import Trust
from ids_spark.models.threshold import Threshold, ValidationScores
from ids_spark.report.format import counted
from ids_spark.score.identifiers import Identifiers, identifiers_of
from ids_spark.score.night_files import NightSource

_EVENT_TIME: Final = "event_time"
_CLASS: Final = "class_name"


@dataclass(frozen=True)
class ScoringContext:
    """Inputs common to all nights of a run.

    Attributes:
        config: Of the run.
        champion: The model whose scores become predictions and alerts.
        challenger: A second model for comparison; None without one.
        challenger_refused: Why the challenger could not be used; None if it is, or if there is none.
        aliases: Newest change and hash of the aliases that name them; None where nothing was promoted.
        signed: What is known of the signatures of champion and challenger, as text by name.
        policy: Severities.
        allow_list: Accepted behaviour.
        identifiers: What of the flow logs identifies somebody, and the key of its pseudonyms.
        inventory: Of the devices; None without one.
        known: The devices of the inventory, as the night names them.
        run_id: Of the run.
        now: Time of the run in UTC.
    """

    config: Config
    champion: Model
    challenger: Model | None
    challenger_refused: str | None
    aliases: tuple[dt.datetime, str] | None
    signed: dict[str, str]
    policy: SeverityPolicy
    allow_list: AllowList
    identifiers: Identifiers
    inventory: Inventory | None
    known: KnownDevices
    run_id: str
    now: dt.datetime

    @property
    def time(self) -> dt.datetime:
        """Time that counts as the present, in UTC: `score.as_of`, or that of the run."""
        return self.now if self.config.score.as_of is None else self.config.score.as_of.astimezone(dt.UTC)

    @property
    def needed(self) -> tuple[str, ...]:
        """Raw features that any of the models reads, in official order."""
        models = [model for model in (self.champion, self.challenger) if model is not None]
        used = {feature for model in models for feature in model.card.source_features}
        return tuple(feature for feature in self.champion.preprocessor.schema.features if feature in used)

    def operating_point(self, model: Model) -> Threshold:
        """Return the threshold from which a model flags flows."""
        return validation_scores_of_model(model).operating_point()

    def origin(self, source: NightSource, model: Model | None = None) -> str:
        """Return `synthetic` if the flows or the train rows of a model (default: the champion) are, else `measured`."""
        return combined_origin(source.data_origin, (model or self.champion).card.data_origin)

    def facts(self) -> dict[str, str]:
        """Return further inputs of the result as text by name, without secrets."""
        alerts = self.config.alerts
        # The hash of a short list whose other values are known is found by trying all addresses, unless it has a key.
        digest, named = "HMAC-SHA-256" if self.identifiers.hides else "SHA-256", self.identifiers.cell
        facts = {
            **self.signed,
            "severity policy": f"{alerts.severity_policy or 'built in'}, SHA-256 {self.policy.sha256()[:16]}…",
            "allow-list": f"{alerts.allow_list or 'none'}, {digest} {named(self.allow_list.sha256())[:16]}…",
        }
        if self.inventory is not None:
            found = f"{counted(len(self.inventory.devices), 'device')}, {digest} {named(self.inventory.sha256)[:16]}…"
            facts["inventory"] = f"{self.config.score.inventory}, {found}"
        if self.identifiers.key_id is not None:
            facts["pseudonyms"] = f"{', '.join(self.identifiers.hidden)}, key {self.identifiers.key_id}"
        return facts


def validation_scores_of_model(model: Model) -> ValidationScores:
    """Return the scores of a model's validation rows.

    Raises:
        ModelUnusable: the model was stored without them.
    """
    if model.validation_scores is None:
        raise ModelUnusable(
            f"model {model.card.name} version {model.card.version} has no validation scores, from which the threshold"
            " is computed; retrain with this version"
        )
    return model.validation_scores


def open_context(lake: Lake, config: Config, run_id: str, now: dt.datetime) -> ScoringContext:
    """Read and check the inputs of a run, except flows; nothing is written.

    Raises:
        InputError: no model or several match; a pass-through column has the name of a prediction column; or the key,
            the severity policy, the allow-list or the inventory is invalid.
        ModelUnusable: the champion was changed after training, or has no validation scores.
        SignatureRefused: `score.trusted_keys` is set, and the champion or the aliases are not signed as they should be.
    """
    _refuse_taken_names(config.score)
    models_uri, name = lake.uri("models"), _name_of(lake, config)
    trust = signatures.open_trust(lake, config.score.trusted_keys)
    present = registry.read_aliases(models_uri, name, trust)
    champion = registry.model_of_alias(models_uri, name, "champion", trust)
    if champion is None:  # not reached: `model_of_alias` raises; for the type checker
        raise ModelUnusable(f"model {name} has no champion")
    validation_scores_of_model(champion)
    challenger, refused = None, None
    try:
        challenger = _challenger(models_uri, champion, trust) if config.score.challenger else None
    except ModelUnusable as error:
        refused = one_line(error)
    identifiers, inventory = identifiers_of(config.score), None
    if config.score.inventory is not None:
        inventory = read_inventory(absolute(config.score.inventory))
    columns = [column for column in config.score.pass_through if column != config.score.event_time]
    return ScoringContext(
        config,
        champion,
        challenger,
        refused,
        present.recorded(),
        _signed(models_uri, champion, challenger, trust),
        severity.read_severity_policy(config.alerts.severity_policy),
        allow_list.read_allow_list(config.alerts.allow_list, now.date(), columns),
        identifiers,
        inventory,
        known_devices(inventory, identifiers.hidden, identifiers.pseudonyms),
        run_id,
        now,
    )


def _challenger(models_uri: str, champion: Model, trust: Trust | None) -> Model | None:
    """Return the challenger; None if there is none.

    Raises:
        ModelUnusable: it cannot score the nights of the champion.
    """
    challenger = registry.model_of_alias(models_uri, champion.card.name, "challenger", trust)
    if challenger is None:
        return None
    validation_scores_of_model(challenger)
    if challenger.preprocessor.schema != champion.preprocessor.schema:
        raise ModelUnusable(
            f"champion {champion.card.version} uses feature schema {champion.preprocessor.schema.name}, challenger"
            f" {challenger.card.version} uses {challenger.preprocessor.schema.name}; promote one of the same schema"
        )
    return challenger


def _signed(models_uri: str, champion: Model, challenger: Model | None, trust: Trust | None) -> dict[str, str]:
    """Return what is known of the signatures of the models, for the page."""
    name = champion.card.name
    texts = {}
    for title, model in (("signature", champion), ("signature of the challenger", challenger)):
        if model is None:
            continue
        own = signatures.stated_key(f"{models_uri}/{name}/{model.card.version}/{signatures.MODEL_SIGNATURE}")
        of_aliases = signatures.stated_key(f"{models_uri}/{name}/{signatures.ALIASES_SIGNATURE}")
        if trust is not None:
            texts[title] = f"model signed by key {own}, aliases by key {of_aliases}, both in score.trusted_keys"
        elif own is None:
            texts[title] = "unsigned model"
        else:
            texts[title] = f"signature of key {own} not checked: score.trusted_keys is not set"
    return texts


def _refuse_taken_names(config: ScoreConfig) -> None:
    names = config.pass_through
    own = night_predictions((), config.event_time, get_args(ColumnGroup)).names
    if config.event_time != _EVENT_TIME:
        own = [*own, _EVENT_TIME]  # its name in incidents and in the allow-list
    taken = sorted({name for name in names if name in (*own, _CLASS) or names.count(name) > 1})
    if taken:
        raise InputError(
            f"score.pass_through contains {', '.join(taken)}, which is listed twice or the name of a prediction column;"
            " list each column once, and rename such columns in the flow logs"
        )


def _name_of(lake: Lake, config: Config) -> str:
    models_uri = lake.uri("models")
    names = config.score.models or tuple(artifact.model_names(models_uri))
    if len(names) == 1:
        return names[0]
    if not names:
        artifact.choose_models(models_uri, [], "latest")  # raises: the lake has no model
    raise InputError(
        f"a night is scored by one model, found {len(names)}: {', '.join(names)}; choose one, for example"
        f" --set 'score.models=[{names[-1]}]'"
    )
