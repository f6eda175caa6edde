"""What a model does with windows of captures and with test rows; figures of one run of the benchmark."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ids_spark.adapt.gate import Comparison
from ids_spark.adapt.replay import Replayed
from ids_spark.base.arrays import as_rows
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.models import inference, threshold
from ids_spark.models.artifact import Model

SYN_FLOODS: Final = ("DDoS-SYN", "DoS-SYN")
_BATCH: Final = 16_384


@dataclass(frozen=True)
class Windows:
    """What a model does with windows.

    Attributes:
        rows: Number of windows.
        called: Those whose most probable class is an attack.
        flagged: Those at or above the operating point of the model.
        classes: Windows by most probable class.
        mostly_called: Captures of which more than half of the windows are called attack.
        captures: Number of captures.
    """

    rows: int
    called: int
    flagged: int
    classes: dict[str, int] = field(default_factory=dict)
    mostly_called: int = 0
    captures: int = 0

    @property
    def called_share(self) -> float:
        """Share of windows that are called attack."""
        return self.called / self.rows

    @property
    def flagged_share(self) -> float:
        """Share of windows that are flagged."""
        return self.flagged / self.rows

    def named(self, names: Sequence[str]) -> float:
        """Return the share of windows whose most probable class is one of these."""
        return sum(self.classes.get(name, 0) for name in names) / self.rows


@dataclass(frozen=True)
class HeldOutRows:
    """What a model does with the test rows of the data set; recalls are shares called an attack of any class."""

    macro_f1: float
    attack_recall: float
    recalls: dict[str, float]
    flagged: dict[str, float]


@dataclass(frozen=True)
class Run:
    """Figures of a model on unseen halves or later blocks.

    Attributes:
        everyday: Windows that the model has not seen.
        scan: Windows of the scan.
        floods: Windows of the generated flood, by packets of a window.
        test: Test rows.
        false_incidents: Of the night of unseen windows.
        false_shown: Of these, on the page while the site is learning.
        threshold: Operating point, a log-odds of attack.
        statement: On what it rests.
        lost: Largest fall of a class's recall against the model of the laboratory; None for that model itself.
        accepted: Whether the gate would accept it; None for the model of the laboratory.
        seconds: To train.
    """

    everyday: Windows
    scan: Windows
    floods: dict[int, Windows]
    test: HeldOutRows
    false_incidents: int
    false_shown: int
    threshold: float
    statement: str
    lost: str | None = None
    accepted: bool | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def windows(model: Model, found: pa.Table) -> Windows:
    """Score windows."""
    values = {name: found[name].to_numpy().astype(np.float64) for name in model.card.source_features}
    matrix = as_rows(model.preprocessor.transform(values, list(model.card.features)))
    probabilities = inference.forward(model, matrix, _BATCH)
    predicted = probabilities.argmax(axis=1)
    called, captures = predicted != BENIGN_ID, np.array(found["capture_file"].to_pylist())
    shares = [called[captures == name].mean() for name in np.unique(captures)]
    names, counts = np.unique(predicted, return_counts=True)
    return Windows(
        len(found),
        int(called.sum()),
        int((threshold.attack_logits(probabilities) >= operating_point(model)).sum()),
        {model.card.class_names[i]: int(n) for i, n in zip(names, counts, strict=True)},
        sum(bool(share > 0.5) for share in shares),
        len(shares),
    )


def operating_point(model: Model) -> float:
    """Return the attack logit from which a model flags flows."""
    if model.validation_scores is None:
        raise ValueError(f"{model.card.name} has no validation scores")
    return model.validation_scores.levels()[0]


def statement(model: Model) -> str:
    """Return on what the threshold of a model rests."""
    return "" if model.validation_scores is None else model.validation_scores.operating_point().statement()


def test_rows(replayed: Replayed, place: int) -> HeldOutRows:
    """Return the figures of a model of a replay."""
    confusion, rows, flagged = replayed.confusions[place], replayed.rows(), replayed.flagged(place)
    of_class = confusion.sum(axis=1)
    known = [i for i in range(len(confusion)) if of_class[i] and i != BENIGN_ID]
    recalls = {CLASS19[i]: 1 - confusion[i, BENIGN_ID] / of_class[i] for i in known}
    return HeldOutRows(
        replayed.macro_f1(place) or 0.0,
        replayed.attack_recall(place) or 0.0,
        {name: float(value) for name, value in recalls.items()},
        {CLASS19[i]: float(flagged[i] / rows[i]) for i in range(len(CLASS19)) if rows[i]},
    )


def largest_fall(compared: Comparison) -> str:
    """Return the class whose recall at the operating point fell most, as text; empty without a class."""
    return str(min(compared.classes, key=lambda each: each.change)) if compared.classes else ""
