"""The feature schemas of CICIoMT2024: column names in official order and spelling; recognises that of a source."""

from collections.abc import Iterable, Mapping
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
# Drate is always 0. In the second release IAT is correct.
ORIGINAL_45: Final = FeatureSchema(
    "original45", _names(_ORIGINAL_45), frozenset({"IAT", "Number", "Weight", "Srate", "Drate"})
)
RELEASE_39: Final = FeatureSchema("release39", _names(_RELEASE_39), frozenset({"Number"}))
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
}
"""Meaning of each feature of all schemas, from Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351."""
ALIASES: Final[Mapping[str, str]] = {
    "TTL": "Time_To_Live",
    "ttl": "Time_To_Live",
    "Magnitude": "Magnitue",
    "Protocol_Type": "Protocol Type",
    "Tot_sum": "Tot sum",
    "Tot_size": "Tot size",
}
"""Official feature name by other spellings that exporters and copies of the data set use.

`flow_duration` is not an alias of `Duration`, a time to live: CICIoT2023, made with the same exporter, has both.
"""
SAME_FEATURE: Final = ("Duration", "Time_To_Live")
"""Names of the time to live in the two releases."""
_MOST_SHOWN: Final = 10
_OTHER_COLUMNS: Final = frozenset(
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
"""Columns that are no features (labels, index, identifiers, times, endpoints); only lower-case letters and digits."""


class SchemaMismatch(InputError):
    """Raised when columns are missing, unknown, of another type, or belong to two feature schemas."""


def recognise(columns: Iterable[str], where: str, ignored: Iterable[str] = ()) -> FeatureSchema:
    """Return the feature schema of a source, whose columns may come in any order.

    It is the schema with the most features among the columns; all of its features must be present. Labels, an index,
    identifiers, times and endpoints are allowed. Any other column is refused, because it may be a feature of a release
    that this version does not support.

    Args:
        columns: Column names of one source.
        where: Name of the source, for messages.
        ignored: Further columns that are no features.

    Raises:
        SchemaMismatch: lists the features that are missing, those of another schema, and the unknown columns.
    """
    found = set(columns)
    schema = max(FEATURE_SCHEMAS.values(), key=lambda s: (len(found & set(s.features)), -len(set(s.features) - found)))
    missing = [feature for feature in schema.features if feature not in found]
    others = found - set(schema.features) - set(ignored)
    foreign = sorted(others & {feature for other in FEATURE_SCHEMAS.values() for feature in other.features})
    unknown = sorted(name for name in others.difference(foreign) if not _is_other_column(name))
    faults = []
    if missing:
        count = f"{len(missing)} of the {len(schema.features)} columns"
        faults.append(f"lacks {count} of feature schema {schema.name}: {', '.join(missing)}")
    if foreign:
        faults.append(
            f"has {len(foreign)} column(s) of another feature schema than {schema.name}: {', '.join(foreign)}"
        )
    if unknown:
        more = f" and {len(unknown) - _MOST_SHOWN} more" if len(unknown) > _MOST_SHOWN else ""
        faults.append(f"has {len(unknown)} unknown column(s): {', '.join(unknown[:_MOST_SHOWN])}{more}")
    if not faults:
        return schema
    raise SchemaMismatch(
        f"{where} {'; '.join(faults)}; found {len(found)} columns. Expected all features of one release under their"
        " official names, misspellings included; name other columns in ingest.ignored_columns. Another release of the"
        " data set needs a feature schema of its own"
    )


def _is_other_column(name: str) -> bool:
    plain = "".join(character for character in name.lower() if character.isalnum())
    return not plain or plain in _OTHER_COLUMNS or plain.startswith("unnamed")


def column_of(feature: str) -> str:
    """Return the column of a feature in `features/`; Petastorm allows no spaces, as columns become attributes."""
    return feature.replace(" ", "_")
