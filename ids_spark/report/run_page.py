"""The newest scored models as pictures and one page that needs nothing else, also on a phone."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19, Level, class6_of
from ids_spark.evaluate.comparison import SHOWN, ScoredModel
from ids_spark.evaluate.metrics import AVERAGED
from ids_spark.lake.filesystem import write_bytes
from ids_spark.report import html, run_figures
from ids_spark.report.run_template import PAGE
from ids_spark.report.style import png

_NAMED: Final = 3  # confusions that a sentence names; the matrix shows them all
_SMALLER_IS_BETTER: Final = {"benign_false_positive_rate"}
_UNKNOWN: Final = "–"
_COMPUTED: Final = {*SHOWN, *(f"{name}_{kind}" for name in AVERAGED for kind in ("macro", "weighted"))}


@dataclass(frozen=True)
class Confusion:
    """Rows of one class that were taken for another.

    Attributes:
        label: Class of the rows.
        predicted: What they were taken for.
        rows: How many were.
        support: Rows of that label.
    """

    label: str
    predicted: str
    rows: int
    support: int

    def __str__(self) -> str:
        return _share(self.rows, self.support, f"{self.label} windows are taken for {self.predicted}")


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


def sentences(model: ScoredModel) -> list[str]:
    """Return in plain words what a model confuses, how often it raises a false alarm and what it could not learn."""
    said = [_alarms(model)]
    if model.confusion is not None:
        attacks = np.delete(model.confusion, BENIGN_ID, axis=0)
        if attacks.sum():
            said.append(_share(attacks[:, BENIGN_ID].sum(), attacks.sum(), "attack windows pass as benign") + ".")
        if model.classes > 2:  # else the two sentences above say it all
            said.append(_confused(confusions(model)))
    else:
        said.append("This run wrote no confusion matrix, so which classes were confused is unknown.")
    if model.card is None:
        where = f"models/{model.name}/{model.version}" if model.version else f"models/{model.name}"
        said.append(f"No model stands in {where}: its training is unknown, and there is no learning curve.")
        facts = [f"{name} {value:,.6g}" for name, value in model.averages.items() if name not in _COMPUTED]
        return [*said, f"The job that measured it states: {', '.join(facts)}."] if facts else said
    absent = model.card.classes_absent_in_train
    said.append(
        f"Absent in train, so never learnt: {', '.join(absent)}." if absent else "Train held rows of every class."
    )
    epochs, best = model.training.get("epochs"), model.training.get("best_epoch")
    if epochs is not None and best is not None:
        said.append(
            f"The last of its {epochs} epochs was the best: more epochs may still help."
            if best == epochs
            else f"Epoch {best} of {epochs} was the best, and its weights were kept."
        )
    return said


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
    return pictures


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
        models: From `reporting.newest`.
        split: That was scored.
        run_id: Of the report.
    """
    pictures = {file_name(model, kind): content for model in models for kind, content in draw(model).items()}
    for name, content in pictures.items():
        write_bytes(f"{folder}/{name}.png", content)
    write_bytes(f"{folder}/run.html", render_page(models, pictures, split, run_id).encode())


def file_name(model: ScoredModel, kind: str) -> str:
    """Return a name that no other model's picture or place has, and that is safe in a path whatever a title holds."""
    return f"{quote(model.name, safe='')}-{kind}"


def render_page(models: Sequence[ScoredModel], pictures: dict[str, bytes], split: str, run_id: str) -> str:
    """Return the page; every text is escaped.

    Args:
        models: From `reporting.newest`.
        pictures: PNG by `file_name`.
        split: That was scored.
        run_id: Of the report.
    """
    levels = [(classes, list(group)) for classes, group in itertools.groupby(models, lambda model: model.classes)]
    return html.render(
        PAGE,
        pictures,
        levels=levels,
        split=split,
        run_id=run_id,
        scored=sorted({model.run_id for model in models}),
        origins=sorted({model.data_origin for model in models}),
        figures=_FIGURES,
        winners={classes: best_of(group) for classes, group in levels},
        cell=_cell,
        sentences=sentences,
        confusions=confusions,
        file_name=file_name,
        least_percent=round(100 * run_figures.LEAST_SHARE),
    )


def best_of(models: Sequence[ScoredModel]) -> dict[str, float]:
    """Return the best value of each metric in `SHOWN` among models, where any has one."""
    found = {metric: [m.averages[metric] for m in models if metric in m.averages] for metric in SHOWN}
    return {k: min(values) if k in _SMALLER_IS_BETTER else max(values) for k, values in found.items() if values}


def _alarms(model: ScoredModel) -> str:
    rate = model.averages.get("benign_false_positive_rate")
    if rate is None or not model.benign:
        return "No benign window was scored, so its false alarms are unknown."
    return _share(round(rate * model.benign), model.benign, "benign windows raise an alarm") + "."


def _confused(found: Sequence[Confusion]) -> str:
    if not found:
        return "No window was taken for another class."
    said = f"Most often confused: {'; '.join(map(str, found[:_NAMED]))}."
    worst = max(found, key=lambda c: c.rows / c.support)
    return said if worst in found[:_NAMED] else f"{said} By share of the class: {worst}."


def _share(rows: int, of: int, what: str) -> str:
    return f"{rows:,} of {of:,} {what} ({rows / of:.1%})"


def _cell(model: ScoredModel, key: str) -> str:
    form = _FIGURES[key][1]
    value = model.averages.get(key) if key in SHOWN else model.training.get(key)
    if key == "seconds_per_epoch" and model.training.get("epochs"):
        value = model.training["seconds"] / model.training["epochs"]
    return _UNKNOWN if value is None else form(value)


_Form = Callable[[Any], str]
_FIGURES: Final[dict[str, tuple[str, _Form]]] = {
    **{
        metric: (heading, "{:.4f}".format)
        for metric, heading in zip(SHOWN, ("accuracy", "macro F1", "weighted F1", "benign FPR"), strict=True)
    },
    "parameters": ("parameters", "{:,}".format),
    "epochs": ("epochs", "{}".format),
    "best_epoch": ("best epoch", "{}".format),
    "seconds_per_epoch": ("s / epoch", "{:.2f}".format),
    "ranks": ("ranks", "{}".format),
    "batch_size": ("batch", "{:,}".format),
    "peak_learning_rate": ("learning rate", "{:g}".format),
}
"""Heading and form of each figure in the table of models."""
