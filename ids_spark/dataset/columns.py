"""Column names of files as people have them: one rule for sources and flow logs, and the feature schema they hold.

A column is a feature if its name equals the official one, or does so without case, blanks, underscores and other
punctuation, or is a known other spelling of it. If a file has the official spelling too, that column is used.
"""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from ids_spark.base.logs import printable
from ids_spark.dataset.features import FEATURE_SCHEMAS, FeatureSchema, SchemaMismatch

ALIASES: Final[Mapping[str, str]] = {"TTL": "Time_To_Live", "Magnitude": "Magnitue"}
"""Official feature name by other names that exporters and copies of the data set use.

`flow_duration` is not an alias of `Duration`, a time to live: CICIoT2023, made with the same exporter, has both. Nor is
`Duration` one of `Time_To_Live`: the releases compute header length, time between packets and counts differently.
"""
_OTHER_MEANING: Final = frozenset({"duration"})
"""Names in lower case that other exporters use for something else: of Zeek and NetFlow, the seconds of a flow. They are
features only in files whose names are all in lower case."""
_MOST_SHOWN: Final = 10
_LONGEST: Final = 80
_SIMILAR: Final = 0.8  # of difflib's ratio; a transposed or missing letter in a name of six has .83


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


_LABELS: Final = frozenset(
    _names(
        """label, labels, class, classname, class2, class6, class19, label2, label6, label19, category, subcategory,
        attack, attacktype, attackname, attackcat, attackcategory, target, twolabel, type, y"""
    )
)
_OTHER_COLUMNS: Final = _LABELS | frozenset(
    _names(
        """split, dataset, duplicate, labelconflict, index, rowindex, row, rowid, rowkey, rownumber, id, uid, uuid,
        flowid, flowkey, indexlevel0, sourcefile, sourcerow, file, filename, pcap, timestamp, time, datetime, date,
        eventtime, eventdate, starttime, endtime, firstseen, lastseen, day, hour, srcip, dstip, sourceip, destinationip,
        srcaddress, dstaddress, srcport, dstport, sourceport, destinationport, srcmac, dstmac, sourcemac,
        destinationmac, mac, ip, host, hostname, protocol, proto, transportprotocol, vlan, device, deviceid, devicename,
        devicetype, site, packets, capturefile"""
    )
)
"""Columns that are no features (labels, index, identifiers, times, endpoints); only lower-case letters and digits."""


def plain(name: str) -> str:
    """Return the lower-case letters and digits of a column name."""
    return "".join(character for character in name.lower() if character.isalnum())


