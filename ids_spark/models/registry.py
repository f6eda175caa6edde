"""The champion and the challenger version of each model, and the history of both aliases.

`models/<name>/_aliases.json` holds the present version of each alias and every change so far. Scoring uses the
champion, not the newest version: only a promotion, never a training run, changes the model in use. Until the first
promotion, a single version counts as champion, so that the first night needs no promotion; with several versions there
is no champion until one is promoted.
"""

import datetime as dt
from typing import Final, Literal, overload

from pydantic import ValidationError, model_validator

from ids_spark.base.names import is_name
from ids_spark.config.score import PathPart, Section
from ids_spark.lake.filesystem import exists, read_bytes
from ids_spark.models import artifact
from ids_spark.models.artifact import Model, ModelUnusable

Alias = Literal["champion", "challenger"]
ALIASES: Final[tuple[Alias, ...]] = ("champion", "challenger")
FILE: Final = "_aliases.json"
PREVIOUS: Final = "previous"


class Change(Section):
    """One change of an alias.

    Attributes:
        alias: The alias.
        version: New version of the alias; None for none.
        previous: Version before the change; None for none.
        sha256: SHA-256 of the manifest of `version`; identifies the promoted content.
        at: Time of the change, in UTC.
        run_id: Run that made the change.
        reason: Why the version was promoted although the recall of a class fell; None for every other change.
    """

    alias: Alias
    version: PathPart | None
    previous: PathPart | None
    sha256: str | None
    at: dt.datetime
    run_id: str
    reason: str | None = None


class Aliases(Section):
    """The content of `_aliases.json`.

    Attributes:
        format: Format of the file.
        champion: Version; None if none was promoted.
        challenger: Version; None if there is none.
        history: Every change, oldest first; changes are only added.
    """

    format: Literal[1] = 1
    champion: PathPart | None = None
    challenger: PathPart | None = None
    history: tuple[Change, ...] = ()

    @model_validator(mode="after")
    def _present_follows_from_history(self) -> "Aliases":
        for alias in ALIASES:
            change = self.last(alias)
            expected = None if change is None else change.version
            if expected != self.holder(alias):
                raise ValueError(f"{alias} is {self.holder(alias)}, but the history ends with {expected}")
        return self

    def holder(self, alias: Alias) -> str | None:
        """Return the version that has an alias; None if there is none."""
        return self.champion if alias == "champion" else self.challenger

    def last(self, alias: Alias) -> Change | None:
        """Return the newest change of an alias."""
        return next((change for change in reversed(self.history) if change.alias == alias), None)

    def changed(self, change: Change) -> "Aliases":
        """Return the aliases after one more change."""
        return self.model_copy(update={change.alias: change.version, "history": (*self.history, change)})

    def to_json(self) -> bytes:
        """Return the file's content."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def aliases_path(name: str) -> str:
    """Return the path of a model's aliases in the lake; a run stages and commits it like a table."""
    return f"models/{name}/{FILE}"


def read_aliases(models_uri: str, name: str) -> Aliases:
    """Return the aliases of a model; empty if nothing was promoted yet.

    Raises:
        ModelUnusable: the file cannot be parsed, or its content is inconsistent; or the name cannot be a directory.
    """
    if not is_name(name):
        artifact.choose_models(models_uri, [name], "latest")  # raises: lists the models that exist
    uri = f"{models_uri}/{name}/{FILE}"
    if not exists(uri):
        return Aliases()
    try:
        return Aliases.model_validate_json(read_bytes(uri))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        reason = first["msg"].removeprefix("Value error, ")
        raise ModelUnusable(
            f"{uri} is not a file of aliases ({where}: {reason}); restore it, or remove it and promote again:"
            f" {_remedy(name, 'champion')}"
        ) from error


