"""What is trained, and how all ranks of a run are started; `rank` says what each of them does."""

import io
import logging
import re
import sys
from dataclasses import dataclass, replace
from typing import Any, Final

from pyspark import SparkContext

from ids_spark import checkpoint, cluster_security, preprocess, progress
from ids_spark.checkpoint import fingerprint
from ids_spark.errors import InputError, Interrupted
from ids_spark.lake import Lake
from ids_spark.model_store import Card, model_name, title_of
from ids_spark.preprocess import Preprocessor
from ids_spark.rank_start import packed
from ids_spark.schema import column_of
from ids_spark.storage import read_bytes
from ids_spark.taxonomy import CLASSES, parents
from ids_spark.train_settings import Classes, ModelName, ProfileName, TrainConfig

log = logging.getLogger(__name__)

_HOROVOD: Final = {"HOROVOD_LOG_LEVEL": "error", "TF_CPP_MIN_LOG_LEVEL": "2"}
_PRODUCTS_PER_CYCLE_MS: Final = 60_000_000
"""Products of a rank's forward pass between two looks of Horovod for work, a tenth of a step: 4,096 rows of gru_dnn.
An allreduce waits for such a look; but a thread that looks without pause takes half of a core from a rank."""


class TooFewRows(InputError):
    """Raised when the train split does not fill one step of all ranks."""


class TooFewRowGroups(InputError):
    """Raised when a split has fewer row groups than there are ranks to read it."""


class Diverged(InputError):
    """Raised when the loss is no longer a number: the learning rate does not suit the data."""


class RanksLost(Interrupted):
    """Raised when a rank ended before its work did."""


class TooFewSlots(InputError):
    """Raised when Spark cannot run all ranks at once."""


@dataclass(frozen=True)
class FeatureTable:
    """One recipe of `features/`, as training sees it.

    Attributes:
        uri: Its folder.
        preprocessor: What made it.
        run_id: Of the run that wrote it.
        rows: Of each split.
        absent: Classes of the 19 that no train row carries.
    """

    uri: str
    preprocessor: Preprocessor
    run_id: str
    rows: dict[str, int]
    absent: frozenset[str]


@dataclass(frozen=True)
class Task:
    """Everything a rank needs to know to train one model; small, sent to each.

    Attributes:
        table: What to read.
        target: URI of the staged model directory.
        checkpoint: URI of the file that says where training stands.
        board: URI of the folder for TensorBoard; empty for none.
        card: What is being trained; rank 0 adds the history.
        config: Training settings.
        seed: Of weights, dropout and shuffle.
        threads: TensorFlow threads of a rank, set by `launch`.
    """

    table: FeatureTable
    target: str
    checkpoint: str
    board: str
    card: Card
    config: TrainConfig
    seed: int
    threads: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the feature table, in input order."""
        return tuple(column_of(name) for name in self.card.features)

    @property
    def fingerprint(self) -> str:
        """Names everything that decides the course of training, but not when or whether it was interrupted."""
        settings = self.config.model_dump(
            mode="json",
            exclude={"resume", "models", "classes", "profiles", "start_timeout", "tensorboard"},
        )
        card = (self.card.name, self.card.hyper, self.card.features)
        return fingerprint(self.table.run_id, self.table.preprocessor.sha256(), card, settings, self.seed)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of every rank: whole global batches in the train split."""
        return self.table.rows["train"] // self.config.batch_size


def open_features(lake: Lake, recipe: str, ranks: int) -> FeatureTable:
    """Read what `jobs/features.py` stated about a recipe, and check that every rank gets a row group of each split.

    Raises:
        TableMissing: the recipe was not written yet.
        TooFewRowGroups: some rank would have nothing to read.
        InputError: the preprocessor is not the one that made the table.
    """
    name = f"features/{recipe}"
    facts, uri = lake.facts(name, "jobs/features.py"), lake.uri(name)
    for split in ("train", "validation"):
        groups = facts["row_groups"].get(split, 0)
        if groups < ranks:
            raise TooFewRowGroups(
                f"{name}/split={split} has {groups} row groups for {ranks} ranks;"
                f" set features.files >= {ranks} and rerun jobs/features.py, or train with fewer ranks"
            )
    fitted = preprocess.from_json(read_bytes(f"{uri}/_preprocessor.json").decode(), uri)
    if fitted.sha256() != facts["preprocessor"]:
        raise InputError(f"{uri}/_preprocessor.json is not the one that made this table; rerun jobs/features.py")
    return FeatureTable(uri, fitted, facts["run_id"], dict(facts["rows"]), frozenset(facts["classes_absent_in_train"]))


