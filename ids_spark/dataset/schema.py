"""Column names, the two feature schemas of CICIoMT2024, and the contract of every table in the lake."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

from ids_spark.base.errors import InputError

FeatureSet = Literal["paper", "operational"]
SPLITS: Final = ("train", "validation", "test")
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
        artefacts: Features that name the lab's capture day or window length; the `operational` feature_set leaves them out.
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


def _contract(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns])


def flows_contract(schema: FeatureSchema) -> pa.Schema:
    """`flows/split=…`: one row for each accepted row of the source, equal rows included.

    `row_key` is a hash of the features alone; (`source_file`, `source_row`) names the row. `duplicate` marks every row
    but the first of those equal in features and label within the split; `label_conflict` marks the rows of a vector that
    carries more than one label there. Files hold ranges of the hash, rows sorted by it.
    """
    return _contract(
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("row_key", pa.int64()),
        *((name, pa.float64()) for name in schema.features),
        ("class19", pa.string()),
        ("class6", pa.string()),
        ("class2", pa.string()),
        ("label19", pa.int32()),
        ("duplicate", pa.bool_()),
        ("label_conflict", pa.bool_()),
    )


def features_contract(columns: Iterable[str]) -> pa.Schema:
    """`features/<recipe>/split=…`: scaled features and the label at every level."""
    return _contract(
        ("row_key", pa.int64()),
        *((name, pa.float32()) for name in columns),
        ("label19", pa.int32()),
        ("label6", pa.int32()),
        ("label2", pa.int32()),
    )


QUARANTINE: Final = _contract(
    ("source_file", pa.string()),
    ("source_row", pa.int64()),
    ("split", pa.string()),
    ("label", pa.string()),
    ("reason", pa.string()),
    ("features", pa.list_(pa.string())),
    ("raw", pa.string()),
    ("run_id", pa.string()),
)

PREDICTIONS: Final = _contract(
    ("source_file", pa.string()),
    ("source_row", pa.int64()),
    ("row_key", pa.int64()),
    ("predicted_class19_id", pa.int32()),
    ("predicted_class19", pa.string()),
    ("predicted_class6_id", pa.int32()),
    ("predicted_class6", pa.string()),
    ("predicted_class2_id", pa.int32()),
    ("predicted_class2", pa.string()),
    ("probability", pa.float32()),
    ("attack_probability", pa.float32()),
    ("top3", pa.list_(pa.struct([("class_name", pa.string()), ("probability", pa.float32())]))),
    ("class19", pa.string()),
    ("class6", pa.string()),
    ("class2", pa.string()),
    ("model_version", pa.string()),
    ("run_id", pa.string()),
    ("scored_at", pa.timestamp("us", tz="UTC")),
    ("data_origin", pa.string()),
)
"""`predictions/event_date=…/model=…`: one row for each scored flow; levels finer than the model's are null."""

METRICS: Final = _contract(
    ("run_id", pa.string()),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("feature_set", pa.string()),
    ("classes", pa.int32()),
    ("split", pa.string()),
    ("class_name", pa.string()),
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("support", pa.int64()),
    ("data_origin", pa.string()),
)

CONFUSION: Final = _contract(
    ("run_id", pa.string()),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("feature_set", pa.string()),
    ("classes", pa.int32()),
    ("split", pa.string()),
    ("class_name", pa.string()),
    ("predicted_class", pa.string()),
    ("count", pa.int64()),
    ("data_origin", pa.string()),
)

AUDIT: Final = _contract(
    ("run_id", pa.string()),
    ("job", pa.string()),
    ("status", pa.string()),
    ("started_at", pa.timestamp("us", tz="UTC")),
    ("finished_at", pa.timestamp("us", tz="UTC")),
    ("seconds", pa.float64()),
    ("rows_in", pa.int64()),
    ("rows_out", pa.int64()),
    ("rows_quarantined", pa.int64()),
    ("rows_duplicate", pa.int64()),
    (
        "counts",
        pa.list_(
            pa.struct(
                [("split", pa.string()), ("class_name", pa.string()), ("what", pa.string()), ("rows", pa.int64())]
            )
        ),
    ),
    ("notes", pa.list_(pa.string())),
    ("models", pa.list_(pa.string())),
    ("inputs", pa.list_(pa.string())),
    ("feature_schema", pa.string()),
    ("data_origin", pa.string()),
    ("config", pa.string()),
    ("config_sha256", pa.string()),
    ("code_version", pa.string()),
    ("error", pa.string()),
)


def require(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Check that every wanted column is there with the wanted type; more columns are allowed.

    Raises:
        SchemaMismatch: lists every missing column and every other type at once.
    """
    faults = []
    for field in wanted:
        if field.name not in found.names:
            faults.append(f"column {field.name!r} is missing (expected {field.type})")
        elif not found.field(field.name).type.equals(field.type):
            faults.append(f"column {field.name!r} is {found.field(field.name).type}, expected {field.type}")
    if faults:
        raise SchemaMismatch(f"{where}: {'; '.join(faults)}. Rerun the job that writes this table with this version")
