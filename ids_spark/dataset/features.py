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
}
"""Meaning of each feature of any schema, after Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351."""
ALIASES: Final[Mapping[str, str]] = {
    "TTL": "Time_To_Live",
    "ttl": "Time_To_Live",
    "Magnitude": "Magnitue",
    "Protocol_Type": "Protocol Type",
    "Tot_sum": "Tot sum",
    "Tot_size": "Tot size",
}
"""Official feature name by other spellings that exporters and copies of the data set use.

`flow_duration` is not `Duration`, which is a time to live: CICIoT2023, which has the same exporter, has both.
"""
SAME_FEATURE: Final = ("Duration", "Time_To_Live")
"""One quantity, the time to live, under its names in the two releases."""
_BESIDE_FEATURES: Final = frozenset(
    _names(
        """label, labels, class, classname, class2, class6, class19, label2, label6, label19, category, subcategory,
        attack, attacktype, attackname, target, split, dataset, duplicate, labelconflict, twolabel, index,
        rowindex, row, rowid, rowkey, rownumber, id, uid, uuid, flowid, flowkey, indexlevel0, sourcefile,
        sourcerow, file, filename, pcap, timestamp, time, datetime, date, eventtime, eventdate, starttime,
        endtime, firstseen, lastseen, day, hour, srcip, dstip, sourceip, destinationip, srcaddress, dstaddress,
        srcport, dstport, sourceport, destinationport, srcmac, dstmac, sourcemac, destinationmac, mac, ip, host,
        hostname, protocol, proto, transportprotocol, vlan, device, deviceid, devicename, devicetype, site"""
    )
)
"""Columns beside features: labels, index, identifiers, times, endpoints; in lower case, only letters and digits."""


class SchemaMismatch(InputError):
    """Raised when columns are missing, unknown, of another type, or of two feature schemas at once."""


def recognise(columns: Iterable[str], where: str, ignored: Iterable[str] = ()) -> FeatureSchema:
    """Return the feature schema of a source, whose columns may come in any order.

    It is the schema with the most features among the columns; all of its features must be there. Labels, an index,
    identifiers, times and endpoints may stand beside them. Any other column is refused, because it may be a feature of
    a release that this version does not support.

    Args:
        columns: Column names of one source.
        where: Names the source in the message.
        ignored: Further columns that are no features.

    Raises:
        SchemaMismatch: lists the features that are missing, those of another schema, and the unknown columns.
    """
    found = set(columns)
    schema = max(FEATURE_SCHEMAS.values(), key=lambda s: (len(found & set(s.features)), -len(set(s.features) - found)))
    missing = [feature for feature in schema.features if feature not in found]
    others = found - set(schema.features) - set(ignored)
    foreign = sorted(others & {feature for other in FEATURE_SCHEMAS.values() for feature in other.features})
    unknown = sorted(name for name in others.difference(foreign) if not _beside_features(name))
    faults = []
    if missing:
        count = f"{len(missing)} of the {len(schema.features)} columns"
        faults.append(f"lacks {count} of feature schema {schema.name}: {', '.join(missing)}")
    if foreign:
        faults.append(
            f"has {len(foreign)} column(s) of another feature schema than {schema.name}: {', '.join(foreign)}"
        )
    if unknown:
        faults.append(f"has {len(unknown)} unknown column(s): {', '.join(unknown)}")
    if not faults:
        return schema
    raise SchemaMismatch(
        f"{where} {'; '.join(faults)}; found {len(found)} columns. Expected all features of one release under their"
        " official names, misspellings included; name other columns in ingest.ignored_columns. Another release of the"
        " data set needs a feature schema of its own"
    )


def _beside_features(name: str) -> bool:
    plain = "".join(character for character in name.lower() if character.isalnum())
    return not plain or plain in _BESIDE_FEATURES or plain.startswith("unnamed")


def column_of(feature: str) -> str:
    """Return the column of a feature in `features/`: Petastorm makes attributes of columns, so spaces go."""
    return feature.replace(" ", "_")
