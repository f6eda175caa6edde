import gzip
import json
import os
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ids_spark.config.settings import IngestConfig
from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39
from ids_spark.ingest import files
from ids_spark.ingest.sources import RowGroup, SourceUnusable, bin_pack, discover, parquet_row_groups
from tests.support.flows import synthetic_frame, write_synthetic_source

CLASSES = {"Benign", "DDoS-ICMP", "MQTT-DDoS-Connect_Flood", "Recon-VulScan", "ARP_Spoofing"}


@pytest.fixture
def tree(tmp_path):
    write_synthetic_source(tmp_path / "flows", rows=5)
    return tmp_path / "flows"


def to_parquet(tree, as_folder=False):
    """Replace each CSV file by one of parquet, or by a folder as Spark writes it."""
    for path in sorted(tree.rglob("*.csv")):
        frame, target = pd.read_csv(path), path.with_suffix(".parquet")
        path.unlink()
        if as_folder:
            target.mkdir()
            (target / "_SUCCESS").touch()
            for i, rows in enumerate((frame.iloc[:3], frame.iloc[3:])):
                rows.to_parquet(target / f"part-0000{i}-1a2b.c000.snappy.parquet", index=False)
        else:
            frame.to_parquet(target, index=False, row_group_size=2)


def refusal(source):
    with pytest.raises(SourceUnusable) as error:
        discover(IngestConfig(source=str(source)))
    return str(error.value)


def drop(path, *columns):
    pd.read_csv(path).drop(columns=list(columns)).to_csv(path, index=False)


@pytest.mark.parametrize("schema", [ORIGINAL_45, RELEASE_39], ids=lambda s: s.name)
def test_a_tree_of_csv_files_takes_class_and_split_from_names(tmp_path, schema):
    write_synthetic_source(tmp_path, rows=200, schema=schema.name)
    source = discover(IngestConfig(source=f"{tmp_path}/"))
    assert (source.schema, source.files, source.data_origin, source.narrow) == (schema, 12, "measured", frozenset())
    assert {(p.class19, p.split) for p in source.row_groups} == {(c, s) for c in CLASSES for s in ("train", "test")}
    assert all(p.name == f"{p.split}/{p.uri.rsplit('/', 1)[1]}" and p.index is None for p in source.row_groups)
    assert 600 < source.rows("train") < 5_000  # an estimate, of 1,200


def test_a_tree_of_parquet_files_is_cut_into_row_groups(tree):
    to_parquet(tree)
    source = discover(IngestConfig(source=str(tree)))
    assert (source.files, len(source.row_groups), source.rows("train"), source.rows("test")) == (12, 36, 30, 30)
    one = [p for p in source.row_groups if p.name == "train/TCP_IP-DDoS-ICMP2_train.pcap.parquet"]
    assert [(p.index, p.first_row, p.rows) for p in one] == [(0, 0, 2), (1, 2, 2), (2, 4, 1)]
    assert {p.class19 for p in one} == {"DDoS-ICMP"}


def test_a_folder_of_part_files_counts_as_the_capture_it_is_named_for(tree):
    to_parquet(tree, as_folder=True)
    source = discover(IngestConfig(source=str(tree)))
    assert (source.files, source.rows("train"), source.rows("test")) == (24, 30, 30)
    assert {p.class19 for p in source.row_groups} == CLASSES


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("paths", "single"),
    [(["all"], True), (["all"], False), (["train/a", "test/a"], False), (["x/train", "x/test"], False)],
)
def test_a_table_with_a_label_column_is_read_in_every_form(tmp_path, ending, paths, single):
    marked = paths == ["all"]
    labels = ["Benign_train", "DoS-TCP1_test", "Benign_test"] if marked else ["Benign", "DoS-TCP", "Benign"]
    frame = synthetic_frame(3, 0).assign(label=labels)
    for path in paths:
        target = tmp_path / f"{path}.{ending}"
        target.parent.mkdir(exist_ok=True)
        frame.to_csv(target, index=False) if ending == "csv" else frame.to_parquet(target, index=False)
    source = discover(IngestConfig(source=str(tmp_path / f"all.{ending}" if single else tmp_path)))
    assert {p.class19 for p in source.row_groups} == {None}
    assert [p.name for p in source.row_groups] == sorted(f"{p}.{ending}" for p in paths)
    assert {p.name: p.split for p in source.row_groups} == {
        f"{p}.{ending}": None if marked else ("train" if "train" in p else "test") for p in paths
    }
    assert ending == "csv" or (source.rows("train"), source.rows("test")) == (3, 3)


