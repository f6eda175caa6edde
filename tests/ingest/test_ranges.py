"""A large CSV file in ranges of bytes, or a row group in parts, gives the rows, numbers and refusals of the whole."""

import gzip
import itertools
import json
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_spark.config.settings import IngestConfig
from ids_spark.dataset.features import RELEASE_39
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.ingest import files, readers, sources
from ids_spark.ingest.readers import consecutive, counted, read_typed
from ids_spark.ingest.rows import typed_contract
from ids_spark.ingest.sources import RowGroup, SourceUnusable, discover
from ids_spark.lake import parquet
from tests.support.flows import synthetic_frame

FEATURES = RELEASE_39.features
HEADER = ",".join([*reversed(FEATURES), "note", "label"])
LONGEST = 700
"""Bytes of the longest line in these tests; the header has fewer."""


def cells(i, note="", label="Benign_train", **values):
    own = {"Header_Length": str(i), **values}
    return ",".join([*(own.get(name, "0.5") for name in reversed(FEATURES)), note, label]).encode()


LINES = {
    "good": cells,
    "other label": lambda i: cells(i, label="TCP_IP-DDoS-ICMP1_train"),
    "infinite": lambda i: cells(i, Rate="inf"),
    "padded": lambda i: cells(i, Rate=" 1.5\t"),
    "quoted": lambda i: cells(i, Rate='"1.5"'),
    "a quote": lambda i: cells(i, note='"'),
    "missing": lambda i: cells(i, Rate=""),
    "nan": lambda i: cells(i, Rate="nan"),
    "text": lambda i: cells(i, Rate="abc"),
    "negative": lambda i: cells(i, Rate="-1"),
    "unknown label": lambda i: cells(i, label="Mirai_train"),
    "no UTF-8": lambda i: cells(i).replace(b"0.5", b"0.5\xff"),
    "no ASCII": lambda i: cells(i, note="Überwachung\u2028"),
    "few fields": lambda i: b"1.5,%d" % i,
    "many fields": lambda i: cells(i) + b",1",
    "blank": lambda i: b"",
    "spaces": lambda i: b"  ",
    "mark": lambda i: b"\xef\xbb\xbf" + cells(i),
    "NUL": lambda i: cells(i, note="\x00"),
    "carriage return": lambda i: cells(i, note="\r"),
    "long": lambda i: cells(i, note="x" * 2 * LONGEST),
    "very long": lambda i: cells(i, note="é" * 20 * LONGEST + "\r" + "y" * LONGEST),
    "header": lambda i: HEADER.encode(),
}
ENDS = {"LF": (b"\n",), "CR": (b"\r",), "mixed": (b"\r\n", b"\r", b"\n")}


def read(row_groups):
    """Return flows in order, quarantine, counts and warnings of row groups.

    Raw values are without the label, which is stored if a row of the same block has an unknown one.
    """
    parts = [part for row_group in row_groups for part in read_typed(row_group, RELEASE_39)]
    flows = pa.concat_tables([typed_contract(RELEASE_39).empty_table(), *(part.flows for part in parts)])
    refused = pa.concat_tables([QUARANTINE.empty_table(), *(part.quarantine for part in parts)])
    rows = [row | {"raw": json.loads(row["raw"])} for row in refused.to_pylist()]
    totals = [sum((getattr(part, name) for part in parts), start=type(parts[0].read)()) for name in COUNTS]
    return flows.to_pylist(), sorted(rows, key=lambda row: row["source_row"]), totals


COUNTS = ("read", "warnings", "unknown_labels")


def whole_file(folder):
    [row_group] = discover(IngestConfig(source=str(folder), ignored_columns=("note",))).row_groups
    return row_group


