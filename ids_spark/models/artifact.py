"""Model directories: written as a whole, and read only if every file has the hash of its manifest.

A directory holds `model.json` (the model card), the `preprocessor.json` of its training data, of a network
`weights.npz` (plain arrays), of boosted trees `booster.json` (as XGBoost writes it), of a blend both,
`validation_scores.json` (its scores on validation rows, which scoring of nights needs), `novelty.npz` (the detector of
unknown attacks, if there is one), and `manifest.json` with the SHA-256 of these. It holds no code and no
pickle: the architecture is built again from its name and hyperparameters.
"""

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ids_spark.base import json_text, npz
from ids_spark.base.errors import InputError
from ids_spark.base.names import is_name
from ids_spark.base.whole_file import FileTooLarge
from ids_spark.config.blend import BlendParts
from ids_spark.config.boost import BoostConfig
from ids_spark.config.train import ModelConfig
from ids_spark.config.yaml_file import described
from ids_spark.dataset.taxonomy import CLASSES, Level
from ids_spark.features import preprocess, ratios
from ids_spark.features.preprocess import Preprocessor
from ids_spark.lake.filesystem import exists, files_in, read_bytes, write_bytes
from ids_spark.models import booster_file, novelty, threshold
from ids_spark.models.novelty import Novelty
from ids_spark.models.threshold import ValidationScores

log = logging.getLogger(__name__)

_FORMAT: Final = 3
_CARD, _WEIGHTS, _PREPROCESSOR, _MANIFEST = "model.json", "weights.npz", "preprocessor.json", "manifest.json"
_VALIDATION_SCORES: Final = "validation_scores.json"
_NOVELTY: Final = "novelty.npz"
_BOOSTER: Final = "booster.json"
TREES: Final = "xgboost"
BLEND: Final = "blend"
_OPTIONAL: Final = (_WEIGHTS, _BOOSTER, _VALIDATION_SCORES, _NOVELTY)
FILES: Final = (_CARD, _PREPROCESSOR, *_OPTIONAL, _MANIFEST)
"""Names of the files of a model directory that the manifest lists, and of the manifest."""
_LONGEST_REASON: Final = 300
_MOST_SETTINGS: Final = 100_000  # bytes of hyperparameters and names: each wrong value becomes an error of 1 kB
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, InputError)
"""Errors that damaged or foreign content of a file raises."""
Weights = list[NDArray[Any]]


class ModelUnusable(InputError):
    """Raised when a model directory is incomplete, was changed after training, or is of another format."""


@dataclass(frozen=True)
class ModelCard:
    """Description of a model and its training.

    Attributes:
        name: Directory below `models/`: title, classes and feature_set.
        version: Directory below the name; the run that trained it.
        architecture: Kind of model: a network (a name in `models.ARCHITECTURES`), boosted trees (`TREES`), or a `BLEND`
            of both.
        variant: Distinguishes models of one architecture with different settings; may be empty.
        hyperparameters: Of a network as `config.ModelConfig`, of trees as `BoostConfig`, of a blend as `BlendParts`.
        classes: 2, 6 or 19.
        feature_set: `paper` or `operational`.
        recipe: Name of the preprocessor.
        features: Names of the input features, in input order: raw ones by official name, and derived ones.
        data_origin: `measured` or `synthetic`.
        classes_absent_in_train: Names of the classes, at the model's level, without a train row.
        training: Settings, history and duration of the training run.
        local: What it was trained on of the site's own nights: `local` of the facts of its feature table, and the
            `weight` of such a row in the loss, where one of the data set has weight 1. None: nothing.
    """

    name: str
    version: str
    architecture: str
    variant: str
    hyperparameters: dict[str, Any]
    classes: Level
    feature_set: str
    recipe: str
    features: tuple[str, ...]
    data_origin: str
    classes_absent_in_train: tuple[str, ...]
    training: dict[str, Any] = field(default_factory=dict)
    local: dict[str, Any] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs, by id."""
        return CLASSES[self.classes]

    @property
    def source_features(self) -> tuple[str, ...]:
        """Official names of the raw features that a flow must have: raw inputs, and what derived ones are made of."""
        return tuple(dict.fromkeys(source for name in self.features for source in ratios.sources_of(name)))

    @property
    def title(self) -> str:
        """Name in metrics: the architecture, and the variant if there is one."""
        return title_of(self.architecture, self.variant)


_CARD_TYPES: Final = TypeAdapter(ModelCard)


@dataclass(frozen=True)
class Model:
    """A model as read: its card, weights in Keras order, preprocessor, validation scores and second detector.

    Without a network there are no weights, without trees no booster.
    """

    card: ModelCard
    weights: Weights
    preprocessor: Preprocessor
    sha256: str  # of the manifest: identifies the content of all files
    validation_scores: ValidationScores | None = None  # None if none were stored
    novelty: Novelty | None = None  # None if none was stored: then no flow is of an unknown attack
    booster: bytes | None = None  # from `booster_file.checked`


@dataclass(frozen=True)
class Parts:
    """What a model consists of, from its card.

    Attributes:
        network: Architecture and hyperparameters of its network; None without one.
        boosting: Hyperparameters of its trees; None without trees.
        share: Of the network in the probabilities.
    """

    network: tuple[str, dict[str, Any]] | None
    boosting: BoostConfig | None
    share: float


def parts_of(card: ModelCard) -> Parts:
    """Return what a model consists of.

    Raises:
        ValueError: its hyperparameters are not those of its kind.
    """
    found = card.hyperparameters
    if card.architecture == TREES:
        return Parts(None, BoostConfig.model_validate(found), 0.0)
    if card.architecture != BLEND:
        return Parts((card.architecture, ModelConfig.model_validate(found).model_dump(mode="json")), None, 1.0)
    blend = BlendParts.model_validate(found)
    return Parts((blend.network, blend.network_hyperparameters.model_dump(mode="json")), blend.boosting, blend.share)


def network_card(card: ModelCard) -> ModelCard:
    """Return the card of a model's network, which it would have without trees; of trees and networks their own."""
    network = parts_of(card).network
    if network is None or card.architecture != BLEND:
        return card
    architecture, hyperparameters = network
    name = model_name(title_of(architecture, card.variant), card.classes, card.feature_set)
    return replace(card, name=name, architecture=architecture, hyperparameters=hyperparameters)