def test_a_single_file_may_be_the_source(tree):
    [row_group] = discover(IngestConfig(source=str(tree / "train" / "Benign_train.pcap.csv"))).row_groups
    assert (row_group.name, row_group.class19, row_group.split) == ("Benign_train.pcap.csv", "Benign", "train")


def test_hidden_files_and_a_byte_order_mark_change_nothing(tree):
    path = tree / "train" / "Benign_train.pcap.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (tree / ".tmp").mkdir()
    for hidden in ("_notes.csv", ".tmp/Benign_train.csv"):
        (tree / hidden).write_text("x\n")
    source = discover(IngestConfig(source=str(tree)))
    assert (source.schema, source.files) == (RELEASE_39, 12)


def test_a_marked_source_is_synthetic_and_narrow_columns_are_named(tree):
    to_parquet(tree)
    (tree / "_SYNTHETIC.json").write_text("{}")
    path = tree / "train" / "Benign_train.pcap.parquet"
    pd.read_parquet(path).astype({"Rate": np.float32}).to_parquet(path, index=False)
    source = discover(IngestConfig(source=str(tree)))
    assert (source.data_origin, source.narrow) == ("synthetic", {"Rate"})
    (tree / "_SYNTHETIC.json").write_text('{"complete": false}')
    assert refusal(tree) == f"{tree}: this synthetic data set is incomplete; rerun jobs/synthesize.py"


def test_no_folder_and_an_empty_folder_are_refused(tmp_path):
    absent = refusal(tmp_path / "no")
    assert absent == f"{tmp_path}/no: no such file or folder; set ingest.source to a folder of CICIoMT2024 files"
    (tmp_path / "notes.txt").touch()
    expected = "found no .csv or .parquet file below it; expected the official files or a table"
    assert refusal(tmp_path).startswith(f"{tmp_path}: {expected}; not read: notes.txt: its ending is")


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("csv", lambda p: p.rename(p.with_name("Mirai_train.csv")), "'Mirai_train.csv' names no known class: found"),
        ("csv", lambda p: drop(p, "Rate"), "csv lacks 1 of the 39 columns of"),
        ("csv", lambda p: p.write_text(""), "Benign_train.pcap.csv is not read: it has no byte"),
        (
            "csv",
            lambda p: p.write_text(p.read_text().replace("Rate", "Rate,Rate", 1)),
            "train/Benign_train.pcap.csv: column(s) Rate occur more than once; keep one of each",
        ),
        (
            "csv",
            lambda p: p.rename(p.parents[1] / "Benign.csv"),
            "Benign.csv: belongs to no split; name the file …_train or …_test, or its folder train or test",
        ),
        (
            "csv",
            lambda p: synthetic_frame(3, 0, "original45").to_csv(p, index=False),
            "mixes two feature schemas, which no model can use together: 11 files of release39, 1 files of original45",
        ),
        ("parquet", lambda p: p.write_bytes(p.read_bytes()[:-20]), "cannot be read as parquet, it may be truncated"),
        (
            "parquet",
            lambda p: pd.read_parquet(p).astype({"Rate": str, "IAT": bool}).to_parquet(p, index=False),
            "expected numbers, found column(s) of another type: 'Rate' is string, 'IAT' is bool",
        ),
    ],
)
def test_a_source_with_a_fault_is_refused_with_the_file_named(tree, ending, change, message):
    if ending == "parquet":
        to_parquet(tree)
    change(tree / "train" / f"Benign_train.pcap.{ending}")
    text = refusal(tree)
    assert text.startswith(f"{tree}: 1 fault(s) in 12 file(s):\n  ")
    assert (message in text, text.count("\n")) == (True, 1)


