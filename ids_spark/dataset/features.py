"""The feature schemas of CICIoMT2024: column names in official order and spelling, and which one a source has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ids_spark.base.errors import InputError

FeatureSet = Literal["paper", "operational"]
SOURCE_SPLITS: Final = ("train", "test")
"""Of a source; `features` holds validation rows out of train."""

_ORIGINAL_45 = """Header_Length, Protocol Type, Duration, Rate, Srate, Drate, fin_flag_number, syn_flag_number,
    rst_flag_number, psh_flag_number, ack_flag_number, ece_flag_number, cwr_flag_number, ack_count, syn_count,
    fin_count, rst_count, HTTP, HTTPS, DNS, Telnet, SMTP, SSH, IRC, TCP, UDP, DHCP, ARP, ICMP, IGMP, IPv, LLC,
    Tot sum, Min, Max, AVG, Std, Tot size, IAT, Number, Magnitue, Radius, Covariance, Variance, Weight"""
_RELEASE_39 = """Header_Length, Protocol Type, Time_To_Live, Rate, fin_flag_number, syn_flag_number,
    rst_flag_number, psh_flag_number, ack_flag_number, ece_flag_number, cwr_flag_number, ack_count, syn_count,
    fin_count, rst_count, HTTP, HTTPS, DNS, Telnet, SMTP, SSH, IRC, TCP, UDP, DHCP, ARP, ICMP, IGMP, IPv, LLC,
    Tot sum, Min, Max, AVG, Std, Tot size, IAT, Number, Variance"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


@dataclass(frozen=True)
class FeatureSchema:
    """One release of the data set: its feature names in official order and spelling.

    Attributes:
        name: Stands in every table, model and message.
        features: Official column names.
        artefacts: Features that identify the laboratory's capture day or window length; the feature set `operational`
            excludes them.
    """

    name: str
    features: tuple[str, ...]
    artefacts: frozenset[str]

    def feature_set(self, feature_set: FeatureSet) -> tuple[str, ...]:
        """Return the features a model of this feature_set may see, in official order."""
        return tuple(f for f in self.features if feature_set == "paper" or f not in self.artefacts)


# IAT of the first release carries the capture's date, Number and Weight the window length; Srate repeats Rate and
# Drate is 0 everywhere. The second release repaired IAT.
ORIGINAL_45: Final = FeatureSchema(
    "original45", _names(_ORIGINAL_45), frozenset({"IAT", "Number", "Weight", "Srate", "Drate"})
)
RELEASE_39: Final = FeatureSchema("release39", _names(_RELEASE_39), frozenset({"Number"}))
FEATURE_SCHEMAS: Final[Mapping[str, FeatureSchema]] = {s.name: s for s in (ORIGINAL_45, RELEASE_39)}

FLAGS: Final = ("fin", "syn", "rst", "psh", "ack", "ece", "cwr")
"""TCP flags that either schema has a share of packets for."""
PROTOCOLS: Final = _names("HTTP, HTTPS, DNS, Telnet, SMTP, SSH, IRC, TCP, UDP, DHCP, ARP, ICMP, IGMP")
"""Features of either schema that are the share of one protocol's packets in a window."""


class SchemaMismatch(InputError):
    """Raised when columns are missing, of another type, or of two feature schemas at once."""


def recognise(columns: Iterable[str], where: str) -> FeatureSchema:
    """Return the feature schema that `columns` holds, in any order and among other columns.

    Args:
        columns: Column names of one source.
        where: Names the source in the message.

    Raises:
        SchemaMismatch: when neither schema is complete; names what is missing for the nearer one.
    """
    found = set(columns)
    for schema in FEATURE_SCHEMAS.values():
        if found.issuperset(schema.features):
            return schema
    nearest = min(FEATURE_SCHEMAS.values(), key=lambda s: len(set(s.features) - found) / len(s.features))
    missing = [f for f in nearest.features if f not in found]
    raise SchemaMismatch(
        f"{where} lacks {len(missing)} of the {len(nearest.features)} columns of feature schema {nearest.name}:"
        f" {', '.join(missing)}; found {len(found)} columns. Add the columns, or correct their spelling"
        " (official names, misspellings included)"
    )


def column_of(feature: str) -> str:
    """Return the column of a feature in `features/`: Petastorm makes attributes of columns, so spaces go."""
    return feature.replace(" ", "_")