def ranges_of(whole, cuts):
    bounds = [0, *sorted(cuts), Path(whole.uri.removeprefix("file://")).stat().st_size]
    return consecutive(
        [counted(RowGroup(**{**vars(whole), "start": a, "end": b})) for a, b in itertools.pairwise(bounds)]
    )


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@settings(max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(list(LINES)), min_size=0, max_size=25),
    at_end=st.booleans(),
    mark=st.booleans(),
    block=st.sampled_from([900, 2_000, 1 << 20]),
    places=st.lists(st.floats(0, 1), max_size=12),
    near=st.booleans(),
)
def test_ranges_give_the_rows_of_the_whole_file(ends, kinds, at_end, mark, block, places, near):
    lines = [HEADER.encode(), *(LINES[kind](i) for i, kind in enumerate(kinds))]
    content = b"".join(line + end for line, end in zip(lines, itertools.cycle(ends), strict=False))
    content = (b"\xef\xbb\xbf" if mark else b"") + (content if at_end else content.rstrip(b"\r\n"))
    cuts = {int(place * len(content)) for place in places}
    if near:  # at the bytes around the ends of lines
        places = [i for i, byte in enumerate(content) if byte in b"\r\n"]
        cuts = {random.Random(cut).choice(places) + cut % 3 for cut in cuts if places}
    cuts = {cut for cut in cuts if 0 < cut < len(content)}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "LONGEST_LINE", LONGEST)
        (Path(folder) / "all_train.csv").write_bytes(content)
        whole = whole_file(folder)
        expected = read([whole])
        patch.setattr(readers, "_CSV_BLOCK_BYTES", block)
        patch.setattr(readers, "_SEARCHED_BYTES", 50)
        assert read([whole]) == expected
        ranges = ranges_of(whole, cuts)
        assert read(ranges or [whole]) == expected
        assert sum(each.rows for each in ranges) == expected[2][0].total()
    numbers = sorted([*(row["source_row"] for row in expected[0]), *(row["source_row"] for row in expected[1])])
    assert numbers == list(range(expected[2][0].total()))


def test_a_header_alone_is_a_file_without_rows_with_or_without_a_line_end(tmp_path):
    for end in (b"", b"\n", b"\r", b"\r\n"):
        (tmp_path / "all_train.csv").write_bytes(HEADER.encode() + end)
        flows, quarantined, totals = read([whole_file(tmp_path)])
        assert (flows, quarantined, totals[0].total()) == ([], [], 0)


def test_bytes_of_a_line_without_end_are_searched_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", LONGEST)
    lines = [HEADER.encode(), cells(0), cells(1, note="x" * 100_000), cells(2)]
    (tmp_path / "all_train.csv").write_bytes(b"\n".join(lines))
    whole = whole_file(tmp_path)
    ranges = ranges_of(whole, range(1_000, 100_000, 1_000))
    assert [(each.first_row, each.rows) for each in ranges] == [(0, 2), (2, 1)]
    assert all(each.end - each.start <= 2_000 + LONGEST for each in ranges)
    assert read(ranges) == read([whole])


def test_a_file_that_changes_after_its_lines_were_counted_is_named(tmp_path):
    path = tmp_path / "all_train.csv"
    path.write_bytes(b"\n".join([HEADER.encode(), *(cells(i) for i in range(10))]))
    ranges = ranges_of(whole_file(tmp_path), [1_500])
    path.write_bytes(b"\n".join([HEADER.encode(), *(cells(10 * i) for i in range(10))]))
    with pytest.raises(SourceUnusable, match=r"all_train\.csv: found \d rows in bytes .* it has changed meanwhile"):
        read(ranges)


@pytest.fixture
def large_files(tmp_path, monkeypatch):
    """A source of one CSV file that is read in ranges, and one that is smaller."""
    monkeypatch.setattr(sources, "_WHOLE_CSV_BYTES", 100_000)
    monkeypatch.setattr(sources, "_RANGE_BYTES", 30_000)
    for split, rows in (("train", 600), ("test", 30)):
        frame = synthetic_frame(rows, seed=rows)
        frame.loc[::50, "Rate"] = -1.0
        path = tmp_path / "source" / split / f"Benign_{split}.pcap.csv"
        path.parent.mkdir(parents=True)
        frame.to_csv(path, index=False)
    return tmp_path / "source"


