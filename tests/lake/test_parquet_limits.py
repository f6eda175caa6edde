"""Parquet files that claim or hold more than flow logs can: told from footers and headers of pages, before pyarrow."""

import base64
import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from ids_spark.config.score import ScoreConfig
from ids_spark.config.settings import IngestConfig
from ids_spark.dataset.features import RELEASE_39
from ids_spark.ingest import files
from ids_spark.ingest.sources import SourceUnusable, discover
from ids_spark.lake import parquet_limits
from ids_spark.lake.parquet_limits import BeyondLimits
from ids_spark.score import night_files, night_reader
from ids_spark.score.night_reader import ReadSpec
from tests.support import hostile_files
from tests.support.flows import synthetic_frame

DATE = dt.date(2026, 3, 1)
SPEC = ReadSpec(RELEASE_39, RELEASE_39.features, ("device_id",), "event_time", "run-1")


def check_footer(path: Path) -> None:
    with pa.OSFile(str(path)) as stream:
        parquet_limits.check_footer(stream)


def check_pages(path: Path, *columns: str, local: bool = True) -> None:
    with pa.OSFile(str(path)) as stream:
        footer = pq.ParquetFile(stream).metadata
        for row_group in range(footer.num_row_groups):
            parquet_limits.check_pages(stream, footer, row_group, frozenset(columns), local)


def table(rows: int = 500) -> pa.Table:
    flows = pa.Table.from_pandas(synthetic_frame(rows, seed=4), preserve_index=False)
    return flows.append_column("device_id", pa.array([f"pump-{i % 9}" for i in range(rows)]))


@pytest.mark.parametrize("compression", ["snappy", "gzip", "zstd", "none"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_files_of_usual_writers_are_within_the_limits(tmp_path: Path, compression: str, version: str) -> None:
    tags = pa.array([[{"a": i, "b": [str(i)]}] for i in range(500)])
    options: dict[str, Any] = {"compression": compression, "data_page_version": version, "write_page_index": True}
    for i, more in enumerate(({}, {"use_dictionary": False, "data_page_size": 512}, {"row_group_size": 7})):
        path = tmp_path / f"{i}.parquet"
        pq.write_table(table().append_column("tags", tags), path, **options, **more)
        check_footer(path)
        for local in (True, False):
            check_pages(path, *RELEASE_39.features, "device_id", "tags", local=local)


FIELDS = {
    "a page of numbers": b"\x15\0\x15\x08\x15\x0a\x2c\x15\x02\x15\0\x15\x06\x15\x06\x1c\x18\x08" + bytes(11),
    "with a checksum": b"\x15\0\x15\x08\x15\x0a\x15\x99\x07\x1c\x15\x02\x15\0\x15\x06\x15\x06\0\0",
    "of texts": b"\x15\0\x15\x08\x15\x0a\x2c\x15\x02\x15\0\x15\x06\x15\x06\x1c\x18\x03abc\0\0\0",
    "of a dictionary": b"\x15\x04\x15\x08\x15\x0a\x4c\x15\x02\x15\x04\x12\0\0",
    "a number in two bytes": b"\x15\0\x15\x88\0\x15\x8a\0\0",
    "a size that comes again": b"\x15\0\x15\x02\x15\x0a\x2c\x15\x02\0\x05\x04\x08\0",
    "sizes in another order": b"\x15\0\x25\x0a\x05\x04\x08\0",
}  # fmt: skip


@pytest.mark.parametrize("header", FIELDS.values(), ids=FIELDS)
def test_sizes_of_a_page_are_those_of_its_header_however_it_is_written(tmp_path: Path, header: bytes) -> None:
    pages = tmp_path / "pages"
    pages.write_bytes(b"PAR1" + header + b"12345" + header + b"12345")
    for end in (3, 2_000_000):  # also where the file ends with the page, and where more than the first bytes are read
        with pa.OSFile(str(pages)) as stream:
            found = list(parquet_limits._pages(stream, 4, 2 * (len(header) + 5) + end))
            assert found[:2] == [4, 4]
            assert len(found) == 2


@pytest.mark.parametrize("cut", range(1, 20))
@pytest.mark.parametrize("header", FIELDS.values(), ids=FIELDS)
def test_a_header_that_ends_with_the_file_or_has_a_negative_size_ends_the_pages(
    tmp_path: Path, header: bytes, cut: int
) -> None:
    (tmp_path / "cut").write_bytes(header[: max(0, len(header) - cut)])
    (tmp_path / "negative").write_bytes(header.replace(b"\x0a", b"\x0b", 1).replace(b"\x8a\0", b"\x8b\0", 1))
    for name in ("cut", "negative"):
        with pa.OSFile(str(tmp_path / name)) as stream:
            assert list(parquet_limits._pages(stream, 0, 100)) == []


def test_columns_nested_deep_end_a_process_that_reads_them_and_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.parquet"
    hostile_files.nested_columns(path, 4_000)
    reading = f"import pyarrow.parquet as pq; pq.ParquetFile({str(path)!r}).schema_arrow"
    assert path.stat().st_size < 40_000
    hostile_files.nested_columns(tmp_path / "deeper.parquet", 100_000)
    died = subprocess.run([sys.executable, "-c", reading.replace("deep.", "deeper.")], check=False, timeout=60)
    assert died.returncode < 0  # by a signal
    with pytest.raises(BeyondLimits) as error:
        check_footer(path)
    assert error.value.reason == "too_deep"
    hostile_files.nested_columns(path, parquet_limits.DEEPEST - 1)
    check_footer(path)


def test_a_page_that_unpacks_to_far_more_than_the_footer_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    hostile_files.page_bomb(path, "Rate")
    assert path.stat().st_size < 20_000
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 8_100
    for local in (True, False):
        with pytest.raises(BeyondLimits, match="160,000,009 bytes") as error:
            check_pages(path, "Rate", local=local)
    assert error.value.reason == "too_large_page"
    check_pages(path, "another")


class _Keys(encryption.KmsClient):
    """Wraps no key: for files that nobody is to decrypt."""

    def __init__(self, _: encryption.KmsConnectionConfig) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, _: str) -> bytes:
        return base64.b64encode(key_bytes)


@pytest.mark.parametrize("plain_footer", [False, True])
def test_a_file_with_encrypted_columns_is_named_before_pyarrow_ends_the_process(
    tmp_path: Path, plain_footer: bool
) -> None:
    """With a plain footer pyarrow opens the file; asked for the size of the encrypted column, it ends the process."""
    folder = tmp_path / f"event_date={DATE}"
    folder.mkdir()
    chosen = encryption.EncryptionConfiguration(
        "footer", column_keys={"columns": ["Rate"]}, plaintext_footer=plain_footer
    )
    factory = encryption.CryptoFactory(_Keys)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), chosen)
    pq.write_table(table(), folder / "a.parquet", encryption_properties=properties)
    pq.write_table(table(), folder / "b.parquet")
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    source = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert source is not None
    found = [(file.name, file.rows, file.reason) for file in source.files]
    assert found == [("a.parquet", 0, "encrypted_parquet"), ("b.parquet", 500, None)]
    (folder / "a.parquet").rename(tmp_path / "Benign_train.parquet")
    with pytest.raises(SourceUnusable, match=r"Benign_train\.parquet is not read: encrypted parquet"):
        discover(IngestConfig(source=str(tmp_path / "Benign_train.parquet")))


