import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import synthetic_frame, write_synthetic_source
from hypothesis import given
from hypothesis import strategies as st

from ids_spark.schema import ORIGINAL_45, RELEASE_39
from ids_spark.sources import Piece, SourceUnusable, deal, discover, row_groups

CLASSES = {"Benign", "DDoS-ICMP", "MQTT-DDoS-Connect_Flood", "Recon-VulScan", "ARP_Spoofing"}


@pytest.fixture
def tree(tmp_path):
    write_synthetic_source(tmp_path / "flows", rows=5)
    return tmp_path / "flows"


def to_parquet(tree, as_folder=False):
    """Replace each CSV file by one of parquet, or by a folder as Spark writes it."""
    for path in sorted(tree.rglob("*.csv")):
        frame = pd.read_csv(path)
        target = path.with_suffix(".parquet")
        path.unlink()
        if as_folder:
            target.mkdir()
            (target / "_SUCCESS").touch()
            (target / "._SUCCESS.crc").touch()
            frame.iloc[:3].to_parquet(target / "part-00000-1a2b.c000.snappy.parquet", index=False)
            frame.iloc[3:].to_parquet(target / "part-00001-1a2b.c000.snappy.parquet", index=False)
        else:
            frame.to_parquet(target, index=False, row_group_size=2)


def refusal(source):
    with pytest.raises(SourceUnusable) as error:
        discover(str(source))
    return str(error.value)


def spoil(path, change):
    frame = pd.read_csv(path)
    change(frame).to_csv(path, index=False)


@pytest.mark.parametrize("schema", [ORIGINAL_45, RELEASE_39], ids=lambda s: s.name)
def test_a_tree_of_csv_files_takes_class_and_split_from_names(tmp_path, schema):
    write_synthetic_source(tmp_path, rows=200, schema=schema.name)
    source = discover(f"{tmp_path}/")
    assert (source.schema, source.files, source.data_origin, source.narrow) == (schema, 12, "measured", frozenset())
    assert {(p.class19, p.split) for p in source.pieces} == {(c, s) for c in CLASSES for s in ("train", "test")}
    assert all(p.name == f"{p.split}/{p.uri.rsplit('/', 1)[1]}" and p.row_group is None for p in source.pieces)
    assert 600 < source.rows("train") < 5_000  # an estimate, of 1,200


def test_a_tree_of_parquet_files_is_cut_into_row_groups(tree):
    to_parquet(tree)
    source = discover(str(tree))
    assert (source.files, len(source.pieces), source.rows("train"), source.rows("test")) == (12, 36, 30, 30)
    one = [p for p in source.pieces if p.name == "train/TCP_IP-DDoS-ICMP2_train.pcap.parquet"]
    assert [(p.row_group, p.first_row, p.rows, p.class19) for p in one] == [
        (0, 0, 2, "DDoS-ICMP"),
        (1, 2, 2, "DDoS-ICMP"),
        (2, 4, 1, "DDoS-ICMP"),
    ]


def test_a_folder_of_part_files_counts_as_the_capture_it_is_named_for(tree):
    to_parquet(tree, as_folder=True)
    source = discover(str(tree))
    assert (source.files, source.rows("train"), source.rows("test")) == (24, 30, 30)
    assert {p.class19 for p in source.pieces} == CLASSES


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("place", ["alone", "folder", "named", "tables"])
def test_a_table_with_a_label_column_is_read_in_every_form(tmp_path, ending, place):
    frame = synthetic_frame(4, 0)
    marked = place in ("alone", "folder")
    frame["label"] = (
        ["Benign", "DoS-TCP", "Benign", "ARP_Spoofing"]
        if not marked
        else [
            "Benign_train",
            "TCP_IP-DoS-TCP1_train",
            "Benign_test",
            "ARP_Spoofing_test",
        ]
    )
    paths = {"alone": ["all"], "folder": ["all"], "named": ["train/a", "test/a"], "tables": ["x/train", "x/test"]}[
        place
    ]
    for path in paths:
        target = tmp_path / f"{path}.{ending}"
        target.parent.mkdir(exist_ok=True)
        frame.to_csv(target, index=False) if ending == "csv" else frame.to_parquet(target, index=False)
    source = discover(str(tmp_path / f"all.{ending}" if place == "alone" else tmp_path))
    assert {p.class19 for p in source.pieces} == {None}
    assert [p.name for p in source.pieces] == sorted(f"{p}.{ending}" for p in paths)
    assert {p.name: p.split for p in source.pieces} == {
        f"{p}.{ending}": None if marked else ("train" if "train" in p else "test") for p in paths
    }
    if ending == "parquet":
        assert (source.rows("train"), source.rows("test")) == (4, 4)


def test_a_single_file_may_be_the_source(tree):
    [piece] = discover(str(tree / "train" / "Benign_train.pcap.csv")).pieces
    assert (piece.name, piece.class19, piece.split) == ("Benign_train.pcap.csv", "Benign", "train")


def test_a_header_with_a_byte_order_mark_is_read(tree):
    path = tree / "train" / "Benign_train.pcap.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert discover(str(tree)).schema is RELEASE_39


def test_hidden_files_are_no_part_of_a_source(tree):
    (tree / "_notes.csv").write_text("x\n")
    (tree / ".tmp").mkdir()
    (tree / ".tmp" / "Benign_train.csv").write_text("x\n")
    assert discover(str(tree)).files == 12


