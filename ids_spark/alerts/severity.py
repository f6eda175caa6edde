"""How bad a flagged flow or an incident of a class is: a table that the hospital decides, and the one we start from.

Severities carry the names of an OCSF finding (Open Cybersecurity Schema Framework, `severity_id` 1 to 5). Which class
has which is a judgement about patients and devices, not a measurement, so it is a file and not code.
"""

import difflib
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from ids_spark.alerts.policy_file import read_checked
from ids_spark.base.arrays import Ids
from ids_spark.base.errors import InputError
from ids_spark.config.score import Count, Section
from ids_spark.dataset.taxonomy import CLASS2, CLASS6, CLASS19, CLASSES, Level, UnknownClass, class2_of, class6_of

Severity = Literal["critical", "high", "medium", "low", "informational"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "medium", "low", "informational")
"""Worst first; the place of a severity here is its id."""
CATEGORIES: Final = tuple(dict.fromkeys((*CLASS6, *CLASS2)))
"""The six categories, and `Attack`, which is all that a model of two classes can say."""
NAMES: Final = frozenset((*CLASS19, *CATEGORIES))
"""What a model of any level may predict."""


class SeverityPolicyUnusable(InputError):
    """Raised when a severity policy cannot be read or is not as expected; the message lists every fault."""


