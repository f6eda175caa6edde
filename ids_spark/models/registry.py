"""The champion and the challenger version of each model, and the history of both aliases.

`models/<name>/_aliases.json` holds the present version of each alias and every change so far. Scoring uses the
champion, not the newest version: only a promotion, never a training run, changes the model in use. Until the first
promotion, a single version counts as champion, so that the first night needs no promotion; with several versions there
is no champion until one is promoted. Where signatures are checked (`trust`), models and aliases must be signed, and
only a version that was promoted is champion.
"""

import datetime as dt
import hashlib
from collections.abc import Callable
from typing import Final, Literal, overload

from pydantic import AwareDatetime, model_validator

from ids_spark.base import json_text
from ids_spark.base.names import is_name
from ids_spark.base.text import one_line
from ids_spark.config.score import PathPart, Section
from ids_spark.lake.filesystem import exists, read_bytes, write_bytes
from ids_spark.models import artifact, signatures
from ids_spark.models.artifact import Model, ModelUnusable
from ids_spark.models.signatures import SignKey, Trust

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
        reason: Why the version was promoted although the recall of a class fell, or that it was signed again; None for
            every other change.
    """

    alias: Alias
    version: PathPart | None
    previous: PathPart | None
    sha256: str | None
    at: AwareDatetime
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

    @property
    def newest(self) -> dt.datetime | None:
        """Time of the newest change; None without one."""
        return max((change.at for change in self.history), default=None)

    def recorded(self) -> tuple[dt.datetime, str] | None:
        """Return newest change and hash of the file, for the audit row; None without a change."""
        return None if self.newest is None else (self.newest, hashlib.sha256(self.to_json()).hexdigest())


def aliases_path(name: str) -> str:
    """Return the path of a model's aliases in the lake; a run stages and commits it like a table."""
    return f"models/{name}/{FILE}"


def stage_aliases(staged: Callable[[str], str], name: str, aliases: Aliases, key: SignKey | None) -> list[str]:
    """Stage the aliases of a model, with their signature if there is a key; return the paths to commit."""
    content, paths = aliases.to_json(), [aliases_path(name)]
    write_bytes(staged(paths[0]), content)
    if key is not None:
        paths.append(f"models/{name}/{signatures.ALIASES_SIGNATURE}")
        write_bytes(staged(paths[1]), key.sign("aliases", signatures.of_aliases(name, content)))
    return paths


def read_aliases(models_uri: str, name: str, trust: Trust | None = None) -> Aliases:
    """Return the aliases of a model; empty if nothing was promoted yet.

    Raises:
        ModelUnusable: the file cannot be parsed, or its content is inconsistent; or the name cannot be a directory.
        SignatureRefused: see `Trust.require_aliases`.
    """
    if not is_name(name):
        artifact.choose_models(models_uri, [name], "latest")  # raises: lists the models that exist
    uri = f"{models_uri}/{name}/{FILE}"
    if not exists(uri):
        if trust is not None:
            trust.require_aliases(name, None, None)
        return Aliases()
    try:
        content = read_bytes(uri)
        found = Aliases.model_validate_json(json_text.checked(content))
    except (ValueError, OSError) as error:
        fault = json_text.fault_of(error) if isinstance(error, ValueError) else one_line(error)
        raise ModelUnusable(
            f"{uri} is not a file of aliases ({fault}); restore it, or remove it and promote again:"
            f" {_remedy(name, 'champion')}"
        ) from error
    if trust is not None:
        trust.require_aliases(name, content, found.newest)
    return found