class ColumnNames:
    """The columns of one file, and which of them are features.

    Args:
        names: As in the file, in any order.
        aliases: Further names of features: column → official feature name.
    """

    def __init__(self, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> None:
        self.names = tuple(names)
        self._exact = set(self.names)
        self._aliases = dict(aliases or {})
        self._by_plain: dict[str, list[str]] = defaultdict(list)
        lower_case = not any(feature in self._exact for feature in _ALL_FEATURES if feature != feature.lower())
        for name in dict.fromkeys(self.names):
            if name not in self._aliases and (lower_case or name.strip() not in _OTHER_MEANING):
                self._by_plain[plain(name)].append(name)
        self._features = {feature: self._find(feature) for feature in _ALL_FEATURES}

    def of(self, schema: FeatureSchema) -> dict[str, str]:
        """Return the column of each feature of a schema that the file has, by official name in official order."""
        return {feature: self._features[feature][0] for feature in schema.features if self._features[feature]}

    def ambiguous(self, schema: FeatureSchema) -> dict[str, list[str]]:
        """Return features that several columns may hold, none of them under the official name, with the columns."""
        return {feature: self._features[feature] for feature in schema.features if len(self._features[feature]) > 1}

    def schema(self) -> FeatureSchema | None:
        """Return the feature schema of the file by the features that only one release has; None if it is not clear."""
        shares = {schema.name: len(self.own(schema)) / len(_OWN[schema.name]) for schema in FEATURE_SCHEMAS.values()}
        best = max(shares.values())
        found = [name for name, share in shares.items() if share == best]
        return FEATURE_SCHEMAS[found[0]] if best and len(found) == 1 else None

    def own(self, schema: FeatureSchema) -> list[str]:
        """Return the features in the file that no other release has."""
        return [feature for feature in schema.features if feature in _OWN[schema.name] and self._features[feature]]

    def labels(self) -> list[str]:
        """Return columns that may hold the class."""
        return [name for name in self.names if plain(name) in _LABELS]

    def near(self, features: Iterable[str], columns: Iterable[str]) -> dict[str, str]:
        """Return for missing features a column with a similar name, if there is one."""
        by_plain = {plain(name): name for name in columns}
        found = {}
        for feature in features:
            close = difflib.get_close_matches(plain(feature), by_plain, 1, _SIMILAR)
            if close:
                found[feature] = by_plain[close[0]]
        return found

    def _find(self, feature: str) -> list[str]:
        if feature in self._exact and feature not in self._aliases:
            return [feature]
        own = [name for name, official in self._aliases.items() if official == feature and name in self._exact]
        if own:
            return own
        spellings = {plain(feature), *(plain(alias) for alias, official in ALIASES.items() if official == feature)}
        return [name for spelling in sorted(spellings) for name in self._by_plain.get(spelling, ())]


_ALL_FEATURES: Final = tuple(dict.fromkeys(f for schema in FEATURE_SCHEMAS.values() for f in schema.features))
_OWN: Final[Mapping[str, frozenset[str]]] = {
    schema.name: frozenset(schema.features).difference(
        *(other.features for other in FEATURE_SCHEMAS.values() if other is not schema)
    )
    for schema in FEATURE_SCHEMAS.values()
}
"""Features that only one schema has."""


def recognise(
    names: Iterable[str], where: str, ignored: Iterable[str] = (), aliases: Mapping[str, str] | None = None
) -> tuple[FeatureSchema, dict[str, str]]:
    """Return the feature schema of a source, whose columns may come in any order, and the column of each feature.

    It is the schema with the most features among the columns; all of its features must be present. Labels, an index,
    identifiers, times and endpoints are allowed. Any other column is refused, because it may be a feature of a release
    that this version does not support.

    Args:
        names: Column names of one source.
        where: Name of the source, for messages.
        ignored: Further columns that are no features.
        aliases: Further names of features: column → official feature name.

    Raises:
        SchemaMismatch: lists the features that are missing, those of another schema, and the unknown columns.
    """
    ignored = set(ignored)
    columns = ColumnNames([name for name in names if name not in ignored], aliases)
    found = {schema.name: columns.of(schema) for schema in FEATURE_SCHEMAS.values()}
    schema = max(FEATURE_SCHEMAS.values(), key=lambda s: (len(found[s.name]), len(found[s.name]) - len(s.features)))
    used = found[schema.name]
    missing = [feature for feature in schema.features if feature not in used]
    others = sorted({name for name in columns.names if name not in used.values()})
    foreign = [name for name in others if name in _ALL_FEATURES]
    unknown = [name for name in others if name not in foreign and not _is_other_column(name)]
    faults = []
    if missing:
        count = f"{len(missing)} of the {len(schema.features)} columns"
        near = columns.near(missing, unknown)
        shown = [f"{f} (did you mean {near[f]!r}?)" if f in near else f for f in missing]
        faults.append(f"lacks {count} of feature schema {schema.name}: {listed(shown)}")
    if foreign:
        faults.append(f"has {len(foreign)} column(s) of another feature schema than {schema.name}: {listed(foreign)}")
    for feature, candidates in columns.ambiguous(schema).items():
        faults.append(f"has several columns for {feature}: {listed(candidates)}")
    if unknown:
        faults.append(f"has {len(unknown)} unknown column(s): {listed(unknown)}")
    if not faults:
        return schema, used
    raise SchemaMismatch(
        f"{where} {'; '.join(faults)}; found {len(set(columns.names))} columns. Expected all features of one release"
        " under their official names, misspellings included; name other spellings in ingest.column_aliases and other"
        " columns in ingest.ignored_columns. Another release of the data set needs a feature schema of its own"
    )


def own_features(schema: FeatureSchema) -> list[str]:
    """Return the features that no other schema has, in official order."""
    return [feature for feature in schema.features if feature in _OWN[schema.name]]


def listed(names: Iterable[str]) -> str:
    """Return the first names, and how many there are more."""
    shown = [printable(name[:_LONGEST]) or "(empty)" for name in names]
    more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    return ", ".join(shown[:_MOST_SHOWN]) + more


def _is_other_column(name: str) -> bool:
    short = plain(name)
    return not short or short in _OTHER_COLUMNS or short.startswith("unnamed")
