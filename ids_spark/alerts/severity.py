"""Severity of flagged flows and incidents by class: a policy file of the hospital, and a default policy.

Severities have the names of an OCSF finding (Open Cybersecurity Schema Framework, `severity_id` 1 to 5). The severity
of a class depends on patients and devices and cannot be measured, so it is configured in a file.
"""

import difflib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from ids_spark.alerts.policy_file import read_checked
from ids_spark.base.arrays import Ids
from ids_spark.base.errors import InputError
from ids_spark.config.score import Count, Section
from ids_spark.dataset.taxonomy import (
    BENIGN_ID,
    CLASS2,
    CLASS6,
    CLASS19,
    QUARANTINED,
    UNKNOWN,
    UnknownClass,
    class2_of,
    class6_of,
)

log = logging.getLogger(__name__)

Severity = Literal["critical", "high", "medium", "low", "informational"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "medium", "low", "informational")
"""Worst first; the index of a severity is its id."""
CATEGORIES: Final = tuple(dict.fromkeys((*CLASS6, *CLASS2, UNKNOWN, QUARANTINED)))
"""The six categories, `Attack`, the attack class of a model of two classes, `Unknown` and `Quarantined`."""
NAMES: Final = frozenset((*CLASS19, *CATEGORIES))
"""All classes that a model of any level may predict, `Unknown` and `Quarantined`."""


class SeverityPolicyUnusable(InputError):
    """Raised when a severity policy cannot be read or is invalid; the message lists every fault."""


