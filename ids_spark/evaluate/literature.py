"""Published figures on CICIoMT2024, shown beside the figures of this lake, without a common ranking.

Every figure is for the official split of the first release. The averaging matters: a weighted F1 depends almost only on
the floods, a macro F1 equally on every class.
"""

from dataclasses import dataclass
from typing import Final, Literal

from ids_spark.dataset.taxonomy import Level

Averaging = Literal["macro", "weighted", "not stated"]
STUDY: Final = "Mohammad & Abdulrahman 2026, Table 8, doi 10.30526/39.1.4222"
DATASET: Final = "Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351"


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        model: Name of the model in the publication.
        source: The publication.
        classes: 2, 6 or 19.
        accuracy: Share, 0 to 1.
        averaging: Averaging of precision, recall and F1; `not stated` if the source does not state it.
        f1: Share, 0 to 1; None if the source gives none.
        benign_false_positive_rate: Share, 0 to 1; None if the source gives none.
    """

    model: str
    source: str
    classes: Level
    accuracy: float
    averaging: Averaging
    f1: float | None = None
    benign_false_positive_rate: float | None = None


_AKAR: Final = "Akar et al. 2025 (L2D2)"
_BEST: Final = "best known on the official split"
# The study states its false-positive rates with an accuracy of 99.6 %, its accuracy for 2 classes.
PUBLISHED: Final = (
    Published("DNN", STUDY, 2, 0.996, "weighted", None, 0.092),
    Published("GRU-DNN", STUDY, 2, 0.996, "weighted", None, 0.105),
    Published("DNN", DATASET, 2, 0.996, "macro"),
    Published("LSTM", _AKAR, 2, 1.0, "not stated"),
    Published("random forest", _BEST, 2, 0.9986, "macro"),
    Published("DNN", STUDY, 6, 0.989, "weighted"),
    Published("GRU-DNN", STUDY, 6, 0.995, "weighted"),
    Published("DNN", DATASET, 6, 0.734, "macro"),
    Published("LSTM", _AKAR, 6, 0.98, "not stated"),
    Published("random forest", _BEST, 6, 0.9986, "macro"),
    Published("DNN", STUDY, 19, 0.931, "weighted", 0.908),
    Published("GRU-DNN", STUDY, 19, 0.984, "weighted", 0.982),
    Published("DNN", DATASET, 19, 0.729, "macro", 0.522),
    Published("LSTM", _AKAR, 19, 0.95, "not stated", 0.95),
    Published("random forest", _BEST, 19, 0.9967, "macro", 0.921),
)