def promote(
    models_uri: str,
    name: str,
    version: str,
    alias: Alias,
    run_id: str,
    now: dt.datetime,
    reason: str | None = None,
    trust: Trust | None = None,
    again: bool = False,
) -> Aliases:
    """Return the aliases after a promotion; the caller stages them at `aliases_path` and commits.

    Reads the model and checks every hash first. A challenger that becomes champion is no longer challenger. If the
    version has the alias already, nothing changes, so that the same promotion can be run again, unless `again`.

    Args:
        models_uri: The lake's `models`.
        name: Name of the model.
        version: A version, `latest`, or `previous`: the version that the newest change replaced, so that `previous`
            twice changes nothing.
        alias: The alias.
        run_id: Id of this run.
        now: Present time in UTC.
        reason: Of a promotion that was forced; becomes part of the history.
        trust: Keys of which the present aliases and the version must be signed; None: they need no signature.
        again: Add a change also if the version has the alias already, so that the file is newer than every one before.

    Raises:
        ModelUnusable: no such model or version; its directory was changed or holds no validation scores; there is no
            previous version; or the champion is to become challenger.
        SignatureRefused: the present aliases or the version are not signed as they should be.
    """
    present = read_aliases(models_uri, name, trust)
    if version == PREVIOUS:
        version = _previous(models_uri, name, present, alias)
    [uri] = artifact.choose_models(models_uri, [name], version)
    version = uri.rsplit("/", 1)[1]
    model = read_version(models_uri, name, version, trust)
    if model.validation_scores is None:
        raise ModelUnusable(f"{uri} has no validation scores, which scoring of nights needs; retrain with this version")
    had = present.holder(alias) == version
    if had and not again:
        return present
    if alias == "challenger" and version == (present.champion or _only_version(models_uri, name, trust)):
        raise ModelUnusable(f"model {name} version {version} is the champion; expected another version as challenger")
    change = Change(
        alias=alias,
        version=version,
        previous=_before(present, alias) if had else present.holder(alias),
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
def version_of_alias(models_uri: str, name: str, alias: Literal["champion"], trust: Trust | None = None) -> str: ...
@overload
def version_of_alias(models_uri: str, name: str, alias: Alias, trust: Trust | None = None) -> str | None: ...
def version_of_alias(models_uri: str, name: str, alias: Alias, trust: Trust | None = None) -> str | None:
    """Return the version of an alias; None where there is no challenger.

    Where no champion was promoted yet, a single version counts as champion, but not where signatures are checked.

    Raises:
        ModelUnusable: no such model; several versions and no champion; or the version's directory does not exist.
        SignatureRefused: see `Trust.require_aliases`; or there is no signed promotion.
    """
    return _version_of(read_aliases(models_uri, name, trust), models_uri, name, alias, trust)


def _version_of(present: Aliases, models_uri: str, name: str, alias: Alias, trust: Trust | None) -> str | None:
    versions = artifact.model_versions(models_uri, name)
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
    if trust is not None:
        raise signatures.SignatureRefused(
            f"no signed promotion names a champion of model {name} ({models_uri}/{name}/{FILE}); with"
            f" score.trusted_keys a single version is not champion either. Promote one: {_remedy(name, alias)}"
        )
    if len(versions) > 1:
        raise ModelUnusable(
            f"model {name} has {len(versions)} versions and no champion: {', '.join(versions)}. Promote one:"
            f" {_remedy(name, alias)}"
        )
    return versions[0]


def model_of_alias(models_uri: str, name: str, alias: Alias, trust: Trust | None = None) -> Model | None:
    """Return the model of an alias, after a check of every hash; None if there is no challenger.

    Raises:
        ModelUnusable: as `version_of_alias` and `read_model`, or its manifest differs from that of the promotion.
        SignatureRefused: aliases or model are not signed as they should be.
    """
    present = read_aliases(models_uri, name, trust)
    version = _version_of(present, models_uri, name, alias, trust)
    if version is None:
        return None
    model = read_version(models_uri, name, version, trust)
    change = present.last(alias)
    if change is not None and change.sha256 != model.sha256:
        raise ModelUnusable(
            f"{models_uri}/{name}/{version} was changed after it became {alias}: the SHA-256 of its manifest is"
            f" {model.sha256[:16]}…, expected {str(change.sha256)[:16]}…; restore the directory, or promote another"
        )
    return model


def adopt(
    models_uri: str, name: str, version: str, run_id: str, now: dt.datetime, trust: Trust | None = None
) -> Aliases | None:
    """Return aliases with a version as champion, to be staged; None if a champion was promoted already.

    So training a second version neither changes the champion nor stops the scoring of nights.

    Args:
        models_uri: The lake's `models`.
        name: Name of the model.
        version: That was champion as the only one when the run began; others may have been trained since.
        run_id: Id of this run.
        now: Present time in UTC.
        trust: As for `promote`.

    Raises:
        ModelUnusable: as `promote`.
        SignatureRefused: as `version_of_alias`.
    """
    if read_aliases(models_uri, name, trust).champion is not None:
        return None
    if trust is not None:
        version = version_of_alias(models_uri, name, "champion", trust)  # raises: no signed promotion names one
    return promote(models_uri, name, version, "champion", run_id, now, trust=trust)


def require_unchanged(models_uri: str, name: str, before: Aliases, trust: Trust | None = None) -> None:
    """Check that aliases are those from which new ones were derived: the change of another run would be lost.

    Raises:
        ModelUnusable: they were changed since, or as `read_aliases`.
        SignatureRefused: see `Trust.require_aliases`.
    """
    present = read_aliases(models_uri, name, trust)
    if present == before:
        return
    holders = ", ".join(f"{alias} is {present.holder(alias) or 'none'}" for alias in ALIASES)
    by = f" by run {present.history[-1].run_id}" if present.history else ""
    raise ModelUnusable(
        f"the aliases of model {name} were changed{by} while this run compared versions: {holders}. Nothing was"
        " promoted; run jobs/promote.py again"
    )


def read_version(models_uri: str, name: str, version: str, trust: Trust | None = None) -> Model:
    """Return a version of a model, after a check of every hash and, with trusted keys, of its signature.

    Raises:
        ModelUnusable: as `read_model`, or the directory holds another model.
        SignatureRefused: see `Trust.require_model`.
    """
    model = artifact.read_model(f"{models_uri}/{name}/{version}")
    found = (model.card.name, model.card.version)
    if found != (name, version):
        raise ModelUnusable(
            f"{models_uri}/{name}/{version} holds model {found[0]} version {found[1]}; expected {name} version"
            f" {version}; restore the directory or retrain"
        )
    if trust is not None:
        trust.require_model(f"{models_uri}/{name}/{version}", name, version, model.sha256)
    return model


def _only_version(models_uri: str, name: str, trust: Trust | None) -> str | None:
    """Return the version that is champion without a promotion; None with several, or where signatures are checked."""
    versions = artifact.model_versions(models_uri, name)
    return versions[0] if trust is None and len(versions) == 1 else None


def _before(present: Aliases, alias: Alias) -> str | None:
    change = present.last(alias)
    return None if change is None else change.previous


def _previous(models_uri: str, name: str, present: Aliases, alias: Alias) -> str:
    before = _before(present, alias)
    if before is None:
        known = ", ".join(artifact.model_versions(models_uri, name)) or "none"
        raise ModelUnusable(
            f"no version of model {name} was {alias} before the present one; found versions {known}. Promote one:"
            f" {_remedy(name, alias)}"
        )
    return before


def _remedy(name: str, alias: Alias) -> str:
    chosen = "" if alias == "champion" else f" --set promote.alias={alias}"
    return f"jobs/promote.py --set promote.model={name} --set promote.version=VERSION{chosen}"