def known_name(name: str) -> str:
    """Return the name of a class or category.

    Raises:
        ValueError: there is no class or category of that name.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, sorted(NAMES), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join((*CATEGORIES, *CLASS19[1:-1]))}"
        raise ValueError(f"no class or category {name!r}; {hint}")
    return name


def _known_class(name: str) -> str:
    if known_name(name) not in CLASS19:
        raise ValueError(f"{name!r} is a category; set its severity in categories")
    return name


def category_of(class_name: str) -> str:
    """Return the category of a class of any level; `Attack`, `Unknown` and `Quarantined` are categories of
    their own.

    Raises:
        UnknownClass: no level has such a class.
    """
    if class_name not in NAMES:
        raise UnknownClass(f"{class_name!r} is not a known class; expected one of {', '.join(sorted(NAMES))}")
    return class6_of(class_name)


def lineage_of(class_name: str) -> frozenset[str]:
    """Return all names by which a rule can select a class: its own, its category, and `Benign` or `Attack`.

    `Quarantined` has its own name alone: nobody knows what is in rows that were refused, so a rule has to name them.

    Raises:
        UnknownClass: no level has such a class.
    """
    category = category_of(class_name)
    if category == QUARANTINED:
        return frozenset((QUARANTINED,))
    return frozenset((class_name, category, class2_of(category)))


class Categories(Section):
    """Severity of every category of attacks.

    Attributes:
        Attack: Attacks found by a model of two classes, which does not distinguish them.
        DDoS, DoS, MQTT, Recon, Spoofing: The categories of CICIoMT2024.
        Unknown: Flows that resemble neither benign flows nor a known attack; default: medium.
        Quarantined: Rows that were refused, far more of them than usual; default: medium.
    """

    Attack: Severity
    DDoS: Severity
    DoS: Severity
    MQTT: Severity
    Recon: Severity
    Spoofing: Severity
    Unknown: Severity = "medium"
    Quarantined: Severity = "medium"

    @model_validator(mode="before")
    @classmethod
    def _without_benign(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and CLASS2[BENIGN_ID] in content:
            log.warning(
                "severity policy: categories.Benign has no effect, because the class of a flagged flow is an attack;"
                " remove it; version 0.4 will refuse it"
            )
            return {name: severity for name, severity in content.items() if name != CLASS2[BENIGN_ID]}
        return content


class Escalation(Section):
    """Raises severity to at least `to` when all conditions hold; never lowers it.

    Attributes:
        to: Minimum severity.
        of: Classes and categories it applies to, `Attack` for all except benign; empty: all.
        at_least_flows: Minimum flows of an incident; a single flow counts as 1.
        at_least_probability: Minimum attack probability of a flow; for an incident, of its highest flow.
    """

    to: Severity
    of: tuple[Annotated[str, AfterValidator(known_name)], ...] = ()
    at_least_flows: Count | None = None
    at_least_probability: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _has_a_condition(self) -> "Escalation":
        if self.at_least_flows is None and self.at_least_probability is None:
            raise ValueError("expected at_least_flows, at_least_probability or both; found neither")
        return self


class SeverityPolicy(Section):
    """The severity of each class, else of its category, raised by every escalation whose conditions hold.

    Attributes:
        categories: Severity of every category, so that every attack has one.
        classes: Classes whose severity differs from that of their category.
        raised: Escalations; their order does not matter.
    """

    categories: Categories
    classes: dict[Annotated[str, AfterValidator(_known_class)], Severity] = Field(default_factory=dict)
    raised: tuple[Escalation, ...] = ()

    def sha256(self) -> str:
        """Return the SHA-256 of the policy's content, in hex; comments and order in the file do not change it."""
        content = self.model_dump(mode="json")
        escalations = ({**each, "of": sorted(each["of"])} for each in content["raised"])
        content["raised"] = sorted(escalations, key=lambda each: json.dumps(each, sort_keys=True))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def severity_ids(
        self,
        class_ids: NDArray[np.integer[Any]],
        names: Sequence[str],
        flows: NDArray[np.int64] | None = None,
        probability: NDArray[np.floating[Any]] | None = None,
    ) -> Ids:
        """Return severities as indices of `SEVERITIES`, shape (rows,).

        Args:
            class_ids: Predicted attack classes, shape (rows,). Benign, which is never flagged, is informational.
            names: Name of each class id.
            flows: Flows of each row; default: 1.
            probability: Attack probability of each row; unknown (the default) and NaN meet no condition.
        """
        return self._ids(names, np.asarray(class_ids), flows, probability)

    def severities(
        self,
        class_names: pa.Array | pa.ChunkedArray,
        flows: NDArray[np.int64] | None = None,
        probability: NDArray[np.floating[Any]] | None = None,
    ) -> pa.Array:
        """Return severities as text for class names of any level; null for null. Otherwise as `severity_ids`.

        Raises:
            UnknownClass: a name is not a known class.
        """
        column = class_names.combine_chunks() if isinstance(class_names, pa.ChunkedArray) else class_names
        encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        names = [*encoded.dictionary.to_pylist(), CLASS2[0]]  # nulls are looked up as the last name, then masked
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
        base = [self._severity_of(name) for name in names]
        ids: Ids = np.array([SEVERITIES.index(severity) for severity in base], dtype=np.int32)[codes]
        for escalation in self.raised:
            met = np.array([not escalation.of or not lineage_of(name).isdisjoint(escalation.of) for name in names])[
                codes
            ]
            if escalation.at_least_flows is not None:
                met &= (np.int64(1) if flows is None else flows) >= escalation.at_least_flows
            if escalation.at_least_probability is not None:
                known = np.float64(np.nan) if probability is None else probability.astype(np.float64)
                met &= known >= escalation.at_least_probability
            ids[met] = np.minimum(ids[met], SEVERITIES.index(escalation.to))
        return ids

    def _severity_of(self, name: str) -> Severity:
        severity: Severity = getattr(self.categories, category_of(name), SEVERITIES[-1])
        return self.classes.get(name, severity)


DEFAULT: Final = SeverityPolicy(
    categories=Categories(
        Attack="medium",
        DDoS="high",
        DoS="high",
        MQTT="high",
        Recon="low",
        Spoofing="high",
        Unknown="medium",
        Quarantined="medium",
    ),
    classes={
        "MQTT-DDoS-Connect_Flood": "critical",
        "MQTT-DDoS-Publish_Flood": "critical",
        "Recon-OS_Scan": "medium",
        "Recon-VulScan": "medium",
    },
    raised=(
        Escalation(to="critical", of=("DDoS", "DoS", "MQTT"), at_least_flows=10_000),
        Escalation(to="critical", of=("Spoofing",), at_least_flows=1_000),
        Escalation(to="medium", of=("Recon",), at_least_flows=1_000),
    ),
)
"""The project's proposal; `conf/severity.yaml` has the same content with reasons."""


def read_severity_policy(uri: str | None) -> SeverityPolicy:
    """Return the complete policy of a YAML file, or the default if no file is configured.

    Raises:
        SeverityPolicyUnusable: lists every unknown class and severity, missing category and other fault.
    """
    return DEFAULT if uri is None else read_checked(uri, SeverityPolicy, SeverityPolicyUnusable, "conf/severity.yaml")
