"""Whether a model may score flow logs of their window length.

Six features of the second release grow with the number of packets in a window: the number itself, the sum of their
lengths and four counts. In the data set this number names the class, 100 packets for floods and 10 for everything
else, so a model that uses these features finds no flood in windows of 10, and floods everywhere in windows of 100. Such
a model scores logs only of the one window length that all of its train rows had; trained on the official rows as they
are, of two lengths, none.
"""

from collections import Counter
from typing import Final

import numpy as np

from ids_spark.base.errors import InputError
from ids_spark.base.text import shown
from ids_spark.dataset.features import RELEASE_39
from ids_spark.features.preprocess import Preprocessor
from ids_spark.models.artifact import Model, ModelCard, model_name
from ids_spark.score.night_files import NightSource

_NUMBER: Final = "Number"
_LEAST_SHARE: Final = 0.05  # of the quantiles; the last windows of captures have other lengths
_NAMED: Final = 3


class WindowLengthMismatch(InputError):
    """Raised when a model uses features that grow with the window length, and was not trained on that of the logs."""


def trained_lengths(preprocessor: Preprocessor) -> tuple[int, ...]:
    """Return the window lengths of its train rows, those of a twentieth of them or more, ascending.

    They are read from the quantiles of `Number`, which a preprocessor has of every feature, used or not. Empty for the
    first release, whose `Number` is another thing.
    """
    if preprocessor.schema != RELEASE_39:
        return ()
    [number] = [feature for feature in preprocessor.features if feature.name == _NUMBER]
    values = np.rint(preprocessor.recipe.inverted(np.array(number.quantiles, dtype=np.float64)))
    counts = Counter(int(value) for value in values.tolist())
    return tuple(sorted(value for value, n in counts.items() if n >= _LEAST_SHARE * len(values)))


def following(card: ModelCard) -> tuple[str, ...]:
    """Return the features of a model of the second release that grow with the window length."""
    return tuple(feature for feature in card.features if feature in RELEASE_39.artefacts)


def check(source: NightSource, *models: Model) -> list[str]:
    """Check the window lengths of a night, and return notes on lengths that no train row had.

    Flow logs that no capture is known of have no known length, and are accepted.

    Raises:
        WindowLengthMismatch: a model uses features that grow with the window length, and not all of its train rows have
            that of the logs.
    """
    found = {file.extraction.window: file.name for file in source.files if file.extraction and not file.reason}
    notes = []
    for model in models:
        if not found or model.preprocessor.schema != RELEASE_39:
            continue
        card, lengths = model.card, trained_lengths(model.preprocessor)
        features = following(card)
        if features and (len(lengths) != 1 or set(lengths) != set(found)):
            raise WindowLengthMismatch(_refusal(source, found, card, features, lengths))
        if other := sorted(set(found) - set(lengths)):
            notes.append(
                f"windows of {_listed(other)} packets; {card.name} was trained on windows of {_listed(lengths)}, so its"
                " rates of false alarms may be others"
            )
    return notes


def _refusal(
    source: NightSource,
    found: dict[int, str],
    card: ModelCard,
    features: tuple[str, ...],
    lengths: tuple[int, ...],
) -> str:
    files = shown([f"{length} in {name}" for length, name in sorted(found.items())], _NAMED)
    expected = f"windows of {_listed(lengths)} packets only"
    remedy = f"extract with extract.window={_listed(lengths)}"
    if len(lengths) != 1:
        expected = f"no extracted logs: it was trained on windows of {_listed(lengths)} packets, where the length tells"
        expected += " the class"
        remedy = "train on rows joined to 100 packets (ingest.window=100) and extract with extract.window=100"
    operational = model_name(card.title, card.classes, "operational")
    return (
        f"event_date={source.event_date}: found windows of {_listed(sorted(found))} packets ({files}); model"
        f" {card.name} version {card.version} uses {', '.join(features)}, which grow with the length of a window;"
        f" expected {expected}. Nothing was scored; use a model of the feature set operational"
        f" (score.models=[{operational}]), or {remedy}"
    )


def _listed(lengths: tuple[int, ...] | list[int]) -> str:
    return " and ".join(str(length) for length in lengths) or "many lengths"
