"""Promoted versions and their aliases in MLflow's model registry, as a copy: `_aliases.json` of the lake decides.

Each version with an alias becomes a version of the registered model `promote.mlflow_prefix` + name, once for each
content (the SHA-256 of its manifest, a tag). Its artifact is the model directory with MLflow's `MLmodel` beside it,
which `models/pyfunc` loads; nothing is pickled. The aliases champion, challenger and previous are set to those of the
lake or removed; other aliases and other versions are left alone.

Credentials are those of MLflow's own environment variables.
"""

import contextlib
import importlib.util
import ipaddress
import logging
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import ids_spark
from ids_spark.adapt import evaluation
from ids_spark.adapt.evaluation import EvaluationUnusable
from ids_spark.base.errors import InputError
from ids_spark.base.report import FollowUp
from ids_spark.base.text import one_line
from ids_spark.config.score import PromoteConfig
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.lake.filesystem import exists, read_bytes
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, registry, signatures
from ids_spark.models.artifact import Model, ModelUnusable
from ids_spark.models.registry import Aliases
from ids_spark.models.signatures import Trust

log = logging.getLogger(__name__)

_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it sends usage to a server of its maker
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_FIRST_REQUEST: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "5",
}
"""Of a server that has not answered yet, so that one that cannot be reached is noticed soon."""
_REQUESTS: Final = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "15", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
_UNREACHABLE: Final = {
    "NewConnectionError": "connection refused, or no route",
    "NameResolutionError": "its name is unknown",
    "ConnectTimeoutError": "no connection in time",
    "Read timed out": "no answer in time",
}
"""What the client's chain of errors says at its end."""
_REGISTRATION_S: Final = 60
_REGISTRY: Final = "MLFLOW_REGISTRY_URI"
_EXPERIMENT: Final = "ids_spark"
_LONGEST: Final = 500  # characters of a parameter
_TAG: Final = "ids_spark."
_ROUNDS: Final = 3
PREVIOUS: Final = "previous"


class ClientMissing(InputError):
    """Raised when MLflow is to be told, but its client is not installed."""


class CredentialsInClear(InputError):
    """Raised when credentials would cross a network unencrypted."""


class OtherLake(InputError):
    """Raised when the registered model is the copy of another lake."""


def require_client(config: PromoteConfig) -> None:
    """Check, if `promote.mlflow_uri` is set, that MLflow's client is installed and will send no credentials in clear.

    Raises:
        ClientMissing: it is not installed.
        CredentialsInClear: an environment variable holds some, and an address is http on another machine.
        InputError: `MLFLOW_REGISTRY_URI` is no address of a server, or has credentials in it.
    """
    if config.mlflow_uri is None:
        return
    given = [name for name in config.secret_variables if os.environ.get(name)]
    registry_uri = config.registry_uri(os.environ.get(_REGISTRY))
    for name, uri in (("promote.mlflow_uri", config.mlflow_uri), (_REGISTRY, registry_uri)):
        address = urlsplit(uri or "")
        if address.scheme == "http" and given and not _is_this_machine(address.hostname or ""):
            raise CredentialsInClear(
                f"{name} is http://{address.hostname}, and {', '.join(given)} would cross the network in clear;"
                " expected https, or no such variable"
            )
    if importlib.util.find_spec("mlflow") is None:
        raise ClientMissing(
            "promote.mlflow_uri is set, but MLflow's client is not installed; expected the packages of"
            " conf/locks/mlflow.txt: pip install --require-hashes -r conf/locks/mlflow.txt, or pip install"
            " 'ids_spark[mlflow]'"
        )


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def follow_up(lake: Lake, name: str, config: PromoteConfig, trust: Trust | None) -> FollowUp:
    """Return `mirror` of a model, to be done after the commit."""
    return FollowUp("mirror", lambda: mirror(lake, name, config, trust))


def mirror(lake: Lake, name: str, config: PromoteConfig, trust: Trust | None) -> str | None:
    """Register the versions of a model that have an alias, and set the same aliases there.

    Returns:
        Why MLflow does not have them, in one sentence; None if it does, or if `promote.mlflow_uri` is not set.
    """
    if config.mlflow_uri is None:
        return None
    try:
        require_client(config)
        _mirror(lake, name, config, trust)
    except Exception as error:
        return (
            f"MLflow at {config.mlflow_uri} does not have the aliases of {name} ({_text(error)}); they are valid in"
            f" the lake, and the next run of jobs/promote.py or jobs/adapt.py for {name} sets them there"
        )
    return None


def _text(error: Exception) -> str:
    """Return an error in one line, without users and passwords in addresses, such as those of a proxy."""
    for cause, words in _UNREACHABLE.items():
        if cause in str(error):
            return f"it cannot be reached: {words}"
    return one_line(Exception(re.sub(r"//\S*@", "//…@", str(error)) or type(error).__name__))


