"""The feature schemas of CICIoMT2024: column names in official order and spelling."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ids_spark.base.errors import InputError

FeatureSet = Literal["paper", "operational"]
SOURCE_SPLITS: Final = ("train", "test")
"""Splits of a source; `features` takes the validation rows from train."""

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
        name: Written to every table, model and message.
        features: Official column names.
        artefacts: Features that identify the laboratory's capture day or window length; the feature set `operational`
            excludes them.
    """

    name: str
    features: tuple[str, ...]
    artefacts: frozenset[str]

    def feature_set(self, feature_set: FeatureSet) -> tuple[str, ...]:
        """Return the features that a model of this feature set may use, in official order."""
        return tuple(f for f in self.features if feature_set == "paper" or f not in self.artefacts)


# In the first release IAT contains the date of the capture, Number and Weight the window length; Srate equals Rate and
# Drate is always 0. In the second release IAT is correct, but sums and counts scale with the window length, which names
# the laboratory's classes: floods have 100 packets, all others 10.
ORIGINAL_45: Final = FeatureSchema(
    "original45", _names(_ORIGINAL_45), frozenset({"IAT", "Number", "Weight", "Srate", "Drate"})
)
RELEASE_39: Final = FeatureSchema(
    "release39",
    _names(_RELEASE_39),
    frozenset({"Number", "Tot sum", "ack_count", "syn_count", "fin_count", "rst_count"}),
)
FEATURE_SCHEMAS: Final[Mapping[str, FeatureSchema]] = {s.name: s for s in (ORIGINAL_45, RELEASE_39)}

FLAGS: Final = ("fin", "syn", "rst", "psh", "ack", "ece", "cwr")
"""TCP flags with a share of packets in both schemas."""
PROTOCOLS: Final = _names("HTTP, HTTPS, DNS, Telnet, SMTP, SSH, IRC, TCP, UDP, DHCP, ARP, ICMP, IGMP")
"""Features of both schemas that are the share of one protocol's packets in a window."""
FEATURE_DESCRIPTIONS: Final[Mapping[str, str]] = {
    **{name: f"share of {name}" for name in PROTOCOLS},
    **{f"{flag}_flag_number": f"share of {flag.upper()} packets" for flag in FLAGS},
    **{f"{flag}_count": f"count of {flag.upper()} packets" for flag in FLAGS},
    "Header_Length": "header length",
    "Protocol Type": "mean protocol number",
    "Duration": "time to live",
    "Time_To_Live": "time to live",
    "Rate": "packet rate",
    "Srate": "sent packet rate",
    "Drate": "received packet rate",
    "Tot sum": "sum of packet lengths",
    "Min": "shortest packet",
    "Max": "longest packet",
    "AVG": "mean packet length",
    "Std": "spread of packet lengths",
    "Tot size": "packet length",
    "IAT": "time between packets",
    "Number": "packets in the window",
    "Variance": "variance of packet lengths",
    "Covariance": "covariance of packet lengths in and out",
    "Magnitue": "magnitude of packet lengths in and out",
    "Radius": "spread of packet lengths in and out",
    "Weight": "packets in times packets out",
    "IPv": "share of IP",
    "LLC": "share of LLC",
    "Max - Min": "longest minus shortest packet",
    "AVG - Min": "mean minus shortest packet length",
    "Max - AVG": "longest minus mean packet length",
    "AVG - Tot size": "mean packet length minus packet length",
    "Std / AVG": "spread relative to the mean of packet lengths",
    "Min / Max": "shortest relative to the longest packet",
    "(AVG - Min) / (Max - Min)": "place of the mean between shortest and longest packet",
    "(AVG - Min) / Std": "mean minus shortest packet length, in spreads",
    "(Max - AVG) / Std": "longest minus mean packet length, in spreads",
    "Inner AVG": "mean packet length without the shortest and the longest",
    "Payload": "mean bytes after the headers",
    "Header_Length / AVG": "header length relative to the mean packet length",
    "TCP_Header_Length": "header length of TCP packets",
    "IP_Time_To_Live": "time to live of IP packets",
    **{f"{flag}_flag_number / TCP": f"share of {flag.upper()} among TCP packets" for flag in FLAGS},
    "psh_flag_number / ack_flag_number": "PSH packets relative to ACK packets",
    "Rate * AVG": "bytes a second",
    "Rate * IAT": "packet rate times time between packets, 1 without bursts or a pause",
    "Inverse Rate": "seconds a packet within the window",
    "Pause / Number": "seconds before the window, for each of its packets",
    "Pause": "seconds between the window and the packet before it",
}
"""Meaning of each feature of all schemas, from Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351, and of those that
`features.ratios` derives: lengths and headers in bytes, relative ones without a unit."""
SAME_FEATURE: Final = ("Duration", "Time_To_Live")
"""Names of the time to live in the two releases."""


class SchemaMismatch(InputError):
    """Raised when columns are missing, unknown, of another type, or belong to two feature schemas."""


def column_of(feature: str) -> str:
    """Return the column of a feature in `features/`, an identifier, as Petastorm makes attributes of columns."""
    for sign, word in (("/", "per"), ("*", "times"), ("-", "minus"), ("(", ""), (")", ""), (" ", "_")):
        feature = feature.replace(sign, word)
    return feature