def test_every_fault_of_a_source_is_reported_at_once(tree):
    (tree / "train" / "Benign_train.pcap.csv").write_text("")
    drop(tree / "train" / "ARP_Spoofing_train.pcap.csv", "IAT", "Std")
    (tree / "Other_train.csv").write_text("a,b\n")
    text = refusal(tree)
    assert text.startswith(f"{tree}: 3 fault(s) in 13 file(s):\n  ")
    for part in ("it has no byte", "ARP_Spoofing_train.pcap.csv lacks 2 of the 39", "Other_train.csv lacks"):
        assert part in text


def test_at_most_ten_faults_are_shown_and_equal_ones_once(tree):
    for i in range(13):
        (tree / f"Other{'x' * i}_train.csv").write_text(f"a,b{i}\n1,2\n")
    text = refusal(tree)
    assert (text.endswith("\n  and 3 more"), text.count("\n")) == (True, 11)
    for i in range(13):
        (tree / f"Other{'x' * i}_train.csv").write_text("a,b\n1,2\n")
    text = refusal(tree)
    assert (" and 3 more lacks 39 of the 39" in text, text.count("\n")) == (True, 1)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html>\n<html><head><title>Log in</title>", "an HTML page"),
        (b"PK\x03\x04" + bytes(30), "a zip archive"),
        ("Rate,IAT\n1,2\n".encode("utf-16"), "text in UTF-16"),
        ("Rate,IAT\n1,2\n".encode("utf-16-le"), "text in UTF-16"),
        (b"Rate;IAT\n1,5;2,5\n", "separated by semicolons"),
        (b"Rate\tIAT\n1\t2\n", "separated by tabs"),
        (b"sep=,\r\nRate,IAT\r\n", "a spreadsheet's `sep=` line"),
        (b"\x28\xb5\x2f\xfd" + bytes(30), "compressed in a way other than gzip"),
        (b"\xd4\xc3\xb2\xa1" + bytes(30), "a packet capture"),
        (b"PAR1" + bytes(30), "parquet under the name of another format"),
        (b"\x80\x05\x95" + bytes(30), "a table of another format"),
        (gzip.compress(b"Rate,IAT\n1,2\n"), "gzip under another name than .csv.gz"),
        (bytes(5_000), "its first bytes are all 0"),
        (b"Rate|IAT\n1|2\n", "separated by vertical bars"),
        (b"\r\nRate,IAT\r\n1,2\r\n", "its first line is blank; expected a header"),
        (b'"1.5",2,nan\n1,2,3\n', "its first line holds numbers; expected a header"),
        (b",".join(b"column" for _ in range(20_000)), "longer than 64 KiB"),
    ],
)
def test_a_file_of_another_kind_is_named_for_what_it_is(tree, content, finding):
    (tree / "train" / "Benign_train.pcap.csv").write_bytes(content)
    text = refusal(tree)
    assert finding in text
    assert "train/Benign_train.pcap.csv" in text
    assert "columns of feature schema" not in text


def test_a_dangling_link_is_refused_and_a_loop_of_links_is_followed_once(tree):
    (tree / "train" / "again").symlink_to(tree)
    assert discover(IngestConfig(source=str(tree))).files == 12
    path = tree / "train" / "ARP_Spoofing_train.pcap.csv"
    path.unlink()
    path.symlink_to(tree / "gone")
    assert "train/ARP_Spoofing_train.pcap.csv is not read: a link to a file that is not there" in refusal(tree)


