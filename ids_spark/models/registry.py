"""Which version of a model is its champion and which its challenger, and who held the role before.

`models/<name>/_aliases.json` holds the present version of each alias and every change so far. Scoring takes the
champion, never just the newest version: a hospital gets another model because somebody promoted it, not because
somebody trained it. Until the first promotion the only version counts as champion, so that the first night needs no
further step; of several versions none does, for nobody said which.
"""

import datetime as dt
from typing import Final, Literal, overload

from pydantic import ValidationError, model_validator

from ids_spark.config.score import Section
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
        alias: The role.
        version: That holds it from then on; None: nobody.
        previous: That held it until then; None: nobody.
        sha256: Of the manifest of `version`; names the bytes that were promoted.
        at: When, in UTC.
        run_id: By which run.
    """

    alias: Alias
    version: str | None
    previous: str | None
    sha256: str | None
    at: dt.datetime
    run_id: str


class Aliases(Section):
    """The content of the file.

    Attributes:
        format: Of the file.
        champion: Version, None where none was promoted.
        challenger: Version, None where there is none.
        history: Every change, oldest first; only ever added to.
    """

    format: Literal[1] = 1
    champion: str | None = None
    challenger: str | None = None
    history: tuple[Change, ...] = ()

    @model_validator(mode="after")
    def _present_follows_from_history(self) -> "Aliases":
        for alias in ALIASES:
            change = self.last(alias)
            told = None if change is None else change.version
            if told != self.holder(alias):
                raise ValueError(f"{alias} is {self.holder(alias)}, but the history ends with {told}")
        return self

    def holder(self, alias: Alias) -> str | None:
        """Return the version that holds an alias."""
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
    """Return the path of a model's aliases in the lake, which a run stages and commits like a table."""
    return f"models/{name}/{FILE}"


def read_aliases(models_uri: str, name: str) -> Aliases:
    """Return the aliases of a model; empty ones where nothing was promoted yet.

    Raises:
        ModelUnusable: the file is not as this program wrote it.
    """
    uri = f"{models_uri}/{name}/{FILE}"
    if not exists(uri):
        return Aliases()
    try:
        return Aliases.model_validate_json(read_bytes(uri))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        said = first["msg"].removeprefix("Value error, ")
        raise ModelUnusable(
            f"{uri} is not a file of aliases ({where}: {said}); restore it, or remove it and promote anew:"
            f" {_remedy(name, 'champion')}"
        ) from error


def promote(models_uri: str, name: str, version: str, alias: Alias, run_id: str, now: dt.datetime) -> Aliases:
    """Return the aliases after a version took a role; the caller stages them at `place` and commits.

    The model is read whole before, and every hash checked. A challenger that becomes champion is no challenger any
    more. A version that holds the role already changes nothing, so that the same promotion can be run again.

    Args:
        models_uri: The lake's `models`.
        name: Of the model.
        version: A version, `latest`, or `previous`: the last other one that held the role. Twice `previous` is back.
        alias: The role.
        run_id: Of this run.
        now: In UTC.

    Raises:
        ModelUnusable: no such model or version; its directory is not as it was written, or holds no validation scores; none
            held the role before; or the champion is to be its own challenger.
    """
    present = read_aliases(models_uri, name)
    if version == PREVIOUS:
        version = _previous(models_uri, name, present, alias)
    [uri] = artifact.choose_models(models_uri, [name], version)
    version = uri.rsplit("/", 1)[1]
    model = _read_as(models_uri, name, version)
    if model.validation_scores is None:
        raise ModelUnusable(
            f"{uri} has no validation scores, without which no night can be scored; retrain with this version"
        )
    if present.holder(alias) == version:
        return present
    if alias == "challenger" and present.champion == version:
        raise ModelUnusable(f"model {name} version {version} is the champion; expected another as its challenger")
    after = present.changed(
        Change(alias=alias, version=version, previous=present.holder(alias), sha256=model.sha256, at=now, run_id=run_id)
    )
    if alias == "champion" and present.challenger == version:
        left = Change(alias="challenger", version=None, previous=version, sha256=None, at=now, run_id=run_id)
        after = after.changed(left)
    return after


