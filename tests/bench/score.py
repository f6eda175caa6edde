"""Part `score`: flow logs of a night → predictions.

| case | what it does |
|---|---|
| `ids_spark` | `jobs/score.py` on the night: checks, predictions, incidents, drift, page, audit |
| `scan` | Spark reads the same columns and writes nothing, see `baseline_scan` |
| `predict_batch_udf` | the same model by Spark's own prediction function, see `baseline_udf` |
| `pandas` | the same model by `model.predict` in one process, see `baseline_predict` |

The night holds every class in the data set's shares, so nearly all of its flows are attacks: the most expensive night
for this project, which groups them into incidents. The other cases write class and probability and nothing else.
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
SCALES: Final = (1.0, 0.25)  # of the night of every case; of a second night that this project alone scores
_TRAIN_SCALE: Final = 0.02
_DATE: Final = "2024-01-02"
_GUESS_S: Final = {"ids_spark": 7.0, "scan": 4.0, "predict_batch_udf": 12.0, "pandas": 8.0}
CASES: Final = tuple(_GUESS_S)
ON_DEMAND: Final = ()
_RATIOS: Final = (
    ("score_vs_scan", "scan", 0.5),
    ("score_vs_predict_batch_udf", "predict_batch_udf", 1.8),
    ("score_vs_pandas", "pandas", 1.3),
)
_TOLERANCE: Final = 1e-3  # between two ways to compute one probability in single precision


class ScoresDiffer(RuntimeError):
    """Raised when two cases did not give the same rows the same scores."""


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the two scales: those given, then the usual ones."""
    return (*given, *SCALES[len(given) :])


class Part:
    """The cases of this part; holds the result of the first, to compare the others with."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._programs = plan, Programs(plan)
        self._first: dict[float, tuple[str, tuple[float, ...]]] = {}
        self._rows: dict[float, int] = {}

    def cases(self) -> list[Case]:
        """Train the model, write the nights and return the cases."""
        self._train()
        first, second = self._plan.scales
        wanted = [(name, first) for name in CASES if name in self._plan.cases]
        wanted += [("ids_spark", second)] if "ids_spark" in self._plan.cases and second != first else []
        for scale in sorted({scale for _, scale in wanted}):
            self._make_night(scale)
        return [
            Case(NAME, name, scale, self._rows[scale], self._run(name, scale), self._check(name, scale), _GUESS_S[name])
            for name, scale in wanted
        ]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return rows/s of this project over those of others, and its memory at the larger night over the smaller."""
        known = {(one.case.name, one.case.scale): one for one in cases}
        first, second = self._plan.scales
        ours, second_night = known.get(("ids_spark", first)), known.get(("ids_spark", second))
        found = []
        if ours is not None:
            for name, other, bar in _RATIOS:
                if (other, first) in known:
                    value = known[other, first].median("wall_s") / ours.median("wall_s")
                    found.append(Ratio(name, value, at_least=bar))
            if second_night is not None and second_night is not ours:
                small, large = sorted((ours, second_night), key=lambda one: one.case.rows)
                memory = large.median("peak_rss_mb") / small.median("peak_rss_mb")
                found.append(Ratio("score_memory_growth", memory, at_most=1.25))
        return found

    def facts(self) -> dict[str, object]:
        """Return facts that readers of the figures need."""
        return {
            "data": "a night of a synthetic data set in the form of CICIoMT2024, all classes",
            "model": MODEL,
            "rows": {f"{scale:g}": rows for scale, rows in self._rows.items()},
            "spark_driver_memory": DRIVER_MEMORY,
        }

    @property
    def _lake(self) -> Path:
        return self._plan.scratch / "lake"

    def _logs(self, scale: float) -> Path:
        return self._plan.scratch / f"logs-{scale:g}"

    def _train(self) -> None:
        source = self._programs.synthesize(_TRAIN_SCALE)
        self._programs.job("ingest", {"ingest.source": source}, self._lake)
        self._programs.job("features", {}, self._lake)
        settings = {"train.models": "[gru_dnn]", "train.classes": "[19]", "train.epochs": 3, "train.batch_size": 1024}
        self._programs.job("train", {**settings, "train.learning_rate": 4e-3}, self._lake)
        self._programs.job("promote", {"promote.model": MODEL}, self._lake)

    def _make_night(self, scale: float) -> None:
        source = self._programs.synthesize(scale)
        night = self._logs(scale) / f"event_date={_DATE}"
        night.mkdir(parents=True)
        for split in ("train", "test"):
            for file in (source / split).glob("*.parquet"):
                file.rename(night / file.name)
        shutil.copy(source / "_SYNTHETIC.json", self._logs(scale))
        shutil.rmtree(source)
        self._rows[scale] = sum(pq.read_metadata(file).num_rows for file in night.glob("*.parquet"))

    def _run(self, name: str, scale: float) -> Callable[[Path], Taken]:
        logs = self._logs(scale)
        source = str(logs / f"event_date={_DATE}")

        def run(target: Path) -> Taken:
            if name == "ids_spark":
                shutil.copytree(self._lake / "models", target / "models", copy_function=os.link)
                settings = {"score.flow_logs": logs, "score.date": _DATE, "score.models": f"[{MODEL}]"}
                settings["score.columns"] = "[levels]"  # the others write only these
                return Taken(self._programs.job("score", settings, target))
            if name == "pandas":
                return Taken(
                    self._programs.python(name, "tests.bench.baseline_predict", source, str(target), self._lake)
                )
            program = {"scan": "scan", "predict_batch_udf": "udf"}[name]
            arguments = (f"tests/bench/baseline_{program}.py", source, str(target), str(self._lake))
            return Taken(self._programs.submit(name, *arguments))

        return run

    def _check(self, name: str, scale: float) -> Callable[[Path], None]:
        def check(target: Path) -> None:
            if name == "scan":
                return
            table = ds.dataset(target / "predictions", partitioning=None).to_table(
                columns=["predicted_class19_id", "probability", "attack_probability"]
            )
            rows = len(table)
            if rows != self._rows[scale]:
                raise ScoresDiffer(f"{name} scored {rows} of {self._rows[scale]} flows")
            mix = np.bincount(table["predicted_class19_id"].to_numpy(), minlength=19) / rows
            means = tuple(float(np.mean(table[c].to_numpy())) for c in ("probability", "attack_probability"))
            other, expected = self._first.setdefault(scale, (name, (*mix, *means)))
            if np.abs(np.array((*mix, *means)) - np.array(expected)).max() > _TOLERANCE:
                found = json.dumps([*mix, *means])
                raise ScoresDiffer(f"{name} and {other} did not score alike: {found} and {json.dumps(expected)}")

        return check