def known_name(name: str) -> str:
    """Return the name of a class or category.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, sorted(NAMES), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join((*CATEGORIES, *CLASS19[1:-1]))}"
        raise ValueError(f"no class or category {name!r}; {hint}")
    return name


def _known_class(name: str) -> str:
    if known_name(name) not in CLASS19:
        raise ValueError(f"{name!r} is a category; its severity stands in categories")
    return name


def category_of(class_name: str) -> str:
    """Return the category of a class of any level; `Attack` for the attack class of a model of two classes.

    Raises:
        UnknownClass: no level has such a class.
    """
    if class_name not in NAMES:
        raise UnknownClass(f"{class_name!r} names no known class; expected one of {', '.join(sorted(NAMES))}")
    return class6_of(class_name)


def lineage_of(class_name: str) -> frozenset[str]:
    """Return a class's own name, its category's and `Benign` or `Attack`: what a rule may call it by.

    Raises:
        UnknownClass: no level has such a class.
    """
    category = category_of(class_name)
    return frozenset((class_name, category, class2_of(category)))


class Categories(Section):
    """Severity of every category.

    Attributes:
        Benign: Flagged flows whose most probable class is benign: many attacks together are less so.
        Attack: What a model of two classes flags, which cannot tell attacks apart.
        DDoS, DoS, MQTT, Recon, Spoofing: The categories of CICIoMT2024.
    """

    Benign: Severity
    Attack: Severity
    DDoS: Severity
    DoS: Severity
    MQTT: Severity
    Recon: Severity
    Spoofing: Severity


class Rise(Section):
    """Raises what meets every condition to at least a severity; never lowers.

    Attributes:
        to: That severity.
        of: Classes and categories that it speaks of, `Attack` for all but benign; empty: all.
        at_least_flows: Flows of an incident; a flow alone counts as one.
        at_least_probability: Attack probability of a flow; of an incident, the highest of its flows.
    """

    to: Severity
    of: tuple[Annotated[str, AfterValidator(known_name)], ...] = ()
    at_least_flows: Count | None = None
    at_least_probability: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _has_a_condition(self) -> "Rise":
        if self.at_least_flows is None and self.at_least_probability is None:
            raise ValueError("expected at_least_flows, at_least_probability or both; found neither")
        return self


class SeverityPolicy(Section):
    """The table: the severity of a class, else of its category, raised by every rise whose conditions are met.

    Attributes:
        categories: All of them, so that no class is without a severity.
        classes: Classes that differ from their category.
        raised: Rises; their order does not matter.
    """

    categories: Categories
    classes: dict[Annotated[str, AfterValidator(_known_class)], Severity] = Field(default_factory=dict)
    raised: tuple[Rise, ...] = ()

    def sha256(self) -> str:
        """Return a hash of what the policy says, in hex; comments and order of its file do not change it."""
        content = self.model_dump(mode="json")
        rises = ({**rise, "of": sorted(rise["of"])} for rise in content["raised"])
        content["raised"] = sorted(rises, key=lambda rise: json.dumps(rise, sort_keys=True))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def severity_ids(
        self,
        class_ids: NDArray[np.integer[Any]],
        level: Level,
        flows: NDArray[np.int64] | None = None,
        probability: NDArray[np.floating[Any]] | None = None,
    ) -> Ids:
        """Return severities as places in `SEVERITIES`, shape (rows,).

        Args:
            class_ids: Predicted classes at `level`, shape (rows,).
            level: 2, 6 or 19.
            flows: Flows that each row stands for; default: one.
            probability: Attack probability of each row; default: unknown, which meets no condition. NaN likewise.
        """
        return self._ids(CLASSES[level], np.asarray(class_ids), flows, probability)

    def severities(
        self,
        class_names: pa.Array | pa.ChunkedArray,
        flows: NDArray[np.int64] | None = None,
        probability: NDArray[np.floating[Any]] | None = None,
    ) -> pa.Array:
        """Return severities as text, for names of classes of any level; null for null. Else as `severity_ids`.

        Raises:
            UnknownClass: a name is that of no class.
        """
        column = class_names.combine_chunks() if isinstance(class_names, pa.ChunkedArray) else class_names
        encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        names = [*encoded.dictionary.to_pylist(), CLASS2[0]]  # the last is what nulls are looked up as, and masked
        codes = encoded.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
        ids = self._ids(names, codes, flows, probability)
        return pa.array(SEVERITIES).take(pa.array(ids, mask=np.asarray(encoded.is_null())))

    def _ids(
        self,
        names: Sequence[str],
        codes: NDArray[np.integer[Any]],
        flows: NDArray[np.int64] | None,
        probability: NDArray[np.floating[Any]] | None,
    ) -> Ids:
        base = [self.classes.get(name, getattr(self.categories, category_of(name))) for name in names]
        ids: Ids = np.array([SEVERITIES.index(severity) for severity in base], dtype=np.int32)[codes]
        for rise in self.raised:
            met = np.array([not rise.of or not lineage_of(name).isdisjoint(rise.of) for name in names])[codes]
            if rise.at_least_flows is not None:
                met &= (np.int64(1) if flows is None else flows) >= rise.at_least_flows
            if rise.at_least_probability is not None:
                certain = np.float64(np.nan) if probability is None else probability.astype(np.float64)
                met &= certain >= rise.at_least_probability
            ids[met] = np.minimum(ids[met], SEVERITIES.index(rise.to))
        return ids


DEFAULT: Final = SeverityPolicy(
    categories=Categories(
        Benign="low", Attack="medium", DDoS="high", DoS="high", MQTT="high", Recon="low", Spoofing="high"
    ),
    classes={
        "MQTT-DDoS-Connect_Flood": "critical",
        "MQTT-DDoS-Publish_Flood": "critical",
        "Recon-OS_Scan": "medium",
        "Recon-VulScan": "medium",
    },
    raised=(
        Rise(to="critical", of=("DDoS", "DoS", "MQTT"), at_least_flows=10_000),
        Rise(to="critical", of=("Spoofing",), at_least_flows=1_000),
        Rise(to="medium", of=("Recon",), at_least_flows=1_000),
    ),
)
"""Where a hospital starts from; `conf/severity.yaml` says the same with the reasons. The project's judgement."""


def read_severity_policy(uri: str | None) -> SeverityPolicy:
    """Return the policy of a YAML file, which states the whole table; the default where none is named.

    Raises:
        PolicyUnusable: lists every unknown class and severity, missing category and other fault.
    """
    return DEFAULT if uri is None else read_checked(uri, SeverityPolicy, SeverityPolicyUnusable, "conf/severity.yaml")