def present_classes(card: ModelCard) -> list[int]:
    """Return the ids of the classes with a train row, which trees know."""
    return [i for i, name in enumerate(card.class_names) if name not in card.classes_absent_in_train]


def title_of(architecture: str, variant: str) -> str:
    """Return the name of a model in metrics, such as `gru_dnn` or `gru_dnn-best`."""
    return f"{architecture}-{variant}" if variant else architecture


def model_name(title: str, classes: int, feature_set: str) -> str:
    """Return the directory name of a model, such as `gru_dnn-19-operational`."""
    return f"{title}-{classes}-{feature_set}"


def write_model(
    uri: str,
    card: ModelCard,
    weights: Weights,
    preprocessor: Preprocessor,
    validation_scores: ValidationScores | None = None,
    novelty: Novelty | None = None,
    booster: bytes | None = None,
) -> str:
    """Write a model directory, the manifest last: a directory without a manifest is incomplete.

    Args:
        uri: The directory.
        card: Of the model.
        weights: Of its network, in Keras order; of trees none.
        preprocessor: Of its train rows.
        validation_scores: Of the model.
        novelty: The detector of unknown attacks.
        booster: Its trees as XGBoost writes them in JSON; of a network None.

    Returns:
        The SHA-256 of the manifest.

    Raises:
        ModelUnusable: the trees could not be read again.
    """
    content = {"format": _FORMAT, "class_names": card.class_names, "preprocessor_sha256": preprocessor.sha256()}
    fields = asdict(card)
    if card.local is None:
        del fields["local"]
    files = {
        _CARD: (json.dumps(content | fields, indent=2, allow_nan=False) + "\n").encode(),
        _PREPROCESSOR: preprocessor.to_json().encode(),
    }
    if weights:
        packed = io.BytesIO()
        np.savez(packed, **{f"w{i:03d}": array for i, array in enumerate(weights)})
        files[_WEIGHTS] = packed.getvalue()
    if booster is not None:
        try:
            _trees_of(card, booster)
        except _UNREADABLE as error:
            raise ModelUnusable(
                f"{card.name}: its trees cannot be stored: {_shown(error)}; if they are too large, set boost.rounds or"
                " boost.max_depth lower"
            ) from error
        files[_BOOSTER] = booster
    if validation_scores is not None:
        files[_VALIDATION_SCORES] = validation_scores.to_json().encode()
    if novelty is not None:
        files[_NOVELTY] = novelty.to_bytes()
    for name, data in files.items():
        write_bytes(f"{uri}/{name}", data)
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    packed_manifest = (json.dumps(manifest, indent=2) + "\n").encode()
    write_bytes(f"{uri}/{_MANIFEST}", packed_manifest)
    return hashlib.sha256(packed_manifest).hexdigest()


