"""The work that every baseline does: which files, which labels, which tables, and what it writes at the end.

A baseline reads `SOURCE/train` and `SOURCE/test` (parquet, one file for each capture) and writes below TARGET
`flows/split=train|test`: typed flows in double with their class at three levels,
`features/split=train|validation|test`: deduplicated, scaled float32 features and three labels, shuffled,
`result.json`: means and population standard deviations of the kept features.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ids_spark.dataset.features import ORIGINAL_45
from ids_spark.dataset.taxonomy import CLASS2, CLASS6, CLASS19, class19_of, parents

FEATURES: Final = list(ORIGINAL_45.features)
LABELS: Final = ("label19", "label6", "label2")
TO_6: Final = parents(19, 6).tolist()
TO_2: Final = parents(19, 2).tolist()
NAMES_6: Final = [CLASS6[i] for i in TO_6]
NAMES_2: Final = [CLASS2[i] for i in TO_2]
VALIDATION_SHARE: Final = 0.2
MIN_STD: Final = 1e-8
SEED: Final = 7

__all__ = ["CLASS19", "FEATURES", "LABELS", "NAMES_2", "NAMES_6", "TO_2", "TO_6", "captures", "finish"]


def captures(source: str, split: str) -> list[tuple[str, int]]:
    """Return path and class id of each capture file of a split."""
    paths = sorted(Path(source, split).glob("*.parquet"))
    return [(str(path), CLASS19.index(class19_of(path.name))) for path in paths]


def finish(target: str, means: Mapping[str, float], stds: Mapping[str, float]) -> None:
    """Write `result.json`: the fitted values."""
    Path(target, "result.json").write_text(json.dumps({"means": dict(means), "stds": dict(stds)}, indent=2))