def test_a_marked_source_is_synthetic_and_narrow_columns_are_named(tree):
    to_parquet(tree)
    (tree / "_SYNTHETIC.json").write_text("{}")
    path = tree / "train" / "Benign_train.pcap.parquet"
    pd.read_parquet(path).astype({"Rate": np.float32}).to_parquet(path, index=False)
    source = discover(str(tree))
    assert (source.data_origin, source.narrow) == ("synthetic", {"Rate"})


def test_no_folder_and_an_empty_folder_are_refused(tmp_path):
    assert refusal(tmp_path / "no") == (
        f"{tmp_path}/no: no such file or folder; set ingest.source to a folder of CICIoMT2024 files"
    )
    (tmp_path / "notes.txt").touch()
    assert refusal(tmp_path) == (
        f"{tmp_path}: found no .csv or .parquet file below it; expected the official files or a table"
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "Benign_train.pcap.csv",
            lambda p: p.rename(p.with_name("Mirai_train.csv")),
            "'Mirai_train.csv' names no known",
        ),
        ("Benign_train.pcap.csv", lambda p: spoil(p, lambda f: f.drop(columns="Rate")), "lacks 1 of the 39 columns of"),
        ("Benign_train.pcap.csv", lambda p: p.write_text(""), "Benign_train.pcap.csv is empty; expected a header line"),
        (
            "Benign_train.pcap.csv",
            lambda p: p.write_text(p.read_text().replace("Rate", "Rate,Rate", 1)),
            "train/Benign_train.pcap.csv: column(s) Rate stand more than once; keep one of each",
        ),
        (
            "Benign_train.pcap.csv",
            lambda p: p.rename(p.parents[1] / "Benign.csv"),
            "Benign.csv: cannot tell train from test; name the file …_train or …_test, or its folder train or test",
        ),
        (
            "Benign_train.pcap.csv",
            lambda p: synthetic_frame(3, 0, "original45").to_csv(p, index=False),
            "mixes two feature schemas, which no model may see together: 11 files of release39, 1 files of original45",
        ),
        ("Benign_train.pcap.parquet", truncate, "cannot be read as parquet, it may be truncated"),
        (
            "Benign_train.pcap.parquet",
            lambda p: pd.read_parquet(p).astype({"Rate": str, "IAT": bool}).to_parquet(p, index=False),
            "train/Benign_train.pcap.parquet: expected numbers, found column(s) of another type: 'Rate' is string,"
            " 'IAT' is bool",
        ),
    ],
)
def test_a_source_with_a_fault_is_refused_with_the_file_named(tree, name, change, message):
    if name.endswith(".parquet"):
        to_parquet(tree)
    change(tree / "train" / name)
    text = refusal(tree)
    assert text.startswith(f"{tree}: 1 fault(s) in 12 file(s):\n  ")
    assert message in text
    assert text.count("\n") == 1


def test_every_fault_of_a_source_is_reported_at_once(tree):
    train = tree / "train"
    (train / "Benign_train.pcap.csv").write_text("")
    spoil(train / "ARP_Spoofing_train.pcap.csv", lambda f: f.drop(columns=["IAT", "Std"]))
    shutil.copy(train / "Recon-VulScan_train.pcap.csv", train / "Other_train.csv")
    text = refusal(tree)
    assert text.startswith(f"{tree}: 3 fault(s) in 13 file(s):\n  ")
    for part in ("is empty", "ARP_Spoofing_train.pcap.csv lacks 2 of the 39", "'Other_train.csv' names no known class"):
        assert part in text


def test_of_many_faults_ten_are_shown(tree):
    for i in range(13):
        (tree / f"Other{'x' * i}_train.csv").write_text("a,b\n1,2\n")
    assert refusal(tree).endswith("\n  and 3 more")


def test_row_groups_of_flows_are_listed_with_their_columns(tmp_path):
    with pytest.raises(SourceUnusable, match=r"found no \.parquet file; expected a folder of flows"):
        row_groups(str(tmp_path))
    pq.write_table(pa.table({"a": range(5), "b": range(5)}), tmp_path / "p.parquet", row_group_size=3)
    for source in (tmp_path, tmp_path / "p.parquet"):
        found = [(p.name, p.row_group, p.first_row, p.rows, columns) for p, columns in row_groups(str(source))]
        assert found == [("p.parquet", 0, 0, 3, ("a", "b")), ("p.parquet", 1, 3, 2, ("a", "b"))]


@given(st.lists(st.integers(0, 10_000), max_size=60), st.integers(1, 12))
def test_every_piece_is_dealt_once_and_hands_are_even(sizes, tasks):
    pieces = [Piece("u", f"f{i}", None, 0, rows, None, None) for i, rows in enumerate(sizes)]
    hands = deal(pieces, tasks)
    assert sorted(p.name for hand in hands for p in hand) == sorted(p.name for p in pieces)
    assert len(hands) == max(1, min(tasks, len(pieces)))
    loads = [sum(p.rows for p in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(sizes, default=0) + len(pieces)


@given(st.randoms())
def test_the_deal_does_not_depend_on_the_order_of_pieces(random):
    pieces = [Piece("u", f"f{i}", None, 0, i % 4, None, None) for i in range(20)]
    assert deal(random.sample(pieces, 20), 6) == deal(pieces, 6)