def card_of(
    table: FeatureTable,
    config: TrainConfig,
    architecture: ModelName,
    classes: Classes,
    profile: ProfileName,
    version: str,
) -> Card:
    """Return the card of a model to be trained."""
    hyper = getattr(config, architecture).model_dump(mode="json")
    return untrained_card(table, architecture, config.variant, hyper, classes, profile, version)


def untrained_card(
    table: FeatureTable,
    architecture: str,
    variant: str,
    hyper: dict[str, Any],
    classes: Classes,
    profile: ProfileName,
    version: str,
) -> Card:
    """Return the card of any model of a feature table: inputs by profile, outputs by classes."""
    fitted = table.preprocessor
    parent = parents(19, classes)
    seen = {parent[i] for i, name in enumerate(CLASSES[19]) if name not in table.absent}
    return Card(
        name=model_name(title_of(architecture, variant), classes, profile),
        version=version,
        architecture=architecture,
        variant=variant,
        hyper=hyper,
        classes=classes,
        profile=profile,
        recipe=fitted.recipe.name,
        features=tuple(name for name in fitted.schema.profile(profile) if name in fitted.kept),
        data_origin=fitted.data_origin,
        classes_absent_in_train=tuple(name for i, name in enumerate(CLASSES[classes]) if i not in seen),
    )


def launch(spark_context: SparkContext, task: Task) -> dict[str, Any]:
    """Train one model on `task.config.ranks` Spark tasks; rank 0 writes the model directory.

    Returns:
        The `training` entry of the model's card.

    Raises:
        TooFewRows: there is less than one global batch.
        CheckpointUnusable: the run to resume had other settings.
        Diverged: the loss became NaN or infinite.
        RanksLost: a rank was killed or failed.
        TooFewSlots: local mode has fewer task slots than ranks, so that they would wait for each other for ever.
    """
    import horovod.spark

    ranks, config = task.config.ranks, task.config
    if task.steps_per_epoch < 1:
        raise TooFewRows(
            f"{task.table.uri}/split=train has {task.table.rows['train']} rows, less than one global batch of"
            f" {config.batch_size}; set train.batch_size lower"
        )
    local = (spark_context.master or "").startswith("local")
    if local and spark_context.defaultParallelism < ranks:
        raise TooFewSlots(
            f"train.ranks is {ranks}, but {spark_context.master} runs {spark_context.defaultParallelism} tasks at once;"
            f" use --master 'local[{ranks}]' or set train.ranks lower"
        )
    if config.resume:
        checkpoint.read(task.checkpoint, task.fingerprint)  # refuses another run's before any rank starts
    # One thread is fastest for networks this small: a second one waits more than it works, and the feed needs a core.
    threads = int(spark_context.getConf().get("spark.task.cpus", "1"))
    products = (
        config.batch_size // ranks * config.products(task.card.architecture, len(task.columns), task.card.classes)
    )
    cycle = {"HOROVOD_CYCLE_TIME": f"{products / _PRODUCTS_PER_CYCLE_MS:.3f}"}
    start, arguments = packed("ids_spark.rank", "train", replace(task, threads=threads))
    driver = spark_context.getConf().get("spark.driver.host") or "127.0.0.1"
    try:
        with progress.followed(progress.place(task.checkpoint), log.info), cluster_security.locked(driver) as door:
            results: list[dict[str, Any]] = horovod.spark.run(
                start,
                args=arguments,
                num_proc=ranks,
                start_timeout=config.start_timeout,
                use_gloo=True,
                env=_HOROVOD | cycle | door.environment,
                nics=door.nics,
                stdout=_RankOutput(),
                stderr=_RankOutput(),
                verbose=0,
            )
    except Exception as error:
        raise RanksLost(
            f"a rank that trained {task.card.name} ended too early ({' '.join(str(error).split())[:300]});"
            " what it printed stands above. Run jobs/train.py again with --set train.resume=true to go on after the"
            " last whole epoch"
        ) from error
    if "diverged" in results[0]:
        raise Diverged(
            f"training of {task.card.name} diverged in {results[0]['diverged']}, learning rate"
            f" {config.peak_learning_rate:g}; set train.learning_rate lower"
        )
    return results[0]


class _RankOutput(io.TextIOBase):
    """Passes the ranks' output on to this process without Horovod's prefix on every line."""

    def write(self, text: str) -> int:
        sys.stderr.write(re.sub(r"^\[\d+\]<std(?:out|err)>:", "", text, flags=re.MULTILINE))
        sys.stderr.flush()
        return len(text)