LIMITS: dict[str, tuple[str, int, Callable[[Path], object]]] = {
    "too_large_footer": ("LARGEST_FOOTER", 2_000, lambda path: pq.write_table(table(), path)),
    "too_many_columns": ("MOST_COLUMNS", 40, lambda path: pq.write_table(table(), path)),
    "too_many_row_groups": ("MOST_ROW_GROUPS", 9, lambda path: pq.write_table(table(), path, row_group_size=50)),
    "too_long_name": ("LONGEST_NAME", 30, lambda path: pq.write_table(table().rename_columns(
        [*table().column_names[:-1], "x" * 31]), path)),
}  # fmt: skip


@pytest.mark.parametrize("reason", LIMITS)
def test_a_file_of_a_night_beyond_a_limit_is_listed_with_its_reason_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    limit, most, write = LIMITS[reason]
    folder = tmp_path / f"event_date={DATE}"
    folder.mkdir()
    write(folder / "a.parquet")
    check_footer(folder / "a.parquet")
    pq.write_table(table(10).drop_columns(["device_id"]), folder / "b.parquet")
    if reason == "too_large_footer":
        most = int.from_bytes((folder / "b.parquet").read_bytes()[-8:-4], "little")
    monkeypatch.setattr(parquet_limits, limit, most)
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    source = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert source is not None
    assert [(file.name, file.reason, file.rows) for file in source.files] == [
        ("a.parquet", reason, 0),
        ("b.parquet", None, 10),
    ]


def test_a_row_group_with_a_page_beyond_the_limit_is_refused_with_its_identifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"event_date={DATE}"
    folder.mkdir()
    pq.write_table(table(2_000), folder / "a.parquet", use_dictionary=["device_id"], compression="none")
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    source = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert source is not None
    monkeypatch.setattr(parquet_limits, "LARGEST_PAGE", 8_000)  # a column of 2,000 doubles has more
    [rows] = night_reader.read_row_group(source.row_groups[0], SPEC)
    assert rows.refused.rows["reason"].unique().to_pylist() == ["too_large_page"]
    assert rows.refused.rows["device_id"].to_pylist() == [f"pump-{i % 9}" for i in range(2_000)]
    assert not rows.refused.unread


def test_files_beyond_the_most_of_a_night_are_counted_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night_files, "MOST_FILES", 3)
    folder = tmp_path / f"event_date={DATE}"
    folder.mkdir()
    for i in range(6):
        pq.write_table(table(10), folder / f"{i}.parquet")
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    source = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert source is not None
    assert [file.reason for file in source.files] == [None, None, None, "too_many_files"]
    assert source.files[-1].name == "3.parquet and all after it (3)"
    assert source.rows == 30


def test_a_checkpoint_of_a_delta_table_is_checked_as_well(tmp_path: Path) -> None:
    log = tmp_path / "_delta_log"
    log.mkdir()
    hostile_files.nested_columns(log / f"{7:020}.checkpoint.parquet", 4_000)
    with pytest.raises(files.UnsupportedTable, match="nested more than 32 levels deep"):
        files.inventory(str(tmp_path))


def test_every_damaged_footer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(20), path)
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    random = np.random.default_rng(3)
    for cut in (*random.integers(0, len(content), 40).tolist(), 0, 4, 8):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"\w"):
            check_footer(path)
    for _ in range(300):  # whatever the bytes are: within the limits, or an error that readers of files expect
        damaged = bytearray(content)
        for at in random.integers(len(content) - 8 - size, len(content) - 8, 3):
            damaged[at] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            check_footer(path)
            check_pages(path, *RELEASE_39.features)
        except (ValueError, OSError, pa.ArrowException):
            pass
