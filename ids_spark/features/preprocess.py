"""`Preprocessor`: transform, feature selection by standard deviation, saturation of infinities, standardisation.

Fitted once on train rows, stored as JSON, and used by training and scoring without change.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base import json_text
from ids_spark.base.arrays import Floats
from ids_spark.base.errors import InputError
from ids_spark.dataset.features import FEATURE_SCHEMAS, FeatureSchema, FeatureSet, column_of
from ids_spark.features import ratios
from ids_spark.features.drift import Histogram, histogram_of
from ids_spark.features.moments import LARGEST, Moments

_FORMAT: Final = 2
_LONGEST_REASON: Final = 300
_TRANSFORMS: Final = ("none", "signed_log")
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_BLOCK: Final = 16_384  # rows; a block of a column stays in the cache of a core
_LOG_SCALE: Final = 1000.0  # spreads small shares and seconds, compresses large counts and bytes
GRID: Final = np.linspace(0.0, 1.0, 129)
"""Levels of the stored quantiles of each feature; the edges of 2, 4, … 128 equal bins are among them."""


class PreprocessorUnusable(InputError):
    """Raised when a stored preprocessor is of another format or feature schema, or none can be fitted."""


@dataclass(frozen=True)
class Recipe:
    """Settings of a preprocessor.

    Attributes:
        name: Name of the recipe and its table.
        schema: Feature schema of the flows.
        transform: `none`, or `signed_log`: sign(x) · log(1 + 1000 |x|).
        min_std: A feature with a population standard deviation at or below it is dropped.
        data_origin: `measured` or `synthetic`.
        ratios: Names of the derived features (`features.ratios`).
    """

    name: str
    schema: FeatureSchema
    transform: str
    min_std: float
    data_origin: str
    ratios: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all features: raw ones in official order, then derived ones."""
        return self.schema.features + self.ratios

    def transformed(self, column: Floats) -> Floats:
        """Return a raw column transformed; infinities stay infinite, NaN stays NaN."""
        if self.transform == "none":
            return column
        with np.errstate(over="ignore"):  # a value so large is infinite, as any beyond `moments.LARGEST`
            return np.copysign(np.log1p(_LOG_SCALE * np.abs(column)), column)

    def inverted(self, transformed: Floats) -> Floats:
        """Return raw values, to rounding, of transformed ones; infinities stay infinite, NaN stays NaN."""
        if self.transform == "none":
            return transformed
        return np.copysign(np.expm1(np.abs(transformed)) / _LOG_SCALE, transformed)


