"""`Preprocessor`: feature selection by standard deviation, saturation of infinities, standardisation.

Fitted once on train, stored as JSON, used unchanged by training and scoring: one formula, one implementation.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.errors import InputError
from ids_spark.moments import LARGEST, Moments
from ids_spark.row_hash import Floats
from ids_spark.schema import FEATURE_SCHEMAS, FeatureSchema, column_of

_FORMAT: Final = 1
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)


class PreprocessorUnusable(InputError):
    """Raised when a stored preprocessor is not of this format or fits no known feature schema."""


@dataclass(frozen=True)
class FittedFeature:
    """What was learned about one feature on the train split.

    Attributes:
        name: Official name.
        kept: Whether models see it.
        reason: Why it was kept or dropped.
        mean: After saturation.
        std: Population standard deviation after saturation.
        low: Smallest finite value; stands for -infinity.
        high: Largest finite value; stands for +infinity.
        infinite: Rows that held an infinity.
    """

    name: str
    kept: bool
    reason: str
    mean: float
    std: float
    low: float
    high: float
    infinite: int


@dataclass(frozen=True)
class Preprocessor:
    """A fitted preprocessor of one feature schema.

    Attributes:
        recipe: Its name.
        schema: Feature schema it was fitted on.
        min_std: Largest standard deviation at which a feature is dropped.
        rows: Rows it was fitted on: train, without duplicates and validation.
        data_origin: `measured` or `synthetic`.
        features: One for each feature of the schema, in its order.
    """

    recipe: str
    schema: FeatureSchema
    min_std: float
    rows: int
    data_origin: str
    features: tuple[FittedFeature, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """Official names of the kept features, in official order."""
        return tuple(f.name for f in self.features if f.kept)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of `features/`, in the order of `kept`."""
        return tuple(column_of(name) for name in self.kept)

    def transform(self, values: Mapping[str, Floats], names: Sequence[str] | None = None) -> list[NDArray[np.float32]]:
        """Saturate, standardise in double, then cast: z = (x - mean) / std, within the range of float32.

        Args:
            values: Raw columns by official name, each of shape (rows,), without NaN.
            names: Which kept features, in which order; default all.

        Returns:
            One float32 column for each name, finite for every input without NaN.

        Raises:
            KeyError: when a name was not kept or a column is missing.
        """
        fitted = {f.name: f for f in self.features if f.kept}
        scaled = []
        for name in self.kept if names is None else names:
            feature, column = fitted[name], values[name]
            if len(column) and (np.max(column) > LARGEST or np.min(column) < -LARGEST):
                column = np.where(column > LARGEST, feature.high, np.where(column < -LARGEST, feature.low, column))
            z = (column - feature.mean) / feature.std
            scaled.append(np.clip(z, -_FLOAT32_MAX, _FLOAT32_MAX, out=z).astype(np.float32))
        return scaled

    def to_json(self) -> str:
        """Return the preprocessor as JSON; equal preprocessors give equal text."""
        content = {
            "format": _FORMAT,
            "recipe": self.recipe,
            "feature_schema": self.schema.name,
            "min_std": self.min_std,
            "rows": self.rows,
            "data_origin": self.data_origin,
            "features": [asdict(feature) for feature in self.features],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def sha256(self) -> str:
        """Return the SHA-256 of `to_json`, in hex: names this preprocessor in models and audits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def from_json(text: str, where: str) -> Preprocessor:
    """Read what `to_json` wrote.

    Raises:
        PreprocessorUnusable: when it is not JSON, of another format, or its features are not those of its schema.
    """
    try:
        content: Any = json.loads(text)
        if content["format"] != _FORMAT:
            raise PreprocessorUnusable(
                f"{where}: format {content['format']}, expected format {_FORMAT}; rerun jobs/features.py"
            )
        schema = FEATURE_SCHEMAS[content["feature_schema"]]
        features = tuple(FittedFeature(**feature) for feature in content["features"])
        fitted = Preprocessor(
            content["recipe"], schema, content["min_std"], content["rows"], content["data_origin"], features
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PreprocessorUnusable(f"{where}: not a preprocessor ({error!r}); rerun jobs/features.py") from error
    if tuple(f.name for f in features) != schema.features:
        raise PreprocessorUnusable(f"{where}: its features are not those of {schema.name}; rerun jobs/features.py")
    return fitted


def fit(
    moments: Sequence[Moments], schema: FeatureSchema, recipe: str, min_std: float, data_origin: str
) -> Preprocessor:
    """Decide which features to keep and remember how to scale them.

    Args:
        moments: Of each feature of the schema over the train rows, infinities counted apart.
        schema: Feature schema.
        recipe: Name of the result.
        min_std: A feature with a population standard deviation at or below it is dropped.
        data_origin: `measured` or `synthetic`.

    Raises:
        PreprocessorUnusable: when there is no row, or no feature is left.
    """
    rows = moments[0].count + moments[0].above + moments[0].below
    if not rows:
        raise PreprocessorUnusable("there is no train row to fit on; check the split of the source")
    fitted = tuple(_fit_feature(name, m, min_std) for name, m in zip(schema.features, moments, strict=True))
    if not any(feature.kept for feature in fitted):
        raise PreprocessorUnusable(
            f"no feature of {rows} train rows varies by more than min_std {min_std:g}; lower features.min_std"
        )
    return Preprocessor(recipe, schema, min_std, rows, data_origin, fitted)


def _fit_feature(name: str, raw: Moments, min_std: float) -> FittedFeature:
    infinite = raw.above + raw.below
    if not raw.count:
        return FittedFeature(name, False, "every train value is infinite", 0.0, 0.0, 0.0, 0.0, infinite)
    m = raw.saturated()
    kept = m.std > min_std
    reason = f"standard deviation {m.std:.6g} {'>' if kept else '<='} min_std {min_std:g}"
    return FittedFeature(name, kept, reason, m.mean, m.std, m.low, m.high, infinite)
