"""The footer of extracted flow logs."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.extract.footer import KEY, Extraction, of_metadata

EXTRACTION = Extraction(
    window=10,
    capture="ward-3/café.pcap",
    piece=2,
    packets={"ipv4": 90, "arp": 12, "ipv6": 7},
    marks={"tunnel": 3},
    single=2,
    windows=11,
)


def stored(metadata: dict[Any, Any] | None) -> Any:
    """Metadata as a parquet file returns them."""
    file = io.BytesIO()
    pq.write_table(pa.table({"x": [1.0]}).replace_schema_metadata(metadata), file)
    return pq.ParquetFile(file).schema_arrow.metadata


def test_a_file_returns_what_was_written() -> None:
    assert of_metadata(stored(EXTRACTION.metadata()), "a.parquet") == EXTRACTION


@pytest.mark.parametrize(
    "metadata",
    [None, {"other": "x"}, {KEY: "{"}, {KEY: "[]"}, {KEY: b"\xff\xfe"}, {KEY: "{}"}, {KEY: '{"window": 10}'},
     {KEY: EXTRACTION.model_dump_json().replace("90", "-1")},
     {KEY: EXTRACTION.model_dump_json().replace("90", "1" * 30)},
     {KEY: EXTRACTION.model_dump_json().replace('"window":10', '"window":0')}],
)  # fmt: skip
def test_other_metadata_are_not_used(metadata: Any) -> None:
    assert of_metadata(stored(metadata), "a.parquet") is None


def test_the_log_names_no_key_of_the_metadata_of_a_file(caplog: pytest.LogCaptureFixture) -> None:
    faulty = EXTRACTION.model_dump_json().replace('"ipv4":90', '"patient-4711":-1')
    assert of_metadata(stored({KEY: faulty}), "a.parquet") is None
    assert "faults in=packets" in caplog.text
    assert "patient" not in caplog.text
