"""The page of the scored models: findings, pictures, and one self-contained HTML file."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from rich.console import Console
from rich.table import Table

from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS2, CLASS19, Level, class6_of
from ids_spark.evaluate import calibration, night_metrics
from ids_spark.evaluate.metrics import AVERAGED
from ids_spark.evaluate.night_metrics import AT_NIGHT, BENIGN_AT_NIGHT, ONE_PERCENT
from ids_spark.evaluate.results import SHOWN, Metric, ScoredModel
from ids_spark.lake.filesystem import write_bytes
from ids_spark.report import html, run_figures
from ids_spark.report.format import cell
from ids_spark.report.style import png

_NAMED: Final = 3  # confusions in the text; the table and the matrix show more
_SMALLER_IS_BETTER: Final = {"benign_false_positive_rate", calibration.ERROR}
_LOWEST: Final = 3  # classes of least recall in the text
_UNKNOWN: Final = "–"
_SCORES: Final = {
    *SHOWN,
    *(f"{name}_{kind}" for name in AVERAGED for kind in ("macro", "weighted")),
    *(
        *night_metrics.RATES,
        night_metrics.RARE_RECALL,
        night_metrics.AREA,
        night_metrics.AT_NIGHT,
        night_metrics.BENIGN_AT_NIGHT,
    ),
    *(form.format(i + 1) for form in (calibration.CONFIDENCE, calibration.RIGHT) for i in range(calibration.BINS)),
}


@dataclass(frozen=True)
class Confusion:
    """Rows of one class that were predicted as another.

    Attributes:
        label: Class of the rows.
        predicted: Class that the model gave them.
        rows: Number of these rows.
        support: All rows of that label.
    """

    label: str
    predicted: str
    rows: int
    support: int

    @property
    def share(self) -> float:
        """Share of the rows of that label."""
        return self.rows / self.support


@dataclass(frozen=True)
class Findings:
    """Confusions and false alarms of a model, and the classes it could not learn.

    Attributes:
        false_alarms: Benign flows that were flagged; None where no benign flow was scored.
        missed_attacks: Attack flows that were predicted as benign; None without a confusion matrix or attacks.
        confusions: Every pair of classes that was confused, most rows first; None without a confusion matrix.
        directory: Where the model is stored, below the lake.
        measured: Further figures, by name, of a job that stores no model.
        absent: Classes without a row in train; None where the model is not stored.
        epochs: Number of trained epochs; None where unknown.
        best_epoch: The epoch whose weights were kept; None where unknown.
    """

    false_alarms: Confusion | None
    missed_attacks: Confusion | None
    confusions: Sequence[Confusion] | None
    directory: str
    measured: Mapping[str, float]
    absent: Sequence[str] | None
    epochs: int | None
    best_epoch: int | None

    @property
    def most_frequent(self) -> Sequence[Confusion]:
        """The confusions of most rows."""
        return (self.confusions or ())[:_NAMED]

    @property
    def highest_share(self) -> Confusion | None:
        """The confusion of the largest share of its class; None where it is one of `most_frequent`."""
        worst = max(self.confusions or (), key=lambda c: c.share, default=None)
        return None if worst in self.most_frequent else worst


def confusions(model: ScoredModel) -> list[Confusion]:
    """Return every pair of classes that was confused, most rows first; none without a confusion matrix."""
    if model.confusion is None:
        return []
    names, support = model.class_names, model.confusion.sum(axis=1)
    found = [
        Confusion(names[i], names[j], int(n), int(support[i]))
        for (i, j), n in np.ndenumerate(model.confusion)
        if i != j and n
    ]
    return sorted(found, key=lambda c: -c.rows)


def findings(model: ScoredModel) -> Findings:
    """Return the findings of one model."""
    rate = model.averages.get("benign_false_positive_rate")
    benign, attack = CLASS2
    alarms = None if rate is None or not model.benign else round(rate * model.benign)
    missed = None
    if model.confusion is not None:
        attacks = np.delete(model.confusion, BENIGN_ID, axis=0)
        if attacks.sum():
            missed = Confusion(attack, benign, int(attacks[:, BENIGN_ID].sum()), int(attacks.sum()))
    stored = model.card is not None
    return Findings(
        false_alarms=None if alarms is None else Confusion(benign, attack, alarms, model.benign),
        missed_attacks=missed,
        confusions=None if model.confusion is None else confusions(model),
        directory=f"models/{model.name}/{model.version}" if model.version else f"models/{model.name}",
        measured={} if stored else {k: v for k, v in model.averages.items() if k not in _SCORES},
        absent=model.card.classes_absent_in_train if model.card else None,
        epochs=model.training.get("epochs"),
        best_epoch=model.training.get("best_epoch"),
    )


def draw(model: ScoredModel) -> dict[str, bytes]:
    """Return those of the pictures `curves`, `classes`, `shares` and `counts` that the data allow."""
    pictures = {}
    history, best = model.training.get("history"), model.training.get("best_epoch")
    if history and best is not None:
        pictures["curves"] = png(run_figures.learning_curves(history, best))
    if model.confusion is not None:
        for name in ("shares", "counts"):
            spans, shares = categories(model.classes), name == "shares"
            pictures[name] = png(run_figures.confusion_map(model.confusion, model.class_names, spans, shares=shares))
    if model.scores:
        pictures["classes"] = png(run_figures.class_bars(model.scores))
    points = {rate: model.metric(name) for name, rate in night_metrics.RATES.items()}
    if any(point.value is not None for point in points.values()):
        night = model.metric(BENIGN_AT_NIGHT), model.metric(AT_NIGHT)
        pictures["recall"] = png(run_figures.recall_curve(points, night))
    recalls = {name: (model.metric(ONE_PERCENT, name), model.metric(AT_NIGHT, name)) for name in model.class_names}
    if recalls := {name: pair for name, pair in recalls.items() if any(m.value is not None for m in pair)}:
        pictures["recalls"] = png(run_figures.class_recalls(recalls))
    if bins := _bins(model):
        pictures["reliability"] = png(run_figures.reliability(bins))
    return pictures


def _bins(model: ScoredModel) -> list[tuple[float, Metric]]:
    """Return the mean probability of each bin of the calibration that has rows, and its share of right predictions."""
    found = []
    for i in range(calibration.BINS):
        probability = model.metric(calibration.CONFIDENCE.format(i + 1)).value
        if probability is not None:
            found.append((probability, model.metric(calibration.RIGHT.format(i + 1))))
    return found


def lowest_recalls(model: ScoredModel) -> list[tuple[str, Metric]]:
    """Return the attack classes of least recall at 1 % benign false alarms, the least first."""
    recalls = [(name, model.metric(ONE_PERCENT, name)) for name in model.class_names]
    known = [(metric.value, name, metric) for name, metric in recalls if metric.value is not None]
    return [(name, metric) for _, name, metric in sorted(known, key=lambda each: each[:2])[:_LOWEST]]


def categories(classes: Level) -> list[tuple[str, int, int]]:
    """Return name, first id and number of classes of each of the 6 categories; none at coarser levels."""
    if classes != len(CLASS19):
        return []
    spans, first = [], 0
    for name, members in itertools.groupby(CLASS19, class6_of):
        n = len(list(members))
        spans.append((name, first, n))
        first += n
    return spans


def write_page(folder: str, models: Sequence[ScoredModel], split: str, run_id: str) -> None:
    """Write the page and its pictures into a staged folder.

    Args:
        folder: URI.
        models: From `results.newest`.
        split: The split that was scored.
        run_id: Of the report.
    """
    own = [model for model in models if model.own_level]
    pictures = {file_name(model, kind): content for model in own for kind, content in draw(model).items()}
    for name, content in pictures.items():
        write_bytes(f"{folder}/{name}.png", content)
    write_bytes(f"{folder}/run.html", render_page(models, pictures, split, run_id).encode())


def print_comparison(models: Sequence[ScoredModel], split: str, console: Console) -> None:
    """Print metrics and training time of each model at each level; – where unknown."""
    synthetic = any(model.data_origin == "synthetic" for model in models)
    table = Table(title=f"Split {split}" + (": SYNTHETIC flows, not real traffic" if synthetic else ""))
    table.add_column("model")
    table.add_column("feature_set")
    shown = {metric: heading for metric, heading in zip(SHOWN, _HEADINGS, strict=True) if metric != "f1_weighted"}
    for heading in ("classes", *shown.values(), "epochs", "seconds"):
        table.add_column(heading, justify="right")
    for model in models:
        figures = [_formatted(model.averages.get(metric), ".4f") for metric in shown]
        trained = [_formatted(model.training.get("epochs"), "d"), _formatted(model.training.get("seconds"), ".0f")]
        table.add_row(*map(cell, (model.shown_title, model.feature_set, str(model.classes), *figures, *trained)))
    console.print(table)


def _formatted(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def file_name(model: ScoredModel, kind: str) -> str:
    """Return a name that is unique for model and kind, and safe in a path and a link for any title."""
    return f"{quote(model.name, safe='')}-{kind}"


def render_page(models: Sequence[ScoredModel], pictures: dict[str, bytes], split: str, run_id: str) -> str:
    """Return the page; every text is escaped.

    Args:
        models: From `results.newest`.
        pictures: PNG by `file_name`.
        split: The split that was scored.
        run_id: Of the report.
    """
    levels = [(classes, list(group)) for classes, group in itertools.groupby(models, lambda model: model.classes)]
    return html.render(
        "run.html.j2",
        pictures,
        levels=levels,
        split=split,
        run_id=run_id,
        scored=sorted({model.run_id for model in models}),
        data_origins=sorted({model.data_origin for model in models}),
        figures=_FIGURES,
        winners={classes: best_of(group) for classes, group in levels},
        cell=_cell,
        findings_of=findings,
        lowest_recalls=lowest_recalls,
        file_name=file_name,
        least_percent=round(100 * run_figures.LEAST_SHARE),
    )


def best_of(models: Sequence[ScoredModel]) -> dict[str, float]:
    """Return the best value of each metric in `SHOWN` among models, where any has one."""
    found = {metric: [m.averages[metric] for m in models if metric in m.averages] for metric in SHOWN}
    return {k: min(values) if k in _SMALLER_IS_BETTER else max(values) for k, values in found.items() if values}


def _cell(model: ScoredModel, key: str) -> str:
    form = _FIGURES[key][1]
    if key == "parameters" and "nodes" in model.training:  # of boosted trees
        weights = [f"{model.training[key]:,}"] if key in model.training else []
        return " + ".join([*weights, f"{model.training['nodes']:,} nodes"])
    value = model.averages.get(key) if key in SHOWN else model.training.get(key)
    if key == "seconds_per_epoch" and model.training.get("epochs") and "nodes" not in model.training:
        value = model.training["seconds"] / model.training["epochs"]
    return _UNKNOWN if value is None else form(value)


_HEADINGS: Final = ("accuracy", "macro F1", "weighted F1", "benign FPR", "recall 1 %", "ECE")
"""Of the metrics in `SHOWN`."""
_Form = Callable[[Any], str]
_FIGURES: Final[dict[str, tuple[str, _Form]]] = {
    **{metric: (heading, "{:.4f}".format) for metric, heading in zip(SHOWN, _HEADINGS, strict=True)},
    "parameters": ("parameters", "{:,}".format),
    "epochs": ("epochs", "{}".format),
    "best_epoch": ("best epoch", "{}".format),
    "seconds_per_epoch": ("s / epoch", "{:.2f}".format),
    "ranks": ("ranks", "{}".format),
    "batch_size": ("batch", "{:,}".format),
    "peak_learning_rate": ("learning rate", "{:g}".format),
}
"""Heading and form of each figure in the table of models."""
