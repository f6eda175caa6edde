"""Part `train`: features → trained models.

| case | what it does |
|---|---|
| `memory-BATCH` | Keras `model.fit` on arrays in memory, one process, see `baseline_keras` |
| `1rank-BATCH`, `2ranks-BATCH` | `jobs/train.py`, global batch BATCH; validation does not count |
| `data_loader` | the data loader of 2 ranks alone at global batch 1,024, see `data_loader_alone` |
| `loss-study`, `loss-recommended` | `jobs/train.py` on 2 ranks: the study's recipe, then ours up to its loss |
| `4ranks-BATCH` | as `2ranks-BATCH`, also where the bench has fewer cores; only on demand |
| `full-memory`, `full-2ranks` | one epoch at full scale; only on demand |

A case trains every model in one process or job. Rows/s are those of the median epoch but the first. Cases of batch 64,
`data_loader` and `loss-…` run in the first round alone: their ratios are far from their limits, or have none.
"""

import json
import math
import os
import re
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ids_spark.config import loader
from tests.bench import train_figures
from tests.bench.programs import DRIVER_MEMORY, Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken
from tests.bench.train_figures import Statement

NAME: Final = "train"
TITLE: Final = "Training"
SCALES: Final = (0.15, 0.03, 1.0)  # of most cases; of batch 64 and time to loss; of full
QUICK_SCALES: Final = (0.1, 0.1, 0.1)
MODELS: Final = ("gru_dnn", "dnn")
RECOMMENDED: Final = "conf/large.yaml"
STUDY: Final = "conf/paper.yaml"
BATCHES: Final = (64, 1024, 8192)
_WAYS: Final = ("memory", "1rank", "2ranks", "4ranks")
_MORE_RANKS: Final = tuple(f"4ranks-{batch}" for batch in BATCHES)
_RATES: Final = tuple(f"{way}-{batch}" for batch in BATCHES for way in _WAYS[:-1])
_LOSS: Final = ("loss-study", "loss-recommended")
_FULL: Final = ("full-memory", "full-2ranks")
ON_DEMAND: Final = (*_MORE_RANKS, *_FULL)
CASES: Final = (*_RATES, "data_loader", *_LOSS, *ON_DEMAND)
QUICK_CASES: Final = ("memory-8192", "2ranks-8192")
MINUTES: Final = (4.5, 2.5)