def promote(
    models_uri: str,
    name: str,
    version: str,
    alias: Alias,
    run_id: str,
    now: dt.datetime,
    reason: str | None = None,
) -> Aliases:
    """Return the aliases after a promotion; the caller stages them at `aliases_path` and commits.

    Reads the model and checks every hash first. A challenger that becomes champion is no longer challenger. If the
    version has the alias already, nothing changes, so that the same promotion can be run again.

    Args:
        models_uri: The lake's `models`.
        name: Name of the model.
        version: A version, `latest`, or `previous`: the version that the newest change replaced, so that `previous`
            twice changes nothing.
        alias: The alias.
        run_id: Id of this run.
        now: Present time in UTC.
        reason: Of a promotion that was forced; becomes part of the history.

    Raises:
        ModelUnusable: no such model or version; its directory was changed or holds no validation scores; there is no
            previous version; or the champion is to become challenger.
    """
    present = read_aliases(models_uri, name)
    if version == PREVIOUS:
        version = _previous(models_uri, name, present, alias)
    [uri] = artifact.choose_models(models_uri, [name], version)
    version = uri.rsplit("/", 1)[1]
    model = _read_as(models_uri, name, version)
    if model.validation_scores is None:
        raise ModelUnusable(f"{uri} has no validation scores, which scoring of nights needs; retrain with this version")
    if present.holder(alias) == version:
        return present
    if alias == "challenger" and present.champion == version:
        raise ModelUnusable(f"model {name} version {version} is the champion; expected another version as challenger")
    change = Change(
        alias=alias,
        version=version,
        previous=present.holder(alias),
        sha256=model.sha256,
        at=now,
        run_id=run_id,
        reason=reason,
    )
    after = present.changed(change)
    if alias == "champion" and present.challenger == version:
        left = Change(alias="challenger", version=None, previous=version, sha256=None, at=now, run_id=run_id)
        after = after.changed(left)
    return after


@overload
def version_of_alias(models_uri: str, name: str, alias: Literal["champion"]) -> str: ...
@overload
def version_of_alias(models_uri: str, name: str, alias: Alias) -> str | None: ...
def version_of_alias(models_uri: str, name: str, alias: Alias) -> str | None:
    """Return the version of an alias; None where there is no challenger.

    Where no champion was promoted yet, a single version counts as champion.

    Raises:
        ModelUnusable: no such model; several versions and no champion; or the version's directory does not exist.
    """
    present, versions = read_aliases(models_uri, name), artifact.model_versions(models_uri, name)
    if not versions:
        artifact.choose_models(models_uri, [name], "latest")  # raises: lists the models that exist
    holder = present.holder(alias)
    if holder is not None:
        if holder not in versions:
            raise ModelUnusable(
                f"{alias} of model {name} is version {holder}, which is not in {models_uri}/{name}; found"
                f" {', '.join(versions)}. Restore it, or promote another: {_remedy(name, alias)}"
            )
        return holder
    if alias == "challenger":
        return None
    if len(versions) > 1:
        raise ModelUnusable(
            f"model {name} has {len(versions)} versions and no champion: {', '.join(versions)}. Promote one:"
            f" {_remedy(name, alias)}"
        )
    return versions[0]


def model_of_alias(models_uri: str, name: str, alias: Alias) -> Model | None:
    """Return the model of an alias, after a check of every hash; None if there is no challenger.

    Raises:
        ModelUnusable: as `version_of_alias` and `read_model`, or its manifest differs from that of the promotion.
    """
    version = version_of_alias(models_uri, name, alias)
    if version is None:
        return None
    model = _read_as(models_uri, name, version)
    change = read_aliases(models_uri, name).last(alias)
    if change is not None and change.sha256 != model.sha256:
        raise ModelUnusable(
            f"{models_uri}/{name}/{version} was changed after it became {alias}: the SHA-256 of its manifest is"
            f" {model.sha256[:16]}…, expected {str(change.sha256)[:16]}…; restore the directory, or promote another"
        )
    return model


def adopt(models_uri: str, name: str, run_id: str, now: dt.datetime) -> Aliases | None:
    """Return aliases with the single version as champion, to be staged; None if a champion was promoted already.

    So training a second version neither changes the champion nor stops the scoring of nights.

    Raises:
        ModelUnusable: as `version_of_alias` and `promote`.
    """
    if read_aliases(models_uri, name).champion is not None:
        return None
    return promote(models_uri, name, version_of_alias(models_uri, name, "champion"), "champion", run_id, now)


def _read_as(models_uri: str, name: str, version: str) -> Model:
    model = artifact.read_model(f"{models_uri}/{name}/{version}")
    found = (model.card.name, model.card.version)
    if found != (name, version):
        raise ModelUnusable(
            f"{models_uri}/{name}/{version} holds model {found[0]} version {found[1]}; expected {name} version"
            f" {version}; restore the directory or retrain"
        )
    return model


def _previous(models_uri: str, name: str, present: Aliases, alias: Alias) -> str:
    change = present.last(alias)
    if change is None or change.previous is None:
        known = ", ".join(artifact.model_versions(models_uri, name)) or "none"
        raise ModelUnusable(
            f"no version of model {name} was {alias} before the present one; found versions {known}. Promote one:"
            f" {_remedy(name, alias)}"
        )
    return change.previous


def _remedy(name: str, alias: Alias) -> str:
    chosen = "" if alias == "champion" else f" --set promote.alias={alias}"
    return f"jobs/promote.py --set promote.model={name} --set promote.version=VERSION{chosen}"
