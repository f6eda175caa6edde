"""What of flow logs is replaced: columns, file names, cells, names of columns; and what is refused without a key."""

import hashlib
import hmac

import pyarrow as pa
import pytest
from pydantic import ValidationError

from ids_spark.alerts.pseudonyms import KeyUnusable, Pseudonyms
from ids_spark.config.score import ScoreConfig
from ids_spark.score.identifiers import Identifiers, identifiers_of

KEY = b"a key of a test, long enough for HMAC"


def pseudonym(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()[:32]


def under_key(**settings: object) -> Identifiers:
    config = ScoreConfig(pass_through=("flow_id", "event_time", "device_id", "ward", "packets"), **settings)
    return Identifiers(config.identifiers, Pseudonyms(KEY), frozenset(config.pass_through))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("flow_id", "device_id", "ward")),
        ({"not_identifiers": ("ward",)}, ("flow_id", "device_id", "packets")),
        ({"pseudonymise": ("device_id",)}, ("flow_id", "device_id", "ward")),
        ({"pseudonymise": ("packets",)}, ("flow_id", "device_id", "ward", "packets")),
        ({"pseudonymise": ("device_id",), "not_identifiers": ("ward", "packets")}, ("flow_id", "device_id")),
        ({"pseudonymise": ()}, ()),
    ],
)
def test_every_column_is_an_identifier_unless_a_setting_says_that_it_is_none(
    settings: dict[str, object], expected: tuple[str, ...]
) -> None:
    assert under_key(**settings).names == expected


def test_the_default_hides_all_that_names_a_device_a_person_or_a_flow() -> None:
    assert set(ScoreConfig().identifiers) == set(ScoreConfig().pass_through) - {"event_time", "packets"}


def test_a_time_is_no_identifier_and_a_column_that_is_not_read_is_none() -> None:
    with pytest.raises(ValidationError, match="event_time, which is a time"):
        ScoreConfig(pseudonymise=("event_time",))
    with pytest.raises(ValidationError, match=r"names patient, not in score\.pass_through"):
        ScoreConfig(pseudonymise=("patient",))


def test_identifiers_of_a_table_are_replaced_and_other_columns_kept() -> None:
    table = pa.table({"packets": ["10", "20"], "device_id": ["pump-1", None], "event_time": [1, 2]})
    expected = {"packets": ["10", "20"], "device_id": [pseudonym("pump-1"), None], "event_time": [1, 2]}
    assert under_key().columns(table).to_pydict() == expected
    assert Identifiers(("device_id",)).columns(table).equals(table)
    assert under_key(pseudonymise=()).columns(table).equals(table)


@pytest.mark.parametrize(
    "name",
    [
        "part-00000-3f2b8a1c-0d4e-4f5a-9b6c-7d8e9f0a1b2c-c000.snappy.parquet",
        "part-00017-3f2b8a1c-0d4e-4f5a-9b6c-7d8e9f0a1b2c.c000.zstd.parquet",
        "part-00001-3f2b8a1c-0d4e-4f5a-9b6c-7d8e9f0a1b2c-c000.csv.gz",
        "_SUCCESS",
        "flows-00003.parquet",
        "_delta_log/00000000000000000012.json",
    ],
)
def test_names_that_spark_and_delta_give_stay_as_they_are(name: str) -> None:
    assert under_key().file(name) == name


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("pump-7.parquet", ".parquet"),
        ("device_id=pump-7/part-00000-3f2b8a1c-0d4e-4f5a-9b6c-7d8e9f0a1b2c-c000.snappy.parquet", ".parquet"),
        ("part-00000-pump.parquet", ".parquet"),
        ("pump-00003.parquet", ".parquet"),
        ("part-00000-3f2b8a1c-0d4e-4f5a-9b6c-7d8e9f0a1b2c-c000.pump7.parquet", ".parquet"),
        ("Ward 3.CSV.GZ", ".csv.gz"),
        ("notes.pump-7", ""),
        ("pump", ""),
    ],
)
def test_any_other_name_of_a_file_becomes_its_pseudonym_with_a_known_ending(name: str, ending: str) -> None:
    assert under_key().file(name) == pseudonym(name) + ending
    assert Identifiers(("device_id",)).file(name) == name


@pytest.mark.parametrize(
    "name",
    ["dt=2026-03-04", "20260304", "event_date=2026-3-4", "date=04.03.2026", "year=2026/month=03/day=04"],
)
def test_a_folder_that_is_a_date_keeps_its_name(name: str) -> None:
    assert under_key().folder(name) == name


@pytest.mark.parametrize("name", ["4711-2026-03-04", "192.0.2.7 2026-03-04", "2026-03-04_4711", "ward 2026-03-04"])
def test_numbers_beside_the_date_of_a_folder_can_be_a_patient_or_an_address(name: str) -> None:
    assert under_key().folder(name) == pseudonym(name)
    assert Identifiers().folder(name) == name


def test_cells_and_names_of_columns_that_nobody_declared_are_replaced() -> None:
    found = under_key()
    assert [found.cell("pump-7"), found.cell("")] == [pseudonym("pump-7"), ""]
    assert [found.column("ward"), found.column("pump-7")] == ["ward", pseudonym("pump-7")]
    assert [Identifiers().cell("pump-7"), Identifiers().column("pump-7")] == ["pump-7"] * 2


def test_an_error_of_a_reader_is_named_by_its_class_as_it_can_quote_a_cell() -> None:
    error = pa.ArrowInvalid("Failed to parse string: 'pump-7' as a scalar of type double")
    assert under_key().error(error) == "ArrowInvalid"
    assert "pump-7" in Identifiers().error(error)


def test_identifiers_without_a_key_are_refused_and_logs_without_any_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDS_SPARK_PSEUDONYM_KEY", raising=False)
    settings = ScoreConfig()
    found = identifiers_of(settings)
    found.require_key({"event_time", "packets"}, "logs", settings)
    with pytest.raises(KeyUnusable) as refused:
        found.require_key({"device_id", "src_ip", "packets"}, "logs/event_date=2026-03-01", settings)
    for part in ("logs/event_date=2026-03-01", "device_id, src_ip can", "openssl rand", "score.pseudonymise=[]"):
        assert part in str(refused.value)
    for given in (Identifiers(settings.identifiers, Pseudonyms(KEY)), identifiers_of(ScoreConfig(pseudonymise=()))):
        given.require_key({"device_id"}, "logs", settings)


def test_the_representation_of_identifiers_does_not_hold_the_key() -> None:
    assert KEY.decode() not in repr(under_key())
    assert Identifiers().key_id is None
    assert under_key().key_id == Pseudonyms(KEY).key_id