def read_model(uri: str, sha256: str | None = None) -> Model:
    """Read a model directory, after a check of every file against the manifest.

    Args:
        uri: The directory.
        sha256: Of the manifest, if the model was read and checked before.

    Raises:
        ModelUnusable: a file is missing, differs from the manifest, is of another model or cannot be parsed; or the
            manifest is another one than before.
    """
    if not exists(f"{uri}/{_MANIFEST}"):
        raise ModelUnusable(f"{uri} holds no complete model ({_MANIFEST} is missing); run jobs/train.py")
    manifest = _read(uri, _MANIFEST)
    sha256_of_manifest = hashlib.sha256(manifest).hexdigest()
    if sha256 not in (None, sha256_of_manifest):
        raise ModelUnusable(
            f"{uri} was changed while it was in use: the SHA-256 of its manifest is {sha256_of_manifest[:16]}…, it was"
            f" {str(sha256)[:16]}…; restore the directory or choose another model"
        )
    data = _checked(uri, manifest)
    try:
        content = _of_this_format(json_text.loads(data[_CARD]), uri)
        preprocessor_sha256 = str(content.pop("preprocessor_sha256"))
        card = _card_of(content)
        _require_files_of(card, data, uri)
        packed = npz.read_npz(data[_WEIGHTS]) if _WEIGHTS in data else {}
        weights: Weights = [packed[key] for key in sorted(packed)]
        booster = _trees_of(card, data[_BOOSTER]) if _BOOSTER in data else None
        fitted = preprocess.from_json(data[_PREPROCESSOR].decode(), f"{uri}/{_PREPROCESSOR}")
        validation_scores = None
        if (name := _VALIDATION_SCORES) in data:
            validation_scores = threshold.from_json(data[name].decode(), f"{uri}/{name}")
        detector = novelty.from_bytes(data[_NOVELTY]) if _NOVELTY in data else None
    except ModelUnusable:
        raise
    except _UNREADABLE as error:
        raise ModelUnusable(f"{uri}: cannot be parsed ({_shown(error)}); restore the directory or retrain") from error
    if not (is_name(card.name) and is_name(card.version)):  # they become parts of paths
        raise ModelUnusable(
            f"{uri}/{_CARD} holds model {card.name!r} version {card.version!r}; expected names of letters, digits and"
            " _.=+-; restore the directory or retrain"
        )
    unknown = sorted(set(card.features) - set(fitted.kept))
    if unknown:
        raise ModelUnusable(
            f"{uri}: its preprocessor lacks features {', '.join(unknown)}; restore the directory or retrain"
        )
    if fitted.sha256() != preprocessor_sha256:
        raise ModelUnusable(
            f"{uri}/{_PREPROCESSOR} is of another model: its SHA-256 is {fitted.sha256()[:16]}…, expected"
            f" {preprocessor_sha256[:16]}…; restore the directory or retrain"
        )
    if validation_scores is not None:
        found = len(validation_scores.class_mix), len(validation_scores.baseline)
        if found != (card.classes, len(card.features)):
            raise ModelUnusable(
                f"{uri}: its validation scores are of {found[0]} classes and {found[1]} features; expected"
                f" {card.classes} and {len(card.features)}; restore the directory or retrain"
            )
    if detector is not None and len(detector.centre) != len(card.features):
        raise ModelUnusable(
            f"{uri}: its detector of unknown attacks is of {len(detector.centre)} features; expected"
            f" {len(card.features)}; restore the directory or retrain"
        )
    return Model(card, weights, fitted, sha256_of_manifest, validation_scores, detector, booster)


def _trees_of(card: ModelCard, content: bytes) -> bytes:
    boosting = parts_of(card).boosting
    if boosting is None:
        raise ValueError(f"a model of kind {card.architecture} has no trees")
    return booster_file.checked(content, len(card.features), len(present_classes(card)), boosting)


def _require_files_of(card: ModelCard, data: dict[str, bytes], uri: str) -> None:
    """Check that a directory has weights and trees as the kind of its model needs them.

    Raises:
        ModelUnusable: a file is missing, or is not of this kind.
    """
    parts = parts_of(card)
    for name, needed in ((_WEIGHTS, parts.network is not None), (_BOOSTER, parts.boosting is not None)):
        there = name in data or exists(f"{uri}/{name}")
        if there != needed or there != (name in data):
            found = "is not in its manifest" if needed or there != (name in data) else "is in its manifest"
            raise ModelUnusable(
                f"{uri}: {name} {found}; a model of kind {card.architecture} has {'one' if needed else 'none'}; restore"
                " the directory or retrain"
            )