def _mirror(lake: Lake, name: str, config: PromoteConfig, trust: Trust | None) -> None:
    for variable, value in _SETTINGS.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    registered = f"{config.mlflow_prefix}{name}"
    client = MlflowClient(config.mlflow_uri, config.registry_uri(os.environ.get(_REGISTRY)))
    with _defaults(_FIRST_REQUEST):
        client.search_registered_models(max_results=1)
        client.search_experiments(max_results=1)  # which another server may keep
    models = lake.uri("models")
    present = registry.read_aliases(models, name, trust)
    with _defaults(_REQUESTS):
        for _ in range(_ROUNDS):
            _set_aliases(client, registered, lake, _wanted(lake, name, present, trust))
            if (newest := registry.read_aliases(models, name, trust)) == present:
                return
            present = newest  # another run has promoted meanwhile


@contextlib.contextmanager
def _defaults(values: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables that nobody has set, for a time."""
    missing = values.keys() - os.environ.keys()
    os.environ.update({name: values[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _wanted(lake: Lake, name: str, present: Aliases, trust: Trust | None) -> dict[str, Model]:
    """Return the versions to be registered by alias; a version that the lake no longer has is left out."""
    models, change = lake.uri("models"), present.last("champion")
    holders: dict[str, str | None] = {alias: present.holder(alias) for alias in registry.ALIASES}
    holders |= {PREVIOUS: None if change is None else change.previous}
    known = artifact.model_versions(models, name)
    found: dict[str, Model] = {}
    for alias, version in holders.items():
        if version in known:
            try:
                found[alias] = registry.read_version(models, name, str(version), trust)
            except ModelUnusable:
                if alias != PREVIOUS:
                    raise
    return found


def _set_aliases(client: Any, registered: str, lake: Lake, wanted: Mapping[str, Model]) -> None:
    held = _registered_model(client, registered, lake.root).aliases
    numbers = {alias: _registered_version(client, registered, lake, model) for alias, model in wanted.items()}
    for alias in (*registry.ALIASES, PREVIOUS):
        if alias in numbers and held.get(alias) != numbers[alias]:
            client.set_registered_model_alias(registered, alias, numbers[alias])
        elif alias in held and alias not in numbers:
            client.delete_registered_model_alias(registered, alias)
    stated = ", ".join(f"{alias} version {number}" for alias, number in numbers.items()) or "none"
    log.info("aliases of %s in MLflow: %s", registered, stated)


def _registered_model(client: Any, registered: str, lake: str) -> Any:
    """Return a registered model, which is made if it does not exist.

    Raises:
        OtherLake: it is the copy of another lake.
    """
    tag, description = f"{_TAG}lake", "Intrusion detection of ids_spark; the aliases are copies of those in the lake."
    _made(lambda: client.create_registered_model(registered, {tag: lake}, description))
    found = client.get_registered_model(registered)
    if found.tags.get(tag) != lake:
        raise OtherLake(
            f"the registered model {registered} is of {found.tags.get(tag, 'somebody else')}, this lake is {lake}; set"
            f" promote.mlflow_prefix, or, if the lake was moved, change the tag {tag}"
        )
    return found


def _made(make: Callable[[], Any]) -> None:
    """Make something on the server, unless it exists: another run may make it at the same time."""
    from mlflow.exceptions import MlflowException

    try:
        make()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _registered_version(client: Any, registered: str, lake: Lake, model: Model) -> str:
    """Return the number of a version in the registry; it is registered if nobody has registered its content."""
    if (known := _number_of(client, registered, model)) is not None:
        return known
    card, tags = model.card, _tags(lake, model)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    if client.get_experiment_by_name(experiment) is None:
        _made(lambda: client.create_experiment(experiment))
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    run = client.create_run(experiment_id, run_name=f"{card.name} {card.version}", tags=tags)
    status = "FAILED"
    try:
        _log(client, run.info.run_id, lake, model)
        source = f"{run.info.artifact_uri}/model"
        number = client.create_model_version(
            *(registered, source, run.info.run_id, tags),
            description=_description(model),
            await_creation_for=_REGISTRATION_S,
        ).version
        status = "FINISHED"
    finally:
        client.set_terminated(run.info.run_id, status)
    first = _number_of(client, registered, model) or str(number)
    if first != str(number):  # another run has registered it at the same time
        client.delete_model_version(registered, str(number))
        client.delete_run(run.info.run_id)
    return first


def _number_of(client: Any, registered: str, model: Model) -> str | None:
    """Return the lowest number of a complete version with the content of a model; None if there is none."""
    found = client.search_model_versions(f"name = '{registered}'", max_results=10_000)
    known = [each for each in found if each.tags.get(f"{_TAG}sha256") == model.sha256 and each.status == "READY"]
    return str(min(int(each.version) for each in known)) if known else None


def _log(client: Any, run_id: str, lake: Lake, model: Model) -> None:
    """Log parameters, metrics and the model directory of a version to a run."""
    from mlflow.entities import Metric, Param

    params = [Param(name, str(value)[:_LONGEST]) for name, value in _params(model).items()]
    metrics = [Metric(name, value, 0, 0) for name, value in _metrics(lake, model).items()]
    for i in range(0, len(params), 100):  # the most that one request may have
        client.log_batch(run_id, params=params[i : i + 100])
    client.log_batch(run_id, metrics=metrics)
    with tempfile.TemporaryDirectory(prefix="ids_spark-") as folder:
        _write_artifact(Path(folder), lake, model, run_id)
        client.log_artifacts(run_id, folder, "model")


def _write_artifact(folder: Path, lake: Lake, model: Model, run_id: str) -> None:
    """Write the files of a model directory below `data`, and `MLmodel`, which says how to load them."""
    from mlflow.models import Model as Description
    from mlflow.models.signature import ModelSignature
    from mlflow.types import ColSpec, Schema

    card, data = model.card, folder / "data"
    data.mkdir()
    uri = lake.uri(f"models/{card.name}/{card.version}")
    for name in (*artifact.FILES, signatures.MODEL_SIGNATURE, evaluation.FILE):
        if exists(f"{uri}/{name}"):
            (data / name).write_bytes(read_bytes(f"{uri}/{name}"))
    artifact.read_model(str(data), model.sha256)  # that it is complete, and the one that was checked
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", name) for name in card.source_features]),
        outputs=Schema([ColSpec("float", name) for name in card.class_names]),
    )
    described = Description("model", run_id, signature=signature)
    loader = {"loader_module": "ids_spark.models.pyfunc", "data": "data", "env": {}}
    described.add_flavor("python_function", **loader, python_version=platform.python_version())
    described.save(str(folder / "MLmodel"))


def _tags(lake: Lake, model: Model) -> dict[str, str]:
    card = model.card
    found = {
        "model": card.name,
        "version": card.version,
        "sha256": model.sha256,
        "lake": lake.root,
        "data_origin": card.data_origin,
        "architecture": card.architecture,
        "feature_set": card.feature_set,
        "feature_schema": model.preprocessor.schema.name,
        "signed_by": signatures.key_named_in(lake.uri(f"models/{card.name}/{card.version}")) or "nobody",
        "code_version": str(card.training.get("code_version", "unknown")),
        "registered_by": f"ids_spark {ids_spark.__version__}",
    }
    return {f"{_TAG}{name}": value for name, value in found.items()}


def _description(model: Model) -> str:
    card = model.card
    origin = "" if card.data_origin == "measured" else f" Training data are {card.data_origin}: no real traffic."
    return f"{card.name} {card.version}: {card.classes} classes from {len(card.features)} features.{origin}"


def _params(model: Model) -> dict[str, Any]:
    """Return hyperparameters and settings of training, nested ones by dotted names."""
    training = model.card.training
    flat = _flat(model.card.hyperparameters)
    names = ("batch_size", "peak_learning_rate", "schedule", "seed", "ranks", "all_reduce", "train_rows", "initial")
    flat |= {f"training.{name}": training[name] for name in names if name in training}
    return flat | {"features": len(model.card.features), "classes": model.card.classes}


def _flat(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _metrics(lake: Lake, model: Model) -> dict[str, float]:
    """Return figures of training, of the operating point, and on test flows if the version has an evaluation card."""
    card = model.card
    names = ("best_validation_loss", "best_epoch", "epochs", "parameters", "seconds", "trees")
    found: dict[str, Any] = {f"training.{name}": card.training.get(name) for name in names}
    if model.validation_scores is not None:
        point = model.validation_scores.operating_point()
        found |= {
            "threshold.logit": point.logit,
            "threshold.probability": point.probability,
            "threshold.false_alarm_rate": point.expected_rate,
            "threshold.false_alarm_rate_at_most": point.rate_at_most,
            "validation.macro_recall": point.macro_recall,
        }
    try:
        measured = evaluation.read_evaluation(lake.uri("models"), card.name, card.version, model.sha256)
    except EvaluationUnusable:  # the job itself says so
        measured = None
    for share in () if measured is None else measured.of("random split").shares:
        kind = "false_alarm_rate" if share.name == CLASS19[BENIGN_ID] else f"recall.{share.name}"
        found[f"test.{kind}"] = share.value
    return {name: float(value) for name, value in found.items() if value is not None}