@overload
def version_of_alias(models_uri: str, name: str, alias: Literal["champion"]) -> str: ...
@overload
def version_of_alias(models_uri: str, name: str, alias: Alias) -> str | None: ...
def version_of_alias(models_uri: str, name: str, alias: Alias) -> str | None:
    """Return the version that holds an alias; None where there is no challenger.

    Where no champion was ever promoted, the only version counts as champion.

    Raises:
        ModelUnusable: no such model; several versions and no champion; or the holder's directory is gone.
    """
    present, versions = read_aliases(models_uri, name), artifact.model_versions(models_uri, name)
    if not versions:
        artifact.choose_models(models_uri, [name], "latest")  # says what there is
    holder = present.holder(alias)
    if holder is not None:
        if holder not in versions:
            raise ModelUnusable(
                f"{alias} of model {name} is version {holder}, which is not in {models_uri}/{name}; there are"
                f" {', '.join(versions)}. Restore it, or promote another: {_remedy(name, alias)}"
            )
        return holder
    if alias == "challenger":
        return None
    if len(versions) > 1:
        raise ModelUnusable(
            f"model {name} has {len(versions)} versions and no champion: {', '.join(versions)}. Name one:"
            f" {_remedy(name, alias)}"
        )
    return versions[0]


def model_of_alias(models_uri: str, name: str, alias: Alias) -> Model | None:
    """Return the model that holds an alias, every hash checked; None where there is no challenger.

    Raises:
        ModelUnusable: as `resolve` and `model_store.read`, or its manifest is another than that of the promotion.
    """
    version = version_of_alias(models_uri, name, alias)
    if version is None:
        return None
    model = _read_as(models_uri, name, version)
    change = read_aliases(models_uri, name).last(alias)
    if change is not None and change.sha256 != model.sha256:
        raise ModelUnusable(
            f"{models_uri}/{name}/{version} was changed after it became {alias}: the SHA-256 of its manifest is"
            f" {model.sha256[:16]}…, it was {str(change.sha256)[:16]}…; restore the directory, or promote another"
        )
    return model


def adopt(models_uri: str, name: str, run_id: str, now: dt.datetime) -> Aliases | None:
    """Return aliases that make the champion of a first night explicit, to be staged; None where there is one already.

    From then on a second version that somebody trains neither becomes champion nor stops the nights.

    Raises:
        ModelUnusable: as `resolve` and `promote`.
    """
    if read_aliases(models_uri, name).champion is not None:
        return None
    return promote(models_uri, name, version_of_alias(models_uri, name, "champion"), "champion", run_id, now)


def _read_as(models_uri: str, name: str, version: str) -> Model:
    model = artifact.read_model(f"{models_uri}/{name}/{version}")
    found = (model.card.name, model.card.version)
    if found != (name, version):
        raise ModelUnusable(
            f"{models_uri}/{name}/{version} holds model {found[0]} version {found[1]}; expected the model that its"
            " place names; restore the directory or retrain"
        )
    return model


def _previous(models_uri: str, name: str, present: Aliases, alias: Alias) -> str:
    change = present.last(alias)
    if change is None or change.previous is None:
        known = ", ".join(artifact.model_versions(models_uri, name)) or "none"
        raise ModelUnusable(
            f"no version of model {name} was {alias} before the present one; there are versions {known}. Name one:"
            f" {_remedy(name, alias)}"
        )
    return change.previous


def _remedy(name: str, alias: Alias) -> str:
    chosen = "" if alias == "champion" else f" --set promote.alias={alias}"
    return f"jobs/promote.py --set promote.model={name} --set promote.version=VERSION{chosen}"
