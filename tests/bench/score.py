"""Part `score`: flow logs of a night → predictions.

| case | what it does |
|---|---|
| `ids_spark` | `jobs/score.py` on the night: checks, predictions, incidents, drift, page, audit |
| `scan` | Spark reads the same columns and writes nothing, see `baseline_scan` |
| `predict_batch_udf` | the same model by Spark's own prediction function, see `baseline_udf`; once |
| `pandas` | the same model by `model.predict` in one process, see `baseline_predict` |
| `small_night` | `jobs/score.py` on a night of 40 devices: 200,000 benign flows, four attacks; all of its columns |
| `small_night_pandas` | `pandas` on that night |

The large night holds every class in the data set's shares, so nearly all of its flows are attacks: the most expensive
night for this project, which groups them into incidents. The other cases write class and probability and nothing else.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tests.bench.programs import DRIVER_MEMORY, Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken
from tests.bench.score_work import MODEL

NAME: Final = "score"
TITLE: Final = "Scoring"
SCALES: Final = (1.0, 0.25, 1.0)  # of the night of every case; of one that this project alone scores; of the small one
QUICK_SCALES: Final = (0.1, 0.1, 1.0)
_TRAIN_SCALE: Final = 0.03  # as batch 64 of part `train`
_DATE: Final = "2024-01-02"
_SMALL: Final = "small_night"
_SMALL_FLOWS: Final = 200_000
_WHAT: Final = {
    "ids_spark": "this project: checks, predictions, incidents, attributions, drift, page",
    "scan": "Spark reads the same columns and writes nothing",
    "predict_batch_udf": "the same model through `predict_batch_udf`, class and probability",
    "pandas": "pandas and `model.predict`, one process, class and probability",
    _SMALL: "this project, a night of 200,000 flows",
    f"{_SMALL}_pandas": "pandas and `model.predict`, the same night",
}
_GUESS_S: Final = {"ids_spark": 3.5, "scan": 2.0, "predict_batch_udf": 9.0, "pandas": 5.0}
_PROGRAMS: Final = {"scan": "scan", "predict_batch_udf": "udf"}
CASES: Final = tuple(_WHAT)
ON_DEMAND: Final = ()
QUICK_CASES: Final = ("ids_spark", "scan", "pandas", _SMALL)
MINUTES: Final = (3.0, 1.5)
_RATIOS: Final = (
    ("score_vs_scan", "scan", 0.75),
    ("score_vs_predict_batch_udf", "predict_batch_udf", 1.8),
    ("score_vs_pandas", "pandas", 1.8),
)
_SMALL_NIGHT_S: Final = 8.0
_TOLERANCE: Final = 1e-3  # between two ways to compute one probability in single precision


class ScoresDiffer(RuntimeError):
    """Raised when two cases did not give the same rows the same scores."""


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the three scales: those given, then the usual ones."""
    return (*given, *SCALES[len(given) :])


