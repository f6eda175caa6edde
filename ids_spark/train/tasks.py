"""Training tasks: the feature table, and for each model the data that its ranks need."""

import json
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from ids_spark.base.errors import InputError
from ids_spark.config.train import Classes, FeatureSetName, ModelName, TrainConfig
from ids_spark.dataset.features import column_of
from ids_spark.dataset.taxonomy import CLASSES, parents
from ids_spark.features import preprocess
from ids_spark.features.preprocess import Preprocessor
from ids_spark.lake.filesystem import read_bytes
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import ModelCard, model_name, title_of
from ids_spark.train.checkpoint import fingerprint

LOCAL: Final = "local"
"""Column of the feature table: rows of the group of a local row, 0 for a row of the data set; there if it has some."""
_LOCAL_SHARE: Final = 0.1  # weight of all local rows, where all of the data set have 1; see README, Decisions
_MOST_LOCAL_WEIGHT: Final = 10.0


class TooFewRowGroups(InputError):
    """Raised when a split has fewer row groups than there are ranks to read it."""


class OtherModel(InputError):
    """Raised when a model cannot start from the weights of another one."""


@dataclass(frozen=True)
class FeatureTable:
    """The table of one recipe in `features/`.

    Attributes:
        uri: Its folder.
        preprocessor: The preprocessor that made it.
        run_id: Run that wrote it.
        rows: Rows of each split.
        absent: Those of the 19 classes without a train row.
        blocked_rows: Validation rows of held-out blocks; 0 for tables of older versions, which have no column `block`.
        local: What it holds of the site's own nights, as `features.fitting` states it; None: nothing.
        row_groups: Row groups of the split that has fewest, so most ranks that can read it.
    """

    uri: str
    preprocessor: Preprocessor
    run_id: str
    rows: dict[str, int]
    absent: frozenset[str]
    blocked_rows: int = 0
    local: dict[str, Any] | None = None
    row_groups: int = 1

    def local_rows(self, split: Literal["train", "held_out"]) -> int:
        """Return how many rows of the site's own nights are in train, or are held out in validation."""
        return int(self.local[f"{split}_rows"]) if self.local is not None else 0

    def local_weight(self, config: TrainConfig) -> float:
        """Return the mean weight in the loss of the site's own rows, where a row of the data set has weight 1."""
        local = self.local_rows("train")
        if config.local_weight is not None or not local:
            return config.local_weight or 1.0
        return min(_LOCAL_SHARE * (self.rows["train"] - local) / local, _MOST_LOCAL_WEIGHT)

    def row_weights(self, config: TrainConfig) -> tuple[float, float] | None:
        """Return the weights in the loss of a row of the data set, and of a local one that is alone in its group.

        Of a group of n rows, a local one weighs n ** -1/2 of the latter (`features.local_balance`). The mean over train
        is 1. None without local rows.
        """
        local, rows = self.local_rows("train"), self.rows["train"]
        if not local or self.local is None:
            return None
        total = local * self.local_weight(config)
        mean = (rows - local + total) / rows
        return 1 / mean, total / self.local["balance"] / mean