def test_every_file_of_a_folder_is_listed_whatever_its_ending(tmp_path):
    for name in ("b.pcap", "a/c.csv", "notes.md", ".hidden", "x.pcap.part", "_temporary/y.pcap", "a/._c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    (tmp_path / "empty.pcap").touch()
    (tmp_path / "link.pcap").symlink_to(tmp_path / "gone")
    (tmp_path / os.fsdecode(b"\xe9.pcap")).write_bytes(b"12")
    os.mkfifo(tmp_path / "pipe.pcap")
    assert [(file.name, file.size, file.reason) for file in files.every_file(f"{tmp_path}/")] == [
        (".hidden", 2, "hidden"),
        (r"\xe9.pcap", 0, "name_not_utf8"),
        ("_temporary/y.pcap", 2, "unfinished"),
        ("a/._c.csv", 2, "mac_archive"),
        ("a/c.csv", 2, None),
        ("b.pcap", 2, None),
        ("empty.pcap", 0, "empty_file"),
        ("link.pcap", 0, "missing_file"),
        ("notes.md", 2, None),
        ("pipe.pcap", 0, "special_file"),
        ("x.pcap.part", 2, "temporary"),
    ]
    assert files.every_file(f"{tmp_path}/gone") == []
    assert files.is_document("a/notes.md")
    assert not files.is_document("notes.md.pcap")


def test_folders_without_end_are_named_and_hide_no_file(tmp_path):
    """Nested deeper than a recursion can go, or with more paths than there is time: each of ten links to all ten."""
    (tmp_path / "a.parquet").write_bytes(b"12")
    deepest = "/".join(["n"] * 32)
    (tmp_path / deepest / "n" / "n").mkdir(parents=True)
    places = [tmp_path / f"folder-{i}" for i in range(10)]
    for place in places:
        place.mkdir()
    for place in places:
        for target in places:
            (place / target.name).symlink_to(target)
    found = {file.name: file.reason for file in files.every_file(str(tmp_path))}
    assert found["a.parquet"] is None
    assert found[f"{deepest}/n"] == "too_deep_folder"
    assert set(found.values()) == {None, "too_deep_folder"}
    assert len(found) < 1_000


def test_a_name_that_is_no_utf8_is_refused_with_the_name_in_escapes(tree):
    os.rename(tree / "train" / "Benign_train.pcap.csv", os.fsencode(tree / "train") + b"/Benign\xe9_train.csv")
    assert r"train/Benign\xe9_train.csv is not read: its name is no UTF-8" in refusal(tree)


def test_files_that_hold_no_rows_are_listed_with_the_reason(tree):
    for name in ("_SUCCESS", "._x.csv", "__MACOSX/a.csv", "README.md", "raw.zip", "train/b.csv.tmp", "notes"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"PK\x03\x04")
    (tree / "train" / "_temporary").mkdir()
    (tree / "train" / "_temporary" / "part-0.csv").touch()
    found = discover(IngestConfig(source=str(tree)))
    assert found.files == 12
    assert {file.name: file.reason for file in found.unread} == {
        "_SUCCESS": "hidden",
        "._x.csv": "mac_archive",
        "__MACOSX/a.csv": "mac_archive",
        "README.md": "document",
        "raw.zip": "archive",
        "train/b.csv.tmp": "temporary",
        "notes": "archive",
        "train/_temporary/part-0.csv": "unfinished",
    }


def test_a_compressed_table_is_a_loss_unless_it_is_there_unpacked_too(tree):
    for name in ("Benign_train.pcap.csv.zip", "moved/ARP_Spoofing_test.pcap.csv.bz2", "train.zip"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"PK\x03\x04")
    assert {file.reason for file in discover(IngestConfig(source=str(tree))).unread} == {"archive"}
    (tree / "train" / "Benign_train.pcap.csv").unlink()
    (tree / "test" / "flows.csv.snappy").write_bytes(b"\x00\x01")
    text = refusal(tree)
    assert "Benign_train.pcap.csv.zip is not read: a zip archive" in text
    assert "test/flows.csv.snappy is not read: compressed in a way other than gzip" in text


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda content: gzip.compress(content)[:-20], "cannot be read as gzip, it may be truncated"),
        (lambda content: content, "its name ends with .gz, and it is no gzip"),
        (lambda content: gzip.compress(gzip.compress(content)), "gzip under another name than .csv.gz, or within gzip"),
    ],
)
def test_a_file_that_is_no_sound_gzip_is_named_for_what_it_is(tree, change, finding):
    path = tree / "train" / "Benign_train.pcap.csv"
    path.with_name(f"{path.name}.gz").write_bytes(change(path.read_bytes()))
    path.unlink()
    text = refusal(tree)
    assert "Benign_train.pcap.csv.gz" in text
    assert finding in text


