"""Quality rules for the flows of each feature schema.

A row that violates a `reject` rule goes to quarantine under the name of the rule; a violated `warn` rule is counted
in the audit. Ranges follow from the meaning of the columns (Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351);
identities hold in every real row that was checked (57,074 of the first release, 64,261 of the second).
Rules that a few real rows violate only warn. Infinity is within every range without an upper limit: an infinite rate is
valid, as it comes from a window of zero duration. In flow logs of nights any other feature has to be finite:
preprocessing saturates infinities, and one in `IAT` made 97 % of the flagged flows of a synthetic night look benign.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from ids_spark.base.arrays import Floats, Mask
from ids_spark.dataset.features import (
    FEATURE_SCHEMAS,
    FLAGS,
    ORIGINAL_45,
    PROTOCOLS,
    RELEASE_39,
    SAME_FEATURE,
    FeatureSchema,
)

Columns = Mapping[str, Floats]
Severity = Literal["reject", "warn"]
_NOTHING: Final = np.empty(0)
_LARGEST: Final = float(np.finfo(np.float64).max)
_TOLERANCE: Final = 1e-6  # relative to the size of the terms; printed values carry 15 digits


@dataclass(frozen=True)
class Rule:
    """A condition that a flow should meet.

    Attributes:
        name: Written to quarantine and audit.
        severity: `reject` or `warn`.
        features: Features that the rule uses.
        statement: The rule in words.
        broken: Given columns of shape (rows,), returns for each feature at fault which rows violate the rule; features
            without a fault may be absent. NaN violates no rule.
        each: Whether it checks each feature separately, so that some of them may be absent.
    """

    name: str
    severity: Severity
    features: tuple[str, ...]
    statement: str
    broken: Callable[[Columns], dict[str, Mask]]
    each: bool = False

    def applies(self, columns: Columns) -> bool:
        """Return whether the rule, or part of it, can be checked with these columns."""
        return self.each or all(feature in columns for feature in self.features)


def _slack(values: Floats) -> Floats:
    """Return the tolerance of each value, shape (rows,); it is finite, so that an infinite value can break a rule."""
    slack: Floats = _TOLERANCE * np.clip(np.abs(values), 1.0, _LARGEST)
    return slack


def _within(name: str, severity: Severity, features: Sequence[str], low: float, high: float) -> Rule:
    def broken(columns: Columns) -> dict[str, Mask]:
        found = {}
        for feature in features:
            column = columns.get(feature, _NOTHING)
            if len(column) and not (
                np.min(column) >= low and np.max(column) <= high
            ):  # true for NaN, which the mask ignores
                mask = (column < low) | (column > high)
                if mask.any():
                    found[feature] = mask
        return found

    return Rule(
        name, severity, tuple(features), f"each of the features is within {low:g} … {high:g}", broken, each=True
    )


def _equal(
    name: str, severity: Severity, features: Sequence[str], statement: str, difference: Callable[[Columns], Floats]
) -> Rule:
    """Return a rule that `difference`, relative to the first feature or 1, is 0 within the tolerance."""

    def broken(columns: Columns) -> dict[str, Mask]:
        mask = np.abs(difference(columns)) > _slack(columns[features[0]])
        return {features[0]: mask} if mask.any() else {}

    return Rule(name, severity, tuple(features), statement, broken)


def _between(name: str, middle: str) -> Rule:
    def broken(columns: Columns) -> dict[str, Mask]:
        low, value, high = (columns[feature] for feature in ("Min", middle, "Max"))
        slack = _slack(value)
        mask = (value < low - slack) | (value > high + slack)
        return {middle: mask} if mask.any() else {}

    return Rule(name, "warn", ("Min", middle, "Max"), f"Min <= {middle} <= Max", broken)


_RATES: Final = ("Rate", "Srate", "Drate")
_SHARES: Final = (*(f"{flag}_flag_number" for flag in FLAGS), *PROTOCOLS, "IPv", "LLC")


def _common(schema: FeatureSchema) -> tuple[Rule, ...]:
    time_to_live = next(name for name in SAME_FEATURE if name in schema.features)
    may_be_negative = ("IAT",)  # packets may be captured out of order
    amounts = [f for f in schema.features if f not in (*_SHARES, *may_be_negative, "Protocol Type", time_to_live)]
    return (
        _within("negative", "reject", amounts, 0.0, np.inf),
        _within("share_out_of_range", "reject", _SHARES, 0.0, 1.0),
        _within("protocol_out_of_range", "reject", ("Protocol Type",), 0.0, 255.0),
        _within("time_to_live_out_of_range", "reject", (time_to_live,), 0.0, 255.0),
        _within("negative_time_between_packets", "warn", may_be_negative, 0.0, np.inf),
        _equal("ip_share", "warn", ("IPv", "ARP"), "IPv = 1 - ARP", lambda c: c["IPv"] - (1 - c["ARP"])),
        _equal("llc_share", "warn", ("LLC", "IPv"), "LLC = IPv", lambda c: c["LLC"] - c["IPv"]),
        _equal(
            "transport_shares",
            "warn",
            ("TCP", "UDP", "ICMP", "ARP", "IGMP"),
            "TCP + UDP + ICMP + ARP + IGMP = 1",
            lambda c: c["TCP"] + c["UDP"] + c["ICMP"] + c["ARP"] + c["IGMP"] - 1,
        ),
        _between("average_length", "AVG"),
        _between("total_size", "Tot size"),
    )


_OF_RELEASE: Final[Mapping[str, tuple[Rule, ...]]] = {
    ORIGINAL_45.name: (
        _equal(
            "protocol_mean",
            "warn",
            ("Protocol Type", "TCP", "UDP", "ICMP", "IGMP"),
            "Protocol Type = 6 TCP + 17 UDP + ICMP + 2 IGMP",
            lambda c: c["Protocol Type"] - (6 * c["TCP"] + 17 * c["UDP"] + c["ICMP"] + 2 * c["IGMP"]),
        ),
        _equal("sending_rate", "warn", ("Srate", "Rate"), "Srate = Rate", lambda c: c["Srate"] - c["Rate"]),
        _within("receiving_rate", "warn", ("Drate",), 0.0, 0.0),
    ),
    RELEASE_39.name: (
        _equal("variance", "warn", ("Variance", "Std"), "Variance = Std²", lambda c: c["Variance"] - c["Std"] ** 2),
        _equal(
            "total_length",
            "warn",
            ("Tot sum", "AVG", "Number"),
            "Tot sum = AVG · Number",
            lambda c: c["Tot sum"] - c["AVG"] * c["Number"],
        ),
    ),
}
RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    name: (*_common(schema), *_OF_RELEASE.get(name, ())) for name, schema in FEATURE_SCHEMAS.items()
}
"""Rules of each feature schema, `reject` rules first: a row with several faults is counted under the first."""
_FINITE: Final = {
    name: _within(
        "infinite", "reject", [f for f in schema.features if f not in (*_RATES, *_SHARES)], -_LARGEST, _LARGEST
    )
    for name, schema in FEATURE_SCHEMAS.items()
}


def check(columns: Columns, schema: FeatureSchema, finite: bool = False) -> dict[Rule, dict[str, Mask]]:
    """Return the violated rules, for each the features at fault and the rows, shape (rows,).

    Flow logs may lack features that the models do not use; a rule over several features is then not checked.

    Args:
        columns: Features by name, shape (rows,).
        schema: Of the features.
        finite: Whether an infinity in a feature that is no rate is a fault, as in flow logs of nights.
    """
    rules = (*RULES[schema.name], _FINITE[schema.name]) if finite else RULES[schema.name]
    with np.errstate(over="ignore", invalid="ignore"):  # sums and products of infinities and the largest numbers
        found = [(rule, rule.broken(columns)) for rule in rules if rule.applies(columns)]
    return {rule: faults for rule, faults in found if faults}