def test_large_files_are_divided_and_their_estimated_rows_are_the_same(large_files, monkeypatch):
    source = discover(IngestConfig(source=str(large_files)))
    train = [each for each in source.row_groups if each.split == "train"]
    size = (large_files / "train" / "Benign_train.pcap.csv").stat().st_size
    assert len(train) == -(-size // 30_000)
    assert [each.start for each in train] == [0, *(each.end for each in train[:-1])]
    assert train[-1].end == size
    assert len(source.row_groups) == len(train) + 1
    joined = discover(IngestConfig(source=str(large_files), window=100))
    assert len(joined.row_groups) == 2
    monkeypatch.undo()
    assert discover(IngestConfig(source=str(large_files))).rows("train") == source.rows("train") == joined.rows("train")


def test_ingest_of_ranges_writes_the_same_tables(large_files, tmp_path, run_job, monkeypatch):
    for lake in ("ranges", "whole"):
        assert run_job("ingest", lake=tmp_path / lake, ingest__source=large_files) == 0
        monkeypatch.undo()
    for split, rows in (("train", 588), ("test", 29)):
        found = [pq.read_table(tmp_path / lake / "flows" / f"split={split}") for lake in ("ranges", "whole")]
        assert found[0].equals(found[1])
        assert len(found[0]) == rows
    refused = [pq.read_table(tmp_path / lake / "quarantine").drop(["run_id"]) for lake in ("ranges", "whole")]
    order = [("split", "ascending"), ("source_row", "ascending")]
    assert refused[0].sort_by(order).equals(refused[1].sort_by(order))
    assert refused[0].filter(pa.compute.equal(refused[0]["split"], "train")).num_rows == 12


def test_a_note_names_gzip_that_one_task_has_read(large_files, monkeypatch):
    text = (large_files / "train" / "Benign_train.pcap.csv").read_bytes()
    (large_files / "train" / "Benign_train.pcap.csv").unlink()
    (large_files / "train" / "Benign_train.pcap.csv.gz").write_bytes(gzip.compress(text))
    source = discover(IngestConfig(source=str(large_files)))
    assert [each.end for each in source.row_groups] == [None, None]
    [note] = source.undivided_notes()
    assert note.startswith("train/Benign_train.pcap.csv.gz: each was read by one task, as gzip cannot be divided")
    monkeypatch.undo()
    assert discover(IngestConfig(source=str(large_files))).undivided_notes() == []


@pytest.mark.parametrize("rows", [33, 39, 40, 41, 100, 203])
def test_a_large_row_group_is_read_in_parts_of_whole_pieces(tmp_path, monkeypatch, rows):
    for module in (parquet, sources):
        monkeypatch.setattr(module, "PIECE_ROWS", 8)
    monkeypatch.setattr(parquet, "WHOLE_ROWS", 10)
    frame = synthetic_frame(rows + 5, seed=rows)
    frame.loc[::7, "Rate"] = None
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pq.ParquetWriter(tmp_path / "Benign_train.parquet", table.schema) as writer:
        writer.write_table(table.slice(0, 5))
        writer.write_table(table.slice(5))
    whole = discover(IngestConfig(source=str(tmp_path))).row_groups
    assert [(each.index, each.rows, each.end) for each in whole] == [(0, 5, None), (1, rows, None)]
    expected = read(whole)
    monkeypatch.setattr(sources, "_PART_ROWS", 16)
    parts = discover(IngestConfig(source=str(tmp_path))).row_groups
    assert len(parts) == (1 + min(8, -(-rows // 16)) if rows <= 128 else 1 + -(-rows // 32))
    assert read(parts) == expected
    assert [each.first_row for each in parts][:3] == [0, 5, 5 + parts[1].rows]
    assert len(discover(IngestConfig(source=str(tmp_path), window=100)).row_groups) == 2