_LOADER_BATCH: Final = 1024
_EPOCHS: Final = {"data_loader": 6, **dict.fromkeys((*_RATES, *_MORE_RANKS), 4), **dict.fromkeys(_FULL, 1)}
_STUDY_EPOCHS: Final = 10  # these give the loss to reach
_MOST_EPOCHS: Final = 30  # of the recommended setting, to reach it
_WHAT: Final = {
    "memory": "`model.fit` on arrays in memory, one process, batch {}",
    "1rank": "this project, 1 rank, batch {}",
    "2ranks": "this project, 2 ranks, batch {}",
    "4ranks": "this project, 4 ranks, batch {}",
    "data_loader": "the data loader of 2 ranks alone",
    "loss": "to the loss of the study's recipe: {}",
    "full": "one epoch at full scale: {}",
}
_GUESS_S: Final = {"memory": 15, "1rank": 40, "2ranks": 50, "4ranks": 80, "data_loader": 15, "loss": 90, "full": 90}
_RATIOS: Final = (  # name, case and figure above, case and figure below, bar for gru_dnn
    ("train_1rank_vs_memory_1024", "1rank-1024", "memory-1024", "{}_rows_per_s", {"at_least": 0.8}),
    ("train_2ranks_vs_memory_8192", "2ranks-8192", "memory-8192", "{}_rows_per_s", {"at_least": 1.5}),
    ("train_time_to_loss_speedup", "loss-study", "loss-recommended", "{}_seconds_to_loss", {"at_least": 5.0}),
    ("train_epoch_vs_memory_full", "full-2ranks", "full-memory", "{}_epoch_s", {"at_most": 2.0}),
)
_LOADER_BAR: Final = 3.0
_FULL_MEMORY_MB: Final = 6_000


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the three scales: those given, then the usual ones."""
    return (*given, *SCALES[len(given) :])


class Part:
    """The cases of this part; holds the losses to reach and the first statement of each case, to compare."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._programs = plan, Programs(plan)
        self._batch = loader.load([plan.recommended], []).train.batch_size
        self._lakes: dict[float, Path] = {}
        self._rows: dict[float, int] = {}
        self._targets: dict[str, float] = {}
        self._latest: dict[str, Statement] = {}
        self._first: dict[tuple[str, str], tuple[str, Statement]] = {}
        self._losses: dict[str, float] = {}

    def cases(self) -> list[Case]:
        """Write the lakes and return the cases; a case that gives a loss comes before the case that has to reach it."""
        wanted = set(self._plan.cases)
        wanted |= {"loss-study"} if "loss-recommended" in wanted else set()
        names = [name for name in CASES if name in wanted]
        for scale in sorted({self._scale(name) for name in names}):
            self._prepare(scale)
        return [self._case(name) for name in names]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return the ratios whose cases ran; those of `gru_dnn` have bars."""
        known = {one.case.name: one for one in cases}
        found = []
        for model in self._plan.models:
            end, barred = ("", True) if model == MODELS[0] else (f"_{model}", False)
            for name, above, below, figure, bar in _RATIOS:
                if above in known and below in known and figure.format(model) in known[above].stated:
                    value = known[above].median(figure.format(model)) / known[below].median(figure.format(model))
                    found.append(Ratio(name + end, value, **(bar if barred else {})))
            if "data_loader" in known and "2ranks-1024" in known:
                value = known["data_loader"].median("rows_per_s") / known["2ranks-1024"].median(f"{model}_rows_per_s")
                found.append(Ratio(f"data_loader_vs_ranks_1024{end}", value, at_least=_LOADER_BAR if barred else None))
        if "full-2ranks" in known:
            peak = known["full-2ranks"].median("peak_rss_mb")
            found.append(Ratio("train_memory_mb_full", peak, at_most=_FULL_MEMORY_MB))
        return found

    def facts(self) -> dict[str, object]:
        """Return the data, the settings that are compared, and losses."""
        return {
            "data": "features of a synthetic data set in the form of CICIoMT2024, 19 classes",
            "train_rows": {f"{scale:g}": rows for scale, rows in self._rows.items()},
            "models": list(self._plan.models),
            "spark_driver_memory": DRIVER_MEMORY,
            "epochs": _EPOCHS,
            "study": f"{STUDY}, {_STUDY_EPOCHS} epochs",
            "recommended": f"{self._plan.recommended}, at most {_MOST_EPOCHS} epochs",
            "loss_to_reach": self._targets,
            "last_training_losses": self._losses,
        }

    def _scale(self, case: str) -> float:
        large, small, full = self._plan.scales
        kind = case.partition("-")[0]
        return full if kind == "full" else small if kind == "loss" or case.endswith("-64") else large

    def _prepare(self, scale: float) -> None:
        self._lakes[scale] = self._programs.features(scale)
        self._rows[scale] = train_figures.train_rows(str(self._lakes[scale]))

    def _case(self, name: str) -> Case:
        kind, scale = name.partition("-")[0], self._scale(name)
        rows = self._rows[scale]
        runs = {"memory": self._memory, "data_loader": self._data_loader, "loss": self._loss, "full": self._full}
        run: Callable[[str, Path], Taken] = runs.get(kind, self._ranks)
        guess = _GUESS_S[kind] * 1e6 / rows
        once = kind in ("data_loader", "loss", "full") or name.endswith("-64")
        return Case(
            *(NAME, name, scale, rows, lambda target: run(name, target), lambda _: self._check(name), guess),
            *(_WHAT[kind].format(name.partition("-")[2]), once),
        )

    def _memory(self, name: str, target: Path, batch: int = 0) -> Taken:
        statement = target / "statement.json"
        batch = batch or int(name.partition("-")[2])
        arguments = [str(self._lakes[self._scale(name)]), str(statement), str(batch), str(_EPOCHS[name])]
        usage = self._programs.python(name, "tests.bench.baseline_keras", *arguments, *self._models(name))
        self._latest = train_figures.read_statements(statement)
        return Taken(usage, _rates(self._latest))

    def _ranks(self, name: str, target: Path) -> Taken:
        way, _, batch = name.partition("-")
        settings = {
            "train.ranks": int(re.sub(r"\D", "", way)),
            "train.batch_size": int(batch),
            "train.learning_rate": train_figures.LEARNING_RATE,
            "train.epochs": _EPOCHS[name],
        }
        taken = self._train(name, target, settings)
        return Taken(taken.usage, _rates(self._latest))

    def _train(self, name: str, target: Path, settings: dict[str, object], configs: Sequence[str] = ()) -> Taken:
        """Train every model in a separate lake with hard links to the files of the features."""
        shutil.copytree(self._lakes[self._scale(name)] / "features", target / "features", copy_function=os.link)
        told = {
            "features.recipe": "paper",
            "train.models": json.dumps(self._models(name)),
            "train.classes": f"[{train_figures.CLASSES}]",
            "train.variant": "''",
            "train.patience": 1_000,  # all epochs are run
            "seed": train_figures.SEED,
        }
        slots = int(str(settings["train.ranks"]))
        usage = self._programs.job("train", {**told, **settings}, target, configs, name, slots)
        trained = {model: train_figures.read_trained(target, model) for model in self._models(name)}
        self._latest = {model: train_figures.statement_of(training) for model, training in trained.items()}
        return Taken(usage)

    def _data_loader(self, name: str, target: Path) -> Taken:
        statement, ranks = target / "statement.json", 2
        arguments = (str(self._lakes[self._scale(name)]), str(statement), ranks, _LOADER_BATCH // ranks, _EPOCHS[name])
        usage = self._programs.python(name, "tests.bench.data_loader_alone", *map(str, arguments))
        stated = json.loads(statement.read_text())
        self._latest = {}
        return Taken(usage, {"rows_per_s": stated["rows"] / statistics.median(stated["seconds"][1:])})

    def _loss(self, name: str, target: Path) -> Taken:
        """Train until a loss: the study's best of some epochs, in the same round."""
        study = name == "loss-study"
        epochs, chosen = (_STUDY_EPOCHS, STUDY) if study else (_MOST_EPOCHS, self._plan.recommended)
        usage = self._train(name, target, {"train.ranks": 2, "train.epochs": epochs}, [chosen]).usage
        found = {}
        for model in self._plan.models:
            history = train_figures.read_trained(target, model)["history"]
            if study:
                self._targets[model] = min(entry["validation_loss"] for entry in history)
            seconds, number = train_figures.seconds_to_loss(history, self._targets[model])
            found |= {f"{model}_seconds_to_loss": seconds, f"{model}_epochs_to_loss": number}
            if study:
                found[f"{model}_loss_to_reach"] = self._targets[model]
        return Taken(usage, found)

    def _full(self, name: str, target: Path) -> Taken:
        """Train one epoch at the batch of the recommended setting; its seconds include the tracing of the steps."""
        if name == "full-memory":
            usage = self._memory(name, target, self._batch).usage
        else:
            settings = {"train.ranks": 2, "train.epochs": _EPOCHS[name]}
            usage = self._train(name, target, settings, [self._plan.recommended]).usage
        return Taken(usage, {f"{model}_epoch_s": stated.seconds[0] for model, stated in self._latest.items()})

    def _models(self, name: str) -> list[str]:
        return [MODELS[0]] if name in _FULL else list(self._plan.models)

    def _check(self, name: str) -> None:
        """Compare what the case stated with the cases that train the same network at the same batch."""
        kind, _, batch = name.partition("-")
        group = batch if kind in _WAYS else name if kind == "loss" else kind
        for model, statement in self._latest.items():
            if not all(math.isfinite(loss) for loss in statement.losses):
                raise train_figures.TrainingDiffers(f"{name}: training losses of {model} are {statement.losses}")
            first, expected = self._first.setdefault((group, model), (name, statement))
            train_figures.compare(f"{name} {model}", statement, f"{first} {model}", expected)
            self._losses[f"{name} {model}"] = statement.losses[-1]


def _rates(stated: dict[str, Statement]) -> dict[str, float]:
    return {f"{model}_rows_per_s": statement.rows_per_s for model, statement in stated.items()}