def test_a_capture_that_is_there_twice_is_refused_with_both_names(tree):
    path = tree / "train" / "Benign_train.pcap.csv"
    (tree / "train" / "Benign_train.pcap.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    text = refusal(tree)
    assert (
        "train/Benign_train.pcap.csv.gz and train/Benign_train.pcap.csv have the same name, so that every row" in text
    )
    (tree / "train" / "Benign_train.pcap.csv.gz").unlink()
    (tree / "other" / "train").mkdir(parents=True)
    for copy in ("train/Benign_train.parquet", "other/Benign_train.pcap.parquet"):
        pd.read_csv(path).to_parquet(tree / copy, index=False)
        text = refusal(tree)
        assert "have the same name, so that every row" in text
        assert copy in text
        (tree / copy).unlink()
    (tree / "other" / "train" / path.name).write_bytes(path.read_bytes())
    assert "other/train/Benign_train.pcap.csv have the same name and size" in refusal(tree)
    (tree / "other" / "train" / path.name).write_bytes(path.read_bytes() + b"0.5,1\n")  # of another capture
    assert discover(IngestConfig(source=str(tree))).files == 13


def test_a_type_that_pyarrow_may_not_know_is_named_as_such(tmp_path):
    frame = synthetic_frame(2, 0).assign(label="Benign_train")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    at = table.column_names.index("Rate")
    pq.write_table(table.set_column(at, "Rate", pa.array([b"\x00\x3c"] * 2, pa.binary(2))), tmp_path / "all.parquet")
    assert "'Rate' is fixed_size_binary[2] (perhaps a type that this version of pyarrow does not know" in refusal(
        tmp_path
    )


def test_other_captures_of_the_official_download_are_not_read(tree):
    for folder in ("Bluetooth/attacks/csv/train", "WiFI_and_MQTT/profiling/CSV/Idle"):
        (tree / folder).mkdir(parents=True)
        (tree / folder / "Idle.csv").write_text("timestamp,src\n1,aa\n")
    found = discover(IngestConfig(source=str(tree)))
    assert {file.reason for file in found.unread} == {"bluetooth", "profiling"}
    assert "lacks 39 of the 39" in refusal(tree / "Bluetooth")


def test_a_label_may_be_in_another_column_or_in_the_path(tmp_path):
    for i, label in enumerate(["Benign_train", "TCP_IP-DDoS-ICMP1_test"]):
        path = tmp_path / "path" / f"label={label.replace('_', '%5F')}" / "0.parquet"
        path.parent.mkdir(parents=True)
        synthetic_frame(3, i).to_parquet(path, index=False)
    found = discover(IngestConfig(source=str(tmp_path / "path"))).row_groups
    assert {(p.class19, p.split) for p in found} == {("Benign", "train"), ("DDoS-ICMP", "test")}
    (tmp_path / "column").mkdir()
    synthetic_frame(3, 0).assign(attack_type="Benign").to_csv(tmp_path / "column" / "train.csv", index=False)
    text = refusal(tmp_path / "column")
    assert "found attack_type, which may hold the class: if so, set ingest.label_column=attack_type" in text
    config = IngestConfig(source=str(tmp_path / "column"), label_column="attack_type")
    assert [(p.class19, p.label, p.split) for p in discover(config).row_groups] == [(None, "attack_type", "train")]


def delta_table(folder, commits, rows=3):
    """Write a Delta table without data in its log: each commit is a list of (action, file)."""
    (folder / "_delta_log").mkdir(parents=True)
    for version, actions in enumerate(commits):
        lines = [json.dumps({action: {"path": name}}) for action, name in actions]
        (folder / "_delta_log" / f"{version:020}.json").write_text("\n".join(lines))
        for action, name in actions:
            if action == "add":
                synthetic_frame(rows, version).assign(label="Benign_train").to_parquet(
                    folder / unquote(name), index=False
                )


def test_of_a_delta_table_the_files_of_its_newest_state_are_read(tmp_path):
    first = [("add", "a.parquet"), ("add", "b%20c.parquet")]
    delta_table(tmp_path / "train", [first, [("remove", "a.parquet"), ("add", "d.parquet")]])
    found = discover(IngestConfig(source=str(tmp_path)))
    assert [p.name for p in found.row_groups] == ["train/b c.parquet", "train/d.parquet"]
    assert [file.name for file in found.unread if file.reason == "superseded"] == ["train/a.parquet"]
    (tmp_path / "train" / "d.parquet").unlink()
    assert "train/d.parquet is not read: a file that the log of its table (Delta," in refusal(tmp_path)


def test_of_a_stream_of_spark_the_files_of_finished_batches_are_read(tmp_path):
    """A failed batch leaves files; its rows are in those of the next one again."""
    for name in ("a b.parquet", "day=1/b.parquet", "c.parquet", "failed.parquet", "compacted.parquet"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        synthetic_frame(3, 0).assign(label="Benign_train").to_parquet(path, index=False)
    log_folder = tmp_path / "train" / "_spark_metadata"
    log_folder.mkdir()
    batches = {"0": ["failed.parquet"], "9.compact": ["a%20b.parquet", "compacted.parquet"], "10": ["day=1/b.parquet"]}
    for number, names in (batches | {"11": ["c.parquet"]}).items():
        added = [{"path": f"file:/written/elsewhere/{name}", "action": "add"} for name in names]
        removed = [{"path": "file:/written/elsewhere/compacted.parquet", "action": "delete"}] * (number == "11")
        (log_folder / number).write_text("\n".join(["v1", *map(json.dumps, added + removed)]))
    found = discover(IngestConfig(source=str(tmp_path)))
    assert {p.name for p in found.row_groups} == {"train/a b.parquet", "train/day=1/b.parquet", "train/c.parquet"}
    superseded = [file.name for file in found.unread if file.reason == "superseded"]
    assert superseded == ["train/compacted.parquet", "train/failed.parquet"]
    of_partition = files.inventory(str(tmp_path / "train" / "day=1"), str(tmp_path / "train"))
    assert [(file.name, file.format) for file in of_partition] == [("b.parquet", "parquet")]
    (tmp_path / "train" / "c.parquet").unlink()
    assert "train/c.parquet is not read: a file that the log of its table" in refusal(tmp_path)
    (log_folder / "12").write_text("v2\n")
    with pytest.raises(files.UnsupportedTable, match=r"_spark_metadata cannot be read \(its version is 'v2'"):
        discover(IngestConfig(source=str(tmp_path)))


def test_the_state_of_a_delta_table_begins_with_its_newest_checkpoint(tmp_path):
    delta_table(
        tmp_path, [[("add", "a.parquet")], [("add", "b.parquet")], [("add", "c.parquet"), ("remove", "a.parquet")]]
    )
    actions = [{"add": {"path": name}, "remove": None, "protocol": None} for name in ("a.parquet", "b.parquet")]
    actions.append({"add": None, "remove": {"path": "old.parquet"}, "protocol": {"minReaderVersion": 1}})
    pq.write_table(pa.Table.from_pylist(actions), tmp_path / "_delta_log" / f"{1:020}.checkpoint.parquet")
    for version in (0, 1):
        (tmp_path / "_delta_log" / f"{version:020}.json").unlink()
    assert files.delta_files(str(tmp_path)) == {"b.parquet", "c.parquet"}


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        (
            f"_delta_log/{0:020}.json",
            '{"protocol": {"minReaderVersion": 3, "readerFeatures": ["deletionVectors"]}}',
            "deletionVec",
        ),
        (f"_delta_log/{0:020}.json", '{"add"', "a Delta table whose log cannot be read"),
        (f"_delta_log/{4:020}.json", "{}", "a Delta table whose log cannot be read"),
        ("_delta_log/flows.parquet", "", "a Delta table whose log cannot be read .no commit is there"),
        ("metadata/00001-ab.metadata.json", "{}", "an Iceberg table"),
        ("metadata/v2.metadata.json.gz", "", "an Iceberg table"),
        (".hoodie/hoodie.properties", "", "a Hudi table"),
        (".hoodie_partition_metadata", "", "a Hudi table"),
        ("snapshot/snapshot-1", "{}", "a Paimon table"),
        ("delta_0000001_0000001_0000/000000_0", "", "a transactional Hive table"),
    ],
)
def test_tables_whose_files_hold_other_rows_too_are_refused_by_name(tree, name, content, finding):
    path = tree / "train" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(files.UnsupportedTable, match=finding):
        discover(IngestConfig(source=str(tree)))