def _card_of(content: dict[str, Any]) -> ModelCard:
    """Return a model card from the content of a `model.json` under present names.

    Raises:
        KeyError: a field is missing.
        TypeError: there is an unknown field.
        ValueError: a value is of another type, or the class names are not those of this version.
    """
    settings = [content[name] for name in ("hyperparameters", "features", "classes_absent_in_train")]
    if (size := len(json.dumps(settings))) > _MOST_SETTINGS:
        raise ValueError(f"found {size:,} bytes of hyperparameters and names; expected at most {_MOST_SETTINGS:,}")
    content = {**content, "features": tuple(content["features"])}
    class_names = content.pop("class_names")
    content["classes_absent_in_train"] = tuple(content["classes_absent_in_train"])
    card = ModelCard(**content)
    _CARD_TYPES.validate_json(json.dumps(vars(card)), strict=True)
    parts_of(card)
    if list(class_names) != list(card.class_names):
        raise ValueError(f"class names {str(class_names)[:80]} are not those of {card.classes} classes")
    if len(set(card.features)) != len(card.features) or not card.features:
        raise ValueError("its features are none, or one is listed twice")
    return card


def _shown(error: Exception) -> str:
    """Return an error in one short line."""
    text = "; ".join(described(error, ModelConfig)) if isinstance(error, ValidationError) else repr(error)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _of_this_format(content: Any, uri: str) -> dict[str, Any]:
    """Return the content of a `model.json` without its format number."""
    if not isinstance(content, dict):
        raise TypeError(f"{_CARD} holds {type(content).__name__}, expected an object")
    if (found := content.pop("format")) != _FORMAT:
        raise ModelUnusable(f"{uri}: found model format {str(found)[:80]}; expected {_FORMAT}; retrain")
    return content


def _read(uri: str, name: str) -> bytes:
    try:
        most = npz.MOST_BYTES if name.endswith(".npz") else json_text.MOST_BYTES
        return read_bytes(f"{uri}/{name}", booster_file.MOST_BYTES if name == _BOOSTER else most)
    except FileNotFoundError as error:
        raise ModelUnusable(f"{uri}/{name} is missing; restore the directory or retrain") from error
    except FileTooLarge as error:
        raise ModelUnusable(f"{error.args[0]}; restore the directory or retrain") from error
    except OSError as error:
        raise ModelUnusable(
            f"{uri}/{name} cannot be read ({_shown(error)}); restore the directory or retrain"
        ) from error


def _checked(uri: str, content: bytes) -> dict[str, bytes]:
    """Return the content of every file in the manifest, after a check of its hash."""
    data: dict[str, bytes] = {}
    try:
        manifest: dict[str, str] = TypeAdapter(dict[str, str]).validate_python(json_text.loads(content))
        expected = {name: manifest[name] for name in (_CARD, _PREPROCESSOR)}
        expected |= {name: manifest[name] for name in _OPTIONAL if name in manifest}
    except _UNREADABLE as error:
        raise ModelUnusable(f"{uri}/{_MANIFEST} is not a manifest ({_shown(error)}); restore it or retrain") from error
    for name, sha256 in expected.items():
        data[name] = _read(uri, name)
        found = hashlib.sha256(data[name]).hexdigest()
        if found != sha256:
            raise ModelUnusable(
                f"{uri}/{name} was changed after training: its SHA-256 is {found[:16]}…, expected {sha256[:16]}… of its"
                " manifest; restore the directory or retrain"
            )
    return data


def model_versions(models_uri: str, name: str) -> list[str]:
    """Return the complete versions of a model, oldest first; none for a name that cannot be a directory of the lake."""
    if not is_name(name):
        return []
    found = files_in(f"{models_uri}/{name}", f"/{_MANIFEST}")
    return sorted(uri.rsplit("/", 2)[-2] for uri in found)


def model_names(models_uri: str) -> list[str]:
    """Return the names of all models with a complete version."""
    found = sorted({uri.rsplit("/", 3)[-3] for uri in files_in(models_uri, f"/{_MANIFEST}")})
    for name in found:
        if not is_name(name):
            log.warning(
                "%s/%r is not used: a model's name has letters, digits and _.=+- only; rename it", models_uri, name
            )
    return [name for name in found if is_name(name)]


def choose_models(models_uri: str, names: Sequence[str], version: str) -> list[str]:
    """Return the directory URIs of the named models; of all models if none is named.

    Args:
        models_uri: The lake's `models`.
        names: Names such as `gru_dnn-19-operational`.
        version: A version or `latest`.

    Raises:
        ModelUnusable: a name or version does not exist; the message lists the existing ones.
    """
    available = model_names(models_uri)
    if not available:
        raise ModelUnusable(f"{models_uri} holds no model; run jobs/train.py on this lake first")
    chosen = []
    for name in names or available:
        known = model_versions(models_uri, name) if name in available else []
        if not known:
            raise ModelUnusable(f"no model {name!r} in {models_uri}; expected one of {', '.join(available)}")
        if version != "latest" and version not in known:
            raise ModelUnusable(f"model {name} has no version {version!r}; expected one of {', '.join(known)}")
        chosen.append(f"{models_uri}/{name}/{known[-1] if version == 'latest' else version}")
    return chosen
