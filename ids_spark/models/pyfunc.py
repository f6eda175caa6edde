"""A model directory as MLflow loads it (`python_function`): flows in, class probabilities out.

MLflow imports this module by its name, which `MLmodel` states, and calls `_load_pyfunc`; so this package must be
installed where the model is loaded. Nothing is unpickled: the directory is read and checked as by every job.
"""

from typing import Any

import numpy as np
import pandas as pd

from ids_spark.models import artifact, inference
from ids_spark.models.artifact import Model

_BATCH_ROWS = 16_384


class Probabilities:
    """The class probabilities of flows.

    Args:
        model: The model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, flows: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return a column for each class, with the index of the flows; a row with a missing feature has only NaN.

        Args:
            flows: Raw features by official name, see `ModelCard.source_features`; other columns are ignored.
            params: Not used; MLflow passes it.

        Raises:
            KeyError: a feature is missing.
        """
        del params
        card = self._model.card
        columns = {name: flows[name].to_numpy(np.float64) for name in card.source_features}
        known = ~np.any([np.isnan(column) for column in columns.values()], axis=0)
        found = np.full((len(flows), card.classes), np.nan, dtype=np.float32)
        if known.any():
            values = {name: column[known] for name, column in columns.items()}
            matrix = np.stack(self._model.preprocessor.transform(values, card.features), axis=1)
            found[known] = inference.forward(self._model, matrix, _BATCH_ROWS)
        return pd.DataFrame(found, columns=list(card.class_names), index=flows.index)


def _load_pyfunc(path: str) -> Probabilities:
    """Return the model of a directory; MLflow calls this.

    Raises:
        ModelUnusable: the directory was changed.
    """
    return Probabilities(artifact.read_model(path))