def test_a_footer_that_claims_more_rows_than_the_file_can_hold_is_refused(tmp_path):
    path = tmp_path / "Benign_train.parquet"
    synthetic_frame(5, 0).to_parquet(path, index=False)
    content = path.read_bytes()
    metadata = pq.read_metadata(path)
    assert files.plausible([metadata.row_group(0).num_rows], len(content))
    assert not files.plausible([10**12], len(content))
    assert not files.plausible([-1], len(content))


def test_row_groups_of_flows_are_listed_with_their_columns(tmp_path):
    with pytest.raises(SourceUnusable, match=r"found no \.parquet file; expected a folder of flows"):
        parquet_row_groups(str(tmp_path))
    pq.write_table(pa.table({"a": range(5)}), tmp_path / "p.parquet", row_group_size=3)
    for source in (tmp_path, tmp_path / "p.parquet"):
        found = [(p.name, p.index, p.first_row, p.rows, tuple(types)) for p, types in parquet_row_groups(str(source))]
        assert found == [("p.parquet", 0, 0, 3, ("a",)), ("p.parquet", 1, 3, 2, ("a",))]


@given(st.lists(st.integers(0, 10_000), max_size=60), st.integers(1, 12), st.randoms())
def test_every_row_group_is_in_one_partition_and_partitions_are_even(sizes, tasks, random):
    row_groups = [RowGroup("u", f"f{i}", None, 0, rows, None, None) for i, rows in enumerate(sizes)]
    hands = bin_pack(row_groups, tasks)
    assert sorted(p.name for hand in hands for p in hand) == sorted(p.name for p in row_groups)
    assert len(hands) == max(1, min(tasks, len(row_groups)))
    loads = [sum(p.rows for p in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(sizes, default=0) + len(row_groups)
    assert (
        bin_pack(random.sample(row_groups, len(row_groups)), tasks) == hands
    )  # for any order in which they were found


def test_rows_of_a_gzip_file_are_estimated_from_its_text_not_from_its_size(tree):
    path = tree / "train" / "Benign_train.pcap.csv"
    header, row = path.read_text().splitlines()[:2]
    text = "\n".join([header, *[row] * 40_000]).encode()
    path.unlink()
    packed = tree / "train" / "Benign_train.pcap.csv.gz"
    packed.write_bytes(gzip.compress(text))
    assert packed.stat().st_size < len(text) / 100
    [group] = [g for g in discover(IngestConfig(source=str(tree))).row_groups if g.name.endswith(".gz")]
    assert group.rows == len(text) // 250


def test_a_gzip_file_of_one_line_repeated_without_end_is_refused(tree):
    path = tree / "train" / "Benign_train.pcap.csv"
    header, row = path.read_text().splitlines()[:2]
    with gzip.open(f"{path}.gz", "wt") as stream:
        stream.write(f"{header}\n")
        for _ in range(60):
            stream.write(f"{row}\n" * (2_000_000 // len(row)))
    path.unlink()
    assert "train/Benign_train.pcap.csv.gz is not read: unpacked it holds more than 200 times its size" in refusal(tree)
