"""Published figures on CICIoMT2024, shown beside the figures of this lake, without a common ranking.

Every figure is for the official split of the first release. The averaging matters: a weighted F1 depends almost only on
the floods, a macro F1 equally on every class. A weighted recall is the accuracy.
"""

from dataclasses import dataclass
from typing import Final, Literal

from ids_spark.dataset.taxonomy import Level

Averaging = Literal["macro", "weighted", "not stated"]
STUDY: Final = "Mohammad & Abdulrahman 2026, Table 8, doi 10.30526/39.1.4222"
DATASET: Final = "Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351"
AKAR: Final = "Akar et al. 2025 (L2D2)"
BEST: Final = "best known on the official split"

TEST_ROWS: Final = {"all": 1_614_182, "benign": 37_607, "duplicates": 2_065}
"""Of the official test split; duplicates are those that the study removed."""


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        model: Name of the model in the publication.
        source: The publication.
        classes: 2, 6 or 19.
        averaging: Averaging of precision, recall and F1; `not stated` if the source does not state it.
        accuracy: Share, 0 to 1.
        precision: Share, 0 to 1; None if the source gives none.
        recall: Likewise.
        f1: Likewise.
        benign_false_positive_rate: Likewise.
    """

    model: str
    source: str
    classes: Level
    averaging: Averaging
    accuracy: float
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    benign_false_positive_rate: float | None = None


@dataclass(frozen=True)
class Correct:
    """Counts of right predictions at 2 classes, as the study prints them.

    Attributes:
        model: Name of the model in the study.
        attacks: Attack rows predicted as attacks.
        benign: Benign rows predicted as benign.
    """

    model: str
    attacks: int
    benign: int

    @property
    def false_alarms(self) -> float:
        """Share of the benign rows of the official test split that are predicted as attacks.

        Duplicates are not subtracted: the rates that the study states, to .1 %, need at least 37,591 of the 37,607.
        """
        return 1 - self.benign / TEST_ROWS["benign"]

    @property
    def accuracy(self) -> float:
        """Share of the distinct test rows that are right."""
        return (self.attacks + self.benign) / (TEST_ROWS["all"] - TEST_ROWS["duplicates"])

    @property
    def f1_macro(self) -> float:
        """Macro F1, with every benign row of the official test split distinct."""
        attacks = TEST_ROWS["all"] - TEST_ROWS["duplicates"] - TEST_ROWS["benign"]
        wrong = attacks - self.attacks + TEST_ROWS["benign"] - self.benign
        return sum(2 * right / (2 * right + wrong) for right in (self.attacks, self.benign)) / 2


CORRECT: Final = (Correct("DNN", 1_571_981, 34_151), Correct("GRU-DNN", 1_572_343, 33_652))
_RATES: Final = {counts.model: counts.false_alarms for counts in CORRECT}

TABLE_8: Final = (
    Published("DNN", STUDY, 2, "weighted", 0.996, 0.996, 0.996, 0.996, _RATES["DNN"]),
    Published("GRU-DNN", STUDY, 2, "weighted", 0.996, 0.996, 0.996, 0.996, _RATES["GRU-DNN"]),
    Published("DNN", DATASET, 2, "macro", 0.996, 0.956, 0.948, 0.952),
    Published("LSTM (L2D2)", AKAR, 2, "not stated", 1.0, 1.0, 1.0, 1.0),
    Published("DNN", STUDY, 6, "weighted", 0.989, 0.991, 0.989, 0.990),
    Published("GRU-DNN", STUDY, 6, "weighted", 0.995, 0.996, 0.995, 0.995),
    Published("DNN", DATASET, 6, "macro", 0.734, 0.725, 0.693, 0.665),
    Published("LSTM (L2D2)", AKAR, 6, "not stated", 0.98, 0.98, 0.98, 0.98),
    Published("DNN", STUDY, 19, "weighted", 0.931, 0.924, 0.931, 0.908),
    Published("GRU-DNN", STUDY, 19, "weighted", 0.984, 0.986, 0.984, 0.982),
    Published("DNN", DATASET, 19, "macro", 0.729, 0.649, 0.553, 0.522),
    Published("LSTM (L2D2)", AKAR, 19, "not stated", 0.95, 0.96, 0.95, 0.95),
)
"""The study's Table 8: its own models, Dadkhah et al. and Akar et al., each at 2, 6 and 19 classes."""

PUBLISHED: Final = (
    *TABLE_8,
    Published("random forest", BEST, 2, "macro", 0.9986),
    Published("random forest", BEST, 6, "macro", 0.9986),
    Published("random forest", BEST, 19, "macro", 0.9967, f1=0.921),
)
"""Table 8, and the best figures known on the official split."""