class Part:
    """The cases of this part; holds the result of the first, to compare the others with."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._programs = plan, Programs(plan)
        self._first: dict[str, tuple[str, tuple[float, ...]]] = {}
        self._rows: dict[str, int] = {}

    def cases(self) -> list[Case]:
        """Train the model, write the nights and return the cases."""
        self._train()
        first, second, small = self._plan.scales
        wanted = [(name, small if name.startswith(_SMALL) else first) for name in CASES if name in self._plan.cases]
        wanted += [("ids_spark", second)] if "ids_spark" in self._plan.cases and second != first else []
        found = []
        for name, scale in wanted:
            night = f"small-{scale:g}" if name.startswith(_SMALL) else f"{scale:g}"
            if night not in self._rows:
                self._make_night(night, scale, small=name.startswith(_SMALL))
            run, check = self._run(name, night), self._check(name, night)
            guess, once = _GUESS_S[name.removeprefix(f"{_SMALL}_").replace(_SMALL, "ids_spark")], "udf" in name
            found.append(Case(NAME, name, scale, self._rows[night], run, check, guess, _WHAT[name], once))
        return found

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return rows/s of this project over those of others, its memory at the larger night over the smaller, and the
        seconds of a small night.
        """
        known = {(one.case.name, one.case.scale): one for one in cases}
        first, second, small = self._plan.scales
        ours, second_night = known.get(("ids_spark", first)), known.get(("ids_spark", second))
        found = []
        if ours is not None:
            for name, other, bar in _RATIOS:
                if (other, first) in known:
                    value = known[other, first].median("wall_s") / ours.median("wall_s")
                    found.append(Ratio(name, value, at_least=bar))
            if second_night is not None and second_night is not ours:
                less, more = sorted((ours, second_night), key=lambda one: one.case.rows)
                memory = more.median("peak_rss_mb") / less.median("peak_rss_mb")
                found.append(Ratio("score_memory_growth", memory, at_most=1.25))
        if (night := known.get((_SMALL, small))) is not None:
            found.append(Ratio("small_night_s", night.median("wall_s"), at_most=_SMALL_NIGHT_S))
            if (pandas := known.get((f"{_SMALL}_pandas", small))) is not None:
                found.append(Ratio("small_night_vs_pandas", pandas.median("wall_s") / night.median("wall_s")))
        return found

    def facts(self) -> dict[str, object]:
        """Return facts that readers of the figures need."""
        return {
            "data": "a night of a synthetic data set in the form of CICIoMT2024, all classes; a small synthetic night",
            "model": MODEL,
            "rows": self._rows,
            "spark_driver_memory": DRIVER_MEMORY,
        }

    @property
    def _lake(self) -> Path:
        return self._plan.scratch / "lake"

    def _logs(self, night: str) -> Path:
        return self._plan.scratch / f"logs-{night}"

    def _train(self) -> None:
        """Train and promote the model; on the features of the first scale where the run is small."""
        prepared = self._programs.features(self._plan.scales[0] if self._plan.quick else _TRAIN_SCALE)
        shutil.copytree(prepared / "features", self._lake / "features", copy_function=os.link)
        settings = {"train.models": "[gru_dnn]", "train.classes": "[19]", "train.epochs": 3, "train.batch_size": 1024}
        self._programs.job("train", {**settings, "train.learning_rate": 4e-3}, self._lake, log="data")
        self._programs.job("promote", {"promote.model": MODEL}, self._lake, log="data")

    def _make_night(self, night: str, scale: float, small: bool) -> None:
        logs = self._logs(night)
        folder = logs / f"event_date={_DATE}"
        if small:
            flows = round(_SMALL_FLOWS * scale)
            told = {"target": logs, "date": _DATE, "flows": flows}
            settings = {f"synthesize_night.{key}": value for key, value in told.items()}
            self._programs.job("synthesize_night", settings, self._plan.scratch / "synthesize", log="data")
        else:
            source = self._programs.synthesize(scale)
            folder.mkdir(parents=True)
            for file in source.glob("*/*.parquet"):
                os.link(file, folder / file.name)
            shutil.copy(source / "_SYNTHETIC.json", logs)
        self._rows[night] = sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet"))

    def _run(self, name: str, night: str) -> Callable[[Path], Taken]:
        logs = self._logs(night)
        source, lake = str(logs / f"event_date={_DATE}"), str(self._lake)

        def run(target: Path) -> Taken:
            if name in ("ids_spark", _SMALL):
                shutil.copytree(self._lake / "models", target / "models", copy_function=os.link)
                settings = {"score.flow_logs": logs, "score.date": _DATE, "score.models": f"[{MODEL}]"}
                if name == "ids_spark":
                    settings["score.columns"] = "[levels]"  # the others write only these
                return Taken(self._programs.job("score", settings, target))
            if name in _PROGRAMS:
                arguments = (f"tests/bench/baseline_{_PROGRAMS[name]}.py", source, str(target), lake)
                return Taken(self._programs.submit(name, *arguments))
            return Taken(self._programs.python(name, "tests.bench.baseline_predict", source, str(target), lake))

        return run

    def _check(self, name: str, night: str) -> Callable[[Path], None]:
        def check(target: Path) -> None:
            if name == "scan":
                return
            table = ds.dataset(target / "predictions", partitioning=None).to_table(
                columns=["predicted_class19_id", "probability", "attack_probability"]
            )
            rows = len(table)
            if rows != self._rows[night]:
                raise ScoresDiffer(f"{name} scored {rows} of {self._rows[night]} flows")
            if name == _SMALL and not list(target.glob(f"reports/night/event_date={_DATE}/*.html")):
                raise ScoresDiffer(f"{name} wrote no page")
            mix = np.bincount(table["predicted_class19_id"].to_numpy(), minlength=19) / rows
            means = tuple(float(np.mean(table[c].to_numpy())) for c in ("probability", "attack_probability"))
            other, expected = self._first.setdefault(night, (name, (*mix, *means)))
            if np.abs(np.array((*mix, *means)) - np.array(expected)).max() > _TOLERANCE:
                found = json.dumps([*mix, *means])
                raise ScoresDiffer(f"{name} and {other} did not score alike: {found} and {json.dumps(expected)}")

        return check