@dataclass(frozen=True)
class TrainingTask:
    """Everything a rank needs to train one model; small, sent to each rank.

    Attributes:
        table: The table to read.
        target: URI of the staged model directory.
        checkpoint: URI of the checkpoint.
        tensorboard_dir: URI of the folder for TensorBoard; empty for none.
        card: Card of the model; rank 0 adds the history.
        config: Training settings.
        seed: Seed of weights, dropout and shuffle.
        threads: TensorFlow threads of a rank, set by `launch`.
        initial: URI of a model directory whose weights are the first; empty for fresh ones.
        initial_sha256: Of its manifest, as the driver has checked it.
    """

    table: FeatureTable
    target: str
    checkpoint: str
    tensorboard_dir: str
    card: ModelCard
    config: TrainConfig
    seed: int
    threads: int = 1
    initial: str = ""
    initial_sha256: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the feature table, in input order."""
        return tuple(column_of(name) for name in self.card.features)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the result of training; settings such as `resume` do not."""
        settings = self.config.model_dump(
            mode="json",
            exclude={
                *("resume", "models", "classes", "feature_sets", "start_timeout", "tensorboard", "sign_key"),
                *("all_reduce", "open_network"),
            },
        )
        card = (self.card.name, self.card.hyperparameters, self.card.features)
        parts = (self.table.run_id, self.table.preprocessor.sha256(), card, settings, self.seed)
        return fingerprint(*parts, *filter(None, (self.initial,)))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of each rank in an epoch: complete global batches in the train split."""
        return self.table.rows["train"] // self.config.batch_size

    @property
    def row_weights(self) -> tuple[float, float] | None:
        """Weights of rows in the loss, see `FeatureTable.row_weights`."""
        return self.table.row_weights(self.config)


def open_features(lake: Lake, recipe: str, ranks: int) -> FeatureTable:
    """Read the facts of `jobs/features.py` about a recipe; check that both splits have a row group for every rank.

    If `ranks` is 0, their number is chosen later.

    Raises:
        TableMissing: the recipe was not written yet.
        TooFewRowGroups: a split has fewer row groups than there are ranks (of trees: workers).
        InputError: the preprocessor is not the one that made the table.
    """
    name = f"features/{recipe}"
    facts, uri = lake.facts(name, "jobs/features.py"), lake.uri(name)
    ranks = ranks or 1
    least = {split: int(facts["row_groups"].get(split, 0)) for split in ("train", "validation")}
    for split, groups in least.items():
        if groups < ranks:
            raise TooFewRowGroups(
                f"{name}/split={split} has {groups} row groups for {ranks} ranks or workers;"
                f" set features.files >= {ranks} and rerun jobs/features.py, or set train.ranks or boost.workers lower"
            )
    fitted = preprocess.from_json(read_bytes(f"{uri}/_preprocessor.json"), uri)
    if fitted.sha256() != facts["preprocessor"]:
        raise InputError(f"{uri}/_preprocessor.json is not the one that made this table; rerun jobs/features.py")
    absent = frozenset(facts["classes_absent_in_train"])
    rows, blocked, local = dict(facts["rows"]), facts.get("blocked_rows", 0), facts.get("local")
    return FeatureTable(uri, fitted, facts["run_id"], rows, absent, blocked, local, min(least.values()))


def card_of(
    table: FeatureTable,
    config: TrainConfig,
    architecture: ModelName,
    classes: Classes,
    feature_set: FeatureSetName,
    version: str,
) -> ModelCard:
    """Return the card of a model to be trained."""
    hyperparameters = getattr(config, architecture).model_dump(mode="json")
    card = untrained_card(table, architecture, config.variant, hyperparameters, classes, feature_set, version)
    return with_local(card, table, config)


def with_local(card: ModelCard, table: FeatureTable, config: TrainConfig) -> ModelCard:
    """Return a card with what its table holds of the site's own nights, and the weight of such rows."""
    local = {**table.local, "weight": table.local_weight(config)} if table.local is not None else None
    return replace(card, local=local)


def untrained_card(
    table: FeatureTable,
    architecture: str,
    variant: str,
    hyperparameters: dict[str, Any],
    classes: Classes,
    feature_set: FeatureSetName,
    version: str,
) -> ModelCard:
    """Return the card of any model of a feature table: inputs by feature set, outputs by classes."""
    fitted = table.preprocessor
    parent = parents(19, classes)
    present = {parent[i] for i, name in enumerate(CLASSES[19]) if name not in table.absent}
    return ModelCard(
        name=model_name(title_of(architecture, variant), classes, feature_set),
        version=version,
        architecture=architecture,
        variant=variant,
        hyperparameters=hyperparameters,
        classes=classes,
        feature_set=feature_set,
        recipe=fitted.recipe.name,
        features=fitted.feature_set(feature_set),
        data_origin=fitted.data_origin,
        classes_absent_in_train=tuple(name for i, name in enumerate(CLASSES[classes]) if i not in present),
    )


def require_same(initial: ModelCard, card: ModelCard) -> None:
    """Check that a model can start from the weights of another one.

    Raises:
        OtherModel: its architecture, hyperparameters, classes or features are others.
    """
    for name in ("architecture", "hyperparameters", "classes", "features"):
        found, expected = (json.loads(json.dumps(getattr(each, name))) for each in (initial, card))
        if found != expected:
            raise OtherModel(
                f"{card.name} cannot start from {initial.name}/{initial.version}: found {name}"
                f" {_only(found, expected)}; expected {_only(expected, found)}; train it with the settings and features"
                " of that model, or from new weights"
            )


def _only(value: Any, other: Any) -> Any:
    """Return a value of a card; of hyperparameters and features only those that the other has not."""
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if other.get(name) != each}
    return ([each for each in value if each not in other] or value) if isinstance(value, list) else value