@dataclass(frozen=True)
class FittedFeature:
    """One feature fitted on train rows; all numbers refer to transformed values.

    Attributes:
        name: Official name, or that of a derived feature.
        kept: Whether it is an input of models.
        reason: Why it was kept or dropped.
        mean: Mean after saturation.
        std: Population standard deviation after saturation.
        low: Smallest finite value; replaces -infinity.
        high: Largest finite value; replaces +infinity.
        infinite: Rows with an infinity.
        quantiles: Quantiles at the levels of `GRID`, from a sample, infinities replaced.
        edges: Inner edges of about 10 bins, ascending, of its benign rows; a value at an edge is in the upper bin.
        shares: Share of the same rows in each bin, shape (len(edges) + 1,); empty without a sample.
    """

    name: str
    kept: bool
    reason: str
    mean: float
    std: float
    low: float
    high: float
    infinite: int
    quantiles: tuple[float, ...]
    edges: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Preprocessor:
    """A fitted recipe.

    Attributes:
        recipe: Its settings.
        rows: Rows it was fitted on: train, without duplicates and validation.
        features: One for each feature of the recipe, in its order.
        reference_rows: Sampled rows of the histograms: benign ones, or all where train has no benign row.
    """

    recipe: Recipe
    rows: int
    features: tuple[FittedFeature, ...]
    reference_rows: int

    @property
    def schema(self) -> FeatureSchema:
        """Feature schema it was fitted on."""
        return self.recipe.schema

    @property
    def data_origin(self) -> str:
        """Origin of its rows."""
        return self.recipe.data_origin

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the kept features: raw ones in official order, then derived ones."""
        return tuple(f.name for f in self.features if f.kept)

    def feature_set(self, feature_set: FeatureSet) -> tuple[str, ...]:
        """Return the kept features that a model of this feature set may use; derived ones are in each of them."""
        allowed = {*self.schema.feature_set(feature_set), *self.recipe.ratios}
        return tuple(name for name in self.kept if name in allowed)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of `features/`, in the order of `kept`."""
        return tuple(column_of(name) for name in self.kept)

    def transform(self, values: Mapping[str, Floats], names: Sequence[str] | None = None) -> list[NDArray[np.float32]]:
        """Transform, saturate, standardise in double, then cast to float32: z = (t(x) - mean) / std.

        Args:
            values: Raw columns by official name, each of shape (rows,), without NaN. Derived features are computed if
                they are not among them.
            names: Kept features in the order of the result; default all.

        Returns:
            One float32 column for each name, clipped to the range of float32: finite for every input without NaN.

        Raises:
            KeyError: when a name was not kept or a column is missing.
        """
        fitted = {f.name: f for f in self.features if f.kept}
        scaled = []
        for name in self.kept if names is None else names:
            feature, column = fitted[name], ratios.column(values, name)
            z = np.empty(len(column), dtype=np.float32)
            for start in range(0, len(column), _BLOCK):
                z[start : start + _BLOCK] = self._scaled(feature, column[start : start + _BLOCK])
            scaled.append(z)
        return scaled

    def _scaled(self, feature: FittedFeature, raw: Floats) -> Floats:
        """Return some rows, at least one, of a column scaled, within the range of float32."""
        column = self.recipe.transformed(raw)
        low, high = np.min(column), np.max(column)
        if high > LARGEST or low < -LARGEST:
            column = np.where(column > LARGEST, feature.high, np.where(column < -LARGEST, feature.low, column))
            low, high = np.min(column), np.max(column)
        z = column - feature.mean
        z /= feature.std
        if (high - feature.mean) / feature.std > _FLOAT32_MAX or (low - feature.mean) / feature.std < -_FLOAT32_MAX:
            np.clip(z, -_FLOAT32_MAX, _FLOAT32_MAX, out=z)
        return z

    def raw(self, name: str, scaled: float) -> float:
        """Return the raw value, to rounding, of a scaled one of a kept feature."""
        [feature] = [f for f in self.features if f.name == name]
        return float(self.recipe.inverted(np.array([scaled * feature.std + feature.mean]))[0])

    def median(self, name: str) -> float:
        """Return the raw median of a feature of the sampled train rows, kept or not; 0 if it had no finite value."""
        [feature] = [f for f in self.features if f.name == name]
        middle = feature.quantiles[len(GRID) // 2 :][:1]
        return float(self.recipe.inverted(np.array(middle))[0]) if middle else 0.0

    def edges(self, names: Sequence[str], bins: int) -> NDArray[np.float32]:
        """Return the edges of equally filled bins in scaled units, ascending, shape (len(names), bins + 1)."""
        fitted = {f.name: f for f in self.features}
        at = np.linspace(0.0, 1.0, bins + 1)
        rows = [(np.interp(at, GRID, fitted[n].quantiles) - fitted[n].mean) / fitted[n].std for n in names]
        return np.array(rows, dtype=np.float32)

    def histograms(self, names: Sequence[str]) -> list[Histogram]:
        """Return the train histogram of each feature in raw units, the reference for drift."""
        fitted = {f.name: f for f in self.features}
        found = []
        for f in (fitted[name] for name in names):
            low, *edges, high = self.recipe.inverted(np.array([f.low, *f.edges, f.high])).tolist()
            found.append(Histogram(f.name, tuple(edges), f.shares, low, high, self.reference_rows))
        return found

    def to_json(self) -> str:
        """Return the preprocessor as JSON; equal preprocessors give equal text."""
        content = {
            "format": _FORMAT,
            "recipe": self.recipe.name,
            "feature_schema": self.schema.name,
            "transform": self.recipe.transform,
            "min_std": self.recipe.min_std,
            "rows": self.rows,
            "reference_rows": self.reference_rows,
            "data_origin": self.data_origin,
            "features": [asdict(feature) for feature in self.features],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def sha256(self) -> str:
        """Return the SHA-256 of `to_json`, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def from_json(text: str | bytes, where: str) -> Preprocessor:
    """Return the preprocessor that `to_json` wrote.

    Raises:
        PreprocessorUnusable: when it is not JSON, of another format, its features are not those of its schema, or a
            number is missing, infinite, out of order or of another type.
    """
    try:
        content: Any = json_text.loads(text)
        if content["format"] != _FORMAT:
            raise PreprocessorUnusable(
                f"{where}: format {str(content['format'])[:80]}, expected format {_FORMAT}; rerun jobs/features.py"
            )
        schema = FEATURE_SCHEMAS[content["feature_schema"]]
        lists = ("quantiles", "edges", "shares")
        features = tuple(FittedFeature(**(f | {k: tuple(f[k]) for k in lists})) for f in content["features"])
        derived = tuple(f.name for f in features[len(schema.features) :])
        settings = content["transform"], content["min_std"], content["data_origin"]
        recipe = Recipe(content["recipe"], schema, *settings, derived)
        rows, reference_rows = content["rows"], content["reference_rows"]
        fault = _fault(recipe, rows, reference_rows) or next(filter(None, map(_fault_of, features)), "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(repr(error).split())[:_LONGEST_REASON]
        raise PreprocessorUnusable(f"{where} is not a preprocessor ({reason}); rerun jobs/features.py") from error
    if fault:
        raise PreprocessorUnusable(f"{where}: {fault}; rerun jobs/features.py")
    known = set(derived) <= set(ratios.names_of(schema)) and len(set(derived)) == len(derived)
    if tuple(f.name for f in features) != recipe.features or not known:
        raise PreprocessorUnusable(f"{where}: its features are not those of {schema.name}; rerun jobs/features.py")
    return Preprocessor(recipe, rows, features, reference_rows)


def _fault(recipe: Recipe, rows: object, reference_rows: object) -> str:
    """Return what is wrong with the settings and counts of a preprocessor that was read; empty if nothing."""
    if recipe.transform not in _TRANSFORMS or recipe.data_origin not in ("measured", "synthetic"):
        return f"transform {str(recipe.transform)[:40]!r} or data origin {str(recipe.data_origin)[:40]!r} is unknown"
    if not isinstance(recipe.name, str) or not _are_finite([recipe.min_std]):
        return "its recipe is no text, or min_std no finite number"
    if any(type(count) is not int or count < 0 for count in (rows, reference_rows)):
        return "rows or reference_rows is not a whole number of at least 0"
    return ""


def _fault_of(feature: FittedFeature) -> str:
    """Return what is wrong with a feature that was read; empty if nothing."""
    numbers = [feature.mean, feature.std, feature.low, feature.high, feature.infinite]
    if not isinstance(feature.name, str) or not isinstance(feature.reason, str) or type(feature.kept) is not bool:
        return f"feature {str(feature.name)[:40]!r}: name, reason or kept is of another type"
    if not _are_finite([*numbers, *feature.quantiles, *feature.edges, *feature.shares]):
        return f"feature {feature.name!r}: expected finite numbers"
    if feature.kept and (feature.std <= 0 or len(feature.quantiles) != len(GRID)):
        return f"feature {feature.name!r} is kept; expected a standard deviation above 0 and {len(GRID)} quantiles"
    if feature.shares and len(feature.shares) != len(feature.edges) + 1:
        return f"feature {feature.name!r}: {len(feature.shares)} shares do not fit {len(feature.edges)} edges"
    if any(a > b for a, b in itertools.pairwise(feature.edges)) or min(feature.shares, default=0.0) < 0:
        return f"feature {feature.name!r}: its edges are not ascending, or a share is negative"
    return ""


def _are_finite(numbers: Sequence[object]) -> bool:
    return all(type(x) in (int, float) and math.isfinite(x) for x in numbers)  # type: ignore[arg-type]


def fit(
    recipe: Recipe, moments: Sequence[Moments], sample: Floats, benign: NDArray[np.bool_] | None = None
) -> Preprocessor:
    """Return a preprocessor: which features are kept, and how they are scaled.

    Args:
        recipe: Settings of the preprocessor.
        moments: Moments of each transformed feature over the train rows, infinities counted separately.
        sample: Transformed train rows for quantiles and histograms, shape (rows, features); may hold infinities.
        benign: Which of these rows are benign, shape (rows,). If any is, histograms use these rows only, as most flows
            of a night are benign.

    Raises:
        PreprocessorUnusable: when there is no row, or no feature is left.
    """
    rows = moments[0].count + moments[0].above + moments[0].below
    if not rows:
        raise PreprocessorUnusable("found no train row to fit on; check that the source has a train split")
    reference = sample if benign is None or not benign.any() else sample[benign]
    columns = zip(recipe.features, moments, sample.T, reference.T, strict=True)
    fitted = tuple(_fit_feature(name, m, recipe.min_std, own, of) for name, m, own, of in columns)
    if not any(feature.kept for feature in fitted):
        raise PreprocessorUnusable(
            f"no feature of {rows} train rows varies by more than min_std {recipe.min_std:g}; lower features.min_std"
        )
    return Preprocessor(recipe, rows, fitted, len(reference))


def _fit_feature(name: str, raw: Moments, min_std: float, sample: Floats, reference: Floats) -> FittedFeature:
    infinite = raw.above + raw.below
    if not raw.count:
        reason, shares = "every train value is infinite", (1.0,) if len(sample) else ()
        return FittedFeature(name, False, reason, 0.0, 0.0, 0.0, 0.0, infinite, (), (), shares)
    m = raw.saturated()
    kept = m.std > min_std
    reason = f"standard deviation {m.std:.6g} {'>' if kept else '<='} min_std {min_std:g}"
    within = np.clip(sample, m.low, m.high)
    quantiles = np.quantile(within if len(within) else np.array([m.low, m.high]), GRID).tolist()
    histogram = histogram_of(np.clip(reference, m.low, m.high), m.low, m.high)
    return FittedFeature(name, kept, reason, m.mean, m.std, m.low, m.high, infinite, tuple(quantiles), *histogram)
