"""The leakage report: findings, a table, pictures, and one self-contained HTML file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from ids_spark.dataset.features import SOURCE_SPLITS
from ids_spark.dataset.taxonomy import CLASS19, find_class19
from ids_spark.evaluate.leakage import PRECISIONS, Figures, LeakagePlan, Measure, Pair
from ids_spark.evaluate.night_metrics import AT_NIGHT, BENIGN_AT_NIGHT
from ids_spark.evaluate.results import Metric, ScoredModel
from ids_spark.evaluate.subsets import OF_FILE
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.parquet import write_rows
from ids_spark.report import html
from ids_spark.report.leakage_figures import auc_map, duplicate_bars
from ids_spark.report.style import png

_TEXTS: Final = ("run_id", "data_origin", *Measure._fields)
LEAKAGE: Final = pa.schema([*((name, pa.string()) for name in _TEXTS), ("value", pa.float64())])
"""`reports/leakage/leakage.parquet`: tidy, one figure a row; `evaluate.leakage.Measure` names the figures."""
_LISTED_PAIRS: Final = 30
_SHOWN_MODELS: Final = 4
_OF_FILES: Final = ("accuracy", AT_NIGHT, BENIGN_AT_NIGHT)


@dataclass(frozen=True)
class Separation:
    """How well one feature separates one pair of classes.

    Attributes:
        feature: Official name.
        pair: Class names.
        ranges: AUC by ranges of values.
        order: AUC by order.
    """

    feature: str
    pair: Pair
    ranges: float
    order: float


class Findings:
    """Findings of the report: figures by name, and the features that separate classes best.

    Args:
        figures: From `leakage.measure`.
        plan: What was measured.
    """

    def __init__(self, figures: Figures, plan: LeakagePlan) -> None:
        self._figures, self.schema, self.plan = figures, plan.schema, plan
        self.measured = [pair for pair in plan.pairs if all(self.count("sampled", "train", name) for name in pair)]
        self.absent = [
            (pair, [name for name in pair if not self.count("sampled", "train", name)])
            for pair in plan.pairs
            if pair not in self.measured
        ]

    def count(self, what: str, split: str | None = None, class_name: str | None = None) -> int:
        """Return a count; 0 where nothing was found."""
        return int(self._figures.get(Measure(what, split, class_name), 0))

    def total(self, what: str, split: str) -> int:
        """Return a count over all classes."""
        return sum(self.count(what, split, name) for name in CLASS19)

    def by_class(self, what: str) -> dict[tuple[str, str], int]:
        """Return the counts that are not 0 by (split, class)."""
        found = {(split, name): self.count(what, split, name) for split in SOURCE_SPLITS for name in CLASS19}
        return {key: n for key, n in found.items() if n}

    def of_feature(self, what: str, feature: str) -> float:
        """Return a figure of one feature over train; NaN without train rows."""
        return self._figures.get(Measure(what, "train", feature=feature), math.nan)

    def separation(self, feature: str, pair: Pair) -> Separation:
        """Return how well a feature separates a measured pair."""
        by_ranges, by_order = (self._figures[Measure(w, "train", *pair, feature)] for w in ("auc_ranges", "auc"))
        return Separation(feature, pair, by_ranges, by_order)

    def best(self, pair: Pair, *, operational: bool = False) -> Separation:
        """Return the feature that separates a pair best, of all features or of the operational feature set."""
        features = self.schema.feature_set("operational" if operational else "paper")
        return max((self.separation(name, pair) for name in features), key=lambda t: t.ranges)

    def strongest(self, feature: str) -> Separation | None:
        """Return the pair that a feature separates best; None when no pair was measured."""
        return max((self.separation(feature, pair) for pair in self.measured), key=lambda t: t.ranges, default=None)

    def mean(self, feature: str) -> float:
        """Return the mean AUC by ranges over the measured pairs."""
        return float(np.mean([self.separation(feature, pair).ranges for pair in self.measured]))

    def strongest_feature(self) -> Separation | None:
        """Return the feature that separates any pair best; if equal at 3 decimals, the one with the higher mean."""
        found = [t for name in self.schema.features if (t := self.strongest(name)) is not None]
        return max(found, key=lambda t: (round(t.ranges, 3), self.mean(t.feature)), default=None)

    def pairs_of(self, what: str, split: str | None) -> list[tuple[str, str, int]]:
        """Return (class, other class, vectors), highest count first."""
        found = [
            (str(m.class_name), str(m.other_class), int(n))
            for m, n in self._figures.items()
            if m.what == what and m.split == split and m.class_name is not None
        ]
        return sorted(found, key=lambda row: (-row[2], row[0], row[1]))

    def pairs_won(self, feature: str) -> int:
        """Return the number of measured pairs in which a feature is the best."""
        return sum(self.best(pair).feature == feature for pair in self.measured)

    def constant_features(self) -> list[str]:
        """Return the features whose standard deviation over train is too small to keep them."""
        return [name for name in self.schema.features if self.of_feature("dropped", name) == 1]


class CaptureFile:
    """What the models predict for the test rows of one capture file.

    Args:
        name: Of the file.
        models: Those that are shown, with the figures of their subsets.
    """

    def __init__(self, name: str, models: Sequence[ScoredModel]) -> None:
        self.name = name
        self.class_name = find_class19(name.rsplit("/", 1)[-1]) or ""
        self._figures = [{m: model.subsets.get((f"{OF_FILE}{name}", m)) for m in _OF_FILES} for model in models]

    @property
    def rows(self) -> int:
        """Distinct rows with a label."""
        return max((each["accuracy"].support or 0 for each in self._figures if each["accuracy"]), default=0)

    def cells(self) -> list[Metric | None]:
        """Return for each model the share of right predictions, and the share that nights flag."""
        return [cell for each in self._figures for cell in (each["accuracy"], each[AT_NIGHT] or each[BENIGN_AT_NIGHT])]


def files_of(models: Sequence[ScoredModel]) -> list[CaptureFile]:
    """Return the capture files that the models have figures of, in the order of classes and names."""
    names = {subset.removeprefix(OF_FILE) for model in models for subset, _ in model.subsets if OF_FILE in subset}
    found = [CaptureFile(name, models) for name in names]
    order = {name: i for i, name in enumerate(CLASS19)}
    return sorted(found, key=lambda file: (order.get(file.class_name, len(order)), file.name))


def shown_models(models: Sequence[ScoredModel]) -> list[ScoredModel]:
    """Return the models of the table of capture files: those of the finest level, highest macro F1 first."""
    finest = max((model.classes for model in models), default=2)
    found = [model for model in models if model.classes == finest]
    return sorted(found, key=lambda model: -model.averages.get("f1_macro", 0.0))[:_SHOWN_MODELS]


def write_page(
    folder: str, findings: Findings, models: Sequence[ScoredModel], figures: Figures, run_id: str, data_origin: str
) -> None:
    """Write the table, the pictures and the page into a staged folder.

    Args:
        folder: URI.
        findings: Of the flows.
        models: Scored models with the figures of their subsets; may be empty.
        figures: From `leakage.measure`.
        run_id: Of the run.
        data_origin: Of the flows.
    """
    shared = {"run_id": run_id, "data_origin": data_origin}
    rows = [shared | name._asdict() | {"value": float(value)} for name, value in sorted(figures.items(), key=str)]
    write_rows(f"{folder}/leakage.parquet", rows, LEAKAGE)
    pictures = draw(findings)
    for name, content in pictures.items():
        write_bytes(f"{folder}/{name}.png", content)
    write_bytes(f"{folder}/leakage.html", render_page(findings, models, pictures, run_id, data_origin).encode())


def draw(findings: Findings) -> dict[str, bytes]:
    """Return the pictures by name; no heat map when no pair could be measured."""
    classes = [name for name in CLASS19 if any(findings.count("flows", split, name) for split in SOURCE_SPLITS)]
    counts = {
        split: {p: [findings.count(f"duplicates_{p}", split, name) for name in classes] for p in PRECISIONS}
        for split in SOURCE_SPLITS
    }
    totals = {split: [findings.count("flows", split, name) for name in classes] for split in SOURCE_SPLITS}
    pictures = {"duplicates": duplicate_bars(classes, counts, totals)}
    if not findings.measured:
        return {name: png(figure) for name, figure in pictures.items()}
    features = sorted(findings.schema.features, key=lambda name: -findings.mean(name))
    found = [[findings.separation(name, pair) for pair in findings.measured] for name in features]
    names = [f"{a} |\n{b}" for a, b in findings.measured]
    for picture, kind in (("auc_ranges", "ranges"), ("auc_order", "order")):
        values = np.array([[getattr(t, kind) for t in row] for row in found])
        pictures[picture] = auc_map(values, features, names, findings.schema.artefacts)
    return {name: png(figure) for name, figure in pictures.items()}


def render_page(
    findings: Findings, models: Sequence[ScoredModel], pictures: dict[str, bytes], run_id: str, data_origin: str
) -> str:
    """Return the page; every text is escaped."""
    artefacts = [name for name in findings.schema.features if name in findings.schema.artefacts]
    return html.render(
        "leakage.html.j2",
        pictures,
        f=findings,
        models=models,
        shown_models=shown_models(models),
        files=files_of(shown_models(models)),
        run_id=run_id,
        data_origins=[data_origin],
        listed_pairs=_LISTED_PAIRS,
        splits=SOURCE_SPLITS,
        classes=[name for name in CLASS19 if any(findings.count("flows", split, name) for split in SOURCE_SPLITS)],
        artefacts=[(name, findings.strongest(name)) for name in artefacts],
        features=sorted(findings.schema.features, key=lambda name: _nan_last(findings.of_feature("std", name))),
    )


def _nan_last(value: float) -> tuple[bool, float]:
    return (math.isnan(value), value)
