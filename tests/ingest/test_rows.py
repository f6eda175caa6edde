import gzip
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_spark.config.settings import IngestConfig
from ids_spark.dataset.features import RELEASE_39
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.ingest import files, readers
from ids_spark.ingest.readers import read_typed
from ids_spark.ingest.row_hash import row_keys
from ids_spark.ingest.rows import merged, typed_contract
from ids_spark.ingest.sources import SourceUnusable, discover
from ids_spark.lake import parquet

FEATURES = RELEASE_39.features
HEADER = ",".join(FEATURES)
BAD = [("", "missing"), ("   ", "missing"), ("nan", "not_a_number"), ("-NaN", "not_a_number")]
BAD += [(text, "unparsable") for text in ("abc", "1_000", "0x10", "1 2", "null", "--1", "1e")]


def line(first, **cells):
    """Return a CSV line whose first feature is `first`, the given `cells`, 0.5 elsewhere."""
    return ",".join(str({FEATURES[0]: first, **cells}.get(f, "0.5")) for f in FEATURES)


def csv_row_group(folder, lines, header=HEADER, name="Benign_train.pcap.csv", newline="\n"):
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / name).write_text(newline.join([header, *lines]) + newline, encoding="utf-8", newline="")
    return discover(IngestConfig(source=str(folder))).row_groups[0]


def read(row_group):
    """Return rows read, flows and quarantine of a whole row group, quarantine in order of rows."""
    parts = list(read_typed(row_group, RELEASE_39))
    assert all(part.read.total() == len(part.flows) + len(part.quarantine) for part in parts)
    good = pa.concat_tables([typed_contract(RELEASE_39).empty_table(), *(p.flows for p in parts)])
    refused = pa.concat_tables([QUARANTINE.empty_table(), *(p.quarantine for p in parts)]).sort_by("source_row")
    return sum(p.read.total() for p in parts), good, refused


def label_table(labels, **columns):
    values = {f: pa.array(np.linspace(0.0, 1.0, len(labels))) for f in FEATURES}
    return pa.table(values | columns | {"label": pa.array(labels, pa.string())})


def parquet_row_groups(folder, table, name="Benign_train.pcap.parquet", row_group_size=None):
    pq.write_table(table, Path(folder) / name, row_group_size=row_group_size)
    return discover(IngestConfig(source=str(folder))).row_groups


def test_good_rows_become_typed_labelled_flows(tmp_path):
    row_group = csv_row_group(
        tmp_path, [line(8.5, Rate=" 3 ", IAT="1e5"), line("-0.0")], name="TCP_IP-DoS-SYN2_test.pcap.csv"
    )
    count, good, refused = read(row_group)
    assert (count, len(good), len(refused), good.schema) == (2, 2, 0, typed_contract(RELEASE_39))
    first, second = good.to_pylist()
    found = {"Header_Length": 8.5, "Rate": 3.0, "IAT": 100_000.0, "Std": 0.5, "split": "test"}
    found |= {"source_file": row_group.name, "class19": "DoS-SYN", "class6": "DoS", "class2": "Attack", "label19": 6}
    assert found.items() <= first.items()
    assert (first["source_row"], second["source_row"], second["Header_Length"]) == (0, 1, 0.0)


def test_rows_of_equal_vectors_share_a_key_whatever_their_text(tmp_path):
    _, good, _ = read(csv_row_group(tmp_path, [line("3"), line("3.0"), line(" 0.3e1"), line('"3"'), line("4")]))
    assert [key == good["row_key"][0].as_py() for key in good["row_key"].to_pylist()] == [True] * 4 + [False]
    np.testing.assert_array_equal(good["row_key"], row_keys([good[f].to_numpy() for f in FEATURES]))


@pytest.mark.parametrize("text", ["inf", "-inf", "Infinity", "-.5", "+2.", "1e400", "1E-3", "9007199254740993"])
@pytest.mark.parametrize("neighbour", ["1.5", "abc"])  # text that is not a number is read by other code
def test_a_number_is_read_whatever_its_neighbours(tmp_path, text, neighbour):
    _, good, _ = read(csv_row_group(tmp_path, [line(1, IAT=text), line(1, IAT=neighbour)]))
    assert good["IAT"][0].as_py() == float(text)
    assert len(good) == (1 if neighbour == "abc" else 2)


@pytest.mark.parametrize(("text", "reason"), BAD)
@pytest.mark.parametrize("neighbour", ["1.5", "abc"])
def test_a_value_that_is_no_number_sends_its_row_to_quarantine(tmp_path, text, reason, neighbour):
    count, good, refused = read(
        csv_row_group(tmp_path, [line(1), line(2, **{"Tot sum": text}), line(3, Std=neighbour)])
    )
    assert (count, good["source_row"].to_pylist()) == (3, [0, 2] if neighbour == "1.5" else [0])
    *who, raw, run_id = refused.to_pylist()[0].values()
    assert [*who, run_id] == ["Benign_train.pcap.csv", 1, "train", "Benign", reason, ["Tot sum"], None]
    assert json.loads(raw) == {f: {"Header_Length": "2", "Tot sum": text}.get(f, "0.5") for f in FEATURES}


def test_a_row_with_several_faults_is_quarantined_once_with_all_affected_features(tmp_path):
    count, good, refused = read(csv_row_group(tmp_path, [line("abc", IAT="nan", Min="", Max="-")]))
    assert (count, len(good), refused["reason"].to_pylist()) == (1, 0, ["missing"])
    assert sorted(refused["features"][0].as_py()) == ["Header_Length", "IAT", "Max", "Min"]


KINDS = {
    "good": (line, None),
    "long": (lambda i: line(i, Std="1." + "5" * 300), None),
    "missing": (lambda i: line(i, Rate=""), "missing"),
    "nan": (lambda i: line(i, Rate="nan"), "not_a_number"),
    "abc": (lambda i: line(i, Rate="abc"), "unparsable"),
    "few": (lambda i: f"{i},1.5", "wrong_field_count"),
    "many": (lambda i: line(i) + ",1.5", "wrong_field_count"),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@settings(deadline=None, max_examples=150)
@given(kinds=st.lists(st.sampled_from(list(KINDS)), max_size=25), block=st.sampled_from([700, 1000, 1900, 1 << 20]))
def test_every_line_is_a_flow_or_in_quarantine_under_its_own_number(newline, kinds, block):
    lines = [KINDS[kind][0](i) for i, kind in enumerate(kinds)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_CSV_BLOCK_BYTES", block)
        count, good, refused = read(csv_row_group(folder, lines, newline=newline))
    reasons = {i: KINDS[kind][1] for i, kind in enumerate(kinds)}
    expected = [i for i, reason in reasons.items() if reason is None]
    assert good["source_row"].to_pylist() == good["Header_Length"].to_pylist() == expected
    found = {row["source_row"]: row for row in refused.to_pylist()}
    assert {i: row["reason"] for i, row in found.items()} == {i: r for i, r in reasons.items() if r}
    assert count == len(kinds) == len(good) + len(refused)
    columns = len(line(0).split(","))
    for i, row in found.items():
        if row["reason"] == "wrong_field_count":  # no cell is kept: which column it is of is unknown
            assert json.loads(row["raw"]) == {"fields": 2 if kinds[i] == "few" else columns + 1, "expected": columns}


@pytest.mark.parametrize("first", ["\n", "\r\n", "\r"])
def test_lines_of_one_file_may_end_in_several_ways(tmp_path, monkeypatch, first):
    """As of files of several systems that were put together; a part with other ends is not one long line."""
    monkeypatch.setattr(files, "LONGEST_LINE", 1_000)
    for later in ("\n", "\r\n", "\r"):
        lines = [line(i) + (first if i < 20 else later) for i in range(40)]
        (tmp_path / "Benign_train.pcap.csv").write_text(HEADER + first + "".join(lines), newline="")
        [row_group] = discover(IngestConfig(source=str(tmp_path))).row_groups
        count, good, _ = read(row_group)
        assert (count, good["Header_Length"].to_pylist()) == (40, list(range(40)))


def test_a_stray_quote_affects_its_own_line_only(tmp_path):
    count, good, _ = read(csv_row_group(tmp_path, [line(0), '"' + line(1), line(2), line(3)]))
    assert (count, good["source_row"].to_pylist()) == (4, [0, 2, 3])


def test_columns_in_another_order_and_among_others_are_read_by_name(tmp_path):
    cells = ["x", *(str(i / 100) for i in range(len(FEATURES)))]
    _, good, _ = read(csv_row_group(tmp_path, [",".join(cells)], header=",".join(["flow_id", *reversed(FEATURES)])))
    assert [good[f][0].as_py() for f in FEATURES] == [i / 100 for i in range(len(FEATURES))][::-1]


def test_parquet_of_any_number_type_is_widened_exactly(tmp_path):
    columns = {f: pa.array([0.5, 0.25]) for f in FEATURES} | {"Rate": pa.array([0.1, 3e38], pa.float32())}
    columns |= {"ack_count": pa.array([7, 2**53], pa.int64()), "Number": pa.array([10, 255], pa.uint8())}
    found = (
        read(parquet_row_groups(tmp_path, pa.table(columns))[0])[1].select(["Rate", "ack_count", "Number"]).to_pydict()
    )
    assert found == {
        "Rate": [0.10000000149011612, float(np.float32(3e38))],
        "ack_count": [7, 2**53],
        "Number": [10, 255],
    }


def test_parquet_nulls_and_nans_are_refused_and_rows_numbered_over_row_groups(tmp_path):
    columns = {f: pa.array(np.arange(6) / 8) for f in FEATURES}
    columns["Rate"] = pa.array([1.0, None, np.inf, np.nan, 5.0, None])
    columns["ack_count"] = pa.array([1, 2, 3, 4, None, 6], pa.int32())
    row_groups = parquet_row_groups(tmp_path, pa.table(columns), row_group_size=2)
    assert [(p.index, p.first_row, p.rows) for p in row_groups] == [(0, 0, 2), (1, 2, 2), (2, 4, 2)]
    parts = [read(row_group) for row_group in row_groups]
    assert [good["source_row"].to_pylist() for _, good, _ in parts] == [[0], [2], []]
    refused = pa.concat_tables([part[2] for part in parts]).to_pylist()
    assert [row["source_row"] for row in refused] == [1, 3, 4, 5]
    assert [row["reason"] for row in refused] == ["missing", "not_a_number", "missing", "missing"]
    assert [row["features"] for row in refused] == [["Rate"], ["Rate"], ["ack_count"], ["Rate"]]
    assert json.loads(refused[2]["raw"])["Rate"] == 5.0
    assert [json.loads(row["raw"])["ack_count"] for row in refused] == [2, 4, None, 6]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_one_table_of_both_splits_is_labelled_row_by_row(tmp_path, form):
    labels = ["TCP_IP-DDoS-ICMP1_train", "Benign_test", "TCP_IP-DDoS-ICMP2_train", "MQTT-DoS-Publish_Flood_test"]
    if form == "csv":
        row_group = csv_row_group(
            tmp_path, [f"{line(0)},{x}" for x in labels], header=f"{HEADER},label", name="all.csv"
        )
    else:
        [row_group] = parquet_row_groups(tmp_path, label_table(labels), name="all.parquet")
    good = read(row_group)[1]
    assert good["split"].to_pylist() == ["train", "test", "train", "test"]
    assert good["class19"].to_pylist() == ["DDoS-ICMP", "Benign", "DDoS-ICMP", "MQTT-DoS-Publish_Flood"]
    assert good["class6"].to_pylist() == ["DDoS", "Benign", "DDoS", "MQTT"]
    assert good["label19"].to_pylist() == [1, 0, 1, 12]


def test_refused_rows_of_a_labelled_table_keep_their_own_label_and_split(tmp_path):
    table = label_table(["Benign_train", "Recon-VulScan_test"], Rate=pa.array([1.0, None]))
    [row] = read(parquet_row_groups(tmp_path, table, name="all.parquet")[0])[2].to_pylist()
    assert (row["label"], row["split"]) == ("Recon-VulScan", "test")


@pytest.mark.parametrize(
    ("label", "fault", "known"),
    [
        ("Mirai_train", "names no known class", (None, None)),
        (None, "no label", (None, None)),
        ("DoS-TCP", "ends neither in _train nor in _test", ("DoS-TCP", None)),
    ],
)
def test_a_row_whose_label_has_no_class_or_no_split_goes_to_quarantine(tmp_path, label, fault, known):
    [row_group] = parquet_row_groups(tmp_path, label_table(["Benign_train", label]), name="all.parquet")
    [rows] = read_typed(row_group, RELEASE_39)
    [row] = rows.quarantine.to_pylist()
    assert (row["reason"], row["features"], row["source_row"]) == ("unknown_label", ["label"], 1)
    assert (row["label"], row["split"], json.loads(row["raw"])["label"]) == (*known, label)
    assert rows.unknown_labels == {(label or "", fault): 1}
    assert (len(rows.flows), rows.read.total()) == (1, 2)


def test_categories_that_no_row_has_are_no_labels(tmp_path):
    labels = pa.DictionaryArray.from_arrays([0, 2], ["Benign_train", "Bluetooth_Benign_train", "DoS-TCP_test"])
    table = label_table(["", ""]).set_column(len(FEATURES), "label", labels)
    count, good, refused = read(parquet_row_groups(tmp_path, table, name="all.parquet")[0])
    assert (count, good["class19"].to_pylist(), len(refused)) == (2, ["Benign", "DoS-TCP"], 0)


HOSTILE = {
    "no UTF-8": b"\xff",
    "NUL": b"1\x002",
    "a quote": b'1"',
    "bidirectional control": "\u202e1".encode(),
    "a long number": b"9" * 5_000_000,
    "a long text": b"x" * 5_000_000,
}


@pytest.mark.parametrize("cell", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("column", [FEATURES[0], FEATURES[-1], "label", "comment"])
def test_any_bytes_in_a_cell_of_csv_cost_at_most_their_row(tmp_path, cell, column):
    names = [*FEATURES, "comment", "label"]
    plain = ["0.5"] * len(FEATURES) + ["seen", "Benign_train"]
    rows = [[text.encode() for text in plain] for _ in range(5)]
    rows[2][names.index(column)] = cell
    lines = [",".join(names).encode(), *(b",".join(row) for row in rows)]
    (tmp_path / "all.csv").write_bytes(b"\r\n".join(lines) + b"\r\n")
    [row_group] = discover(IngestConfig(source=str(tmp_path), ignored_columns=("comment",))).row_groups
    count, good, refused = read(row_group)
    assert count == 5
    kept = column == "comment" and len(cell) < 100  # of a line that was cut, the label is lost
    assert refused["source_row"].to_pylist() == ([] if kept else [2])
    assert good["source_row"].to_pylist() == ([0, 1, 2, 3, 4] if kept else [0, 1, 3, 4])
    assert all(len(row["raw"]) < 20_000 for row in refused.to_pylist())


def test_text_that_is_no_utf8_in_parquet_costs_at_most_its_row(tmp_path):
    labels = pa.chunked_array([pa.array([b"Benign_train", b"Benign\xe9_train", b"DoS-TCP_test"]).view(pa.string())])
    table = label_table([""] * 3).set_column(len(FEATURES), "label", labels)
    count, good, refused = read(parquet_row_groups(tmp_path, table, name="all.parquet")[0])
    assert (count, good["source_row"].to_pylist(), refused["source_row"].to_pylist()) == (3, [0, 2], [1])
    assert json.loads(refused["raw"][0].as_py())["label"] == "Benign\\xe9_train"


def test_a_repeated_header_line_is_quarantined_with_and_without_labels(tmp_path):
    for name, header, own in (("Benign_train.csv", HEADER, ""), ("all_train.csv", f"{HEADER},label", ",Benign")):
        (tmp_path / name).write_text("\n".join([header, line(1) + own, header, line(2) + own]) + "\n")
    for row_group in discover(IngestConfig(source=str(tmp_path))).row_groups:
        parts = list(read_typed(row_group, RELEASE_39))
        count, good, refused = read(row_group)
        assert (count, good["source_row"].to_pylist()) == (3, [0, 2])
        assert refused["reason"].to_pylist() == ["unparsable"]
        assert not any(part.unknown_labels for part in parts)


def test_gzip_csv_old_line_ends_and_other_spellings_are_read(tmp_path):
    names = [f" {feature.lower().replace(' ', '_')} " for feature in FEATURES]
    text = "\r".join([",".join(names), line(1), line("x"), line(2)]) + "\r"
    (tmp_path / "Benign_train.pcap.CSV.gz").write_bytes(gzip.compress(text.encode()))
    [row_group] = discover(IngestConfig(source=str(tmp_path))).row_groups
    count, good, refused = read(row_group)
    assert (count, good["Header_Length"].to_pylist(), refused["source_row"].to_pylist()) == (3, [1.0, 2.0], [1])


def test_a_large_row_group_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "WHOLE_ROWS", 10)
    monkeypatch.setattr(parquet, "PIECE_ROWS", 8)
    table = label_table(["Benign_train"] * 30, Rate=pa.array([1.0] * 29 + [None]))
    [row_group] = parquet_row_groups(tmp_path, table, name="all.parquet")
    assert len(list(read_typed(row_group, RELEASE_39))) == 4
    count, good, refused = read(row_group)
    assert (count, good["source_row"].to_pylist()) == (30, list(range(29)))
    assert refused["source_row"].to_pylist() == [29]


def test_a_file_with_a_sound_footer_and_damaged_data_is_named(tmp_path):
    [row_group] = parquet_row_groups(tmp_path, label_table(["Benign_train"] * 500), name="all.parquet")
    with (tmp_path / "all.parquet").open("r+b") as file:
        file.seek(4)
        file.write(b"\xff" * 396)
    with pytest.raises(SourceUnusable, match=r"all\.parquet: its content cannot be read \(.*\); fetch the file again"):
        read(row_group)


def test_small_parts_are_put_together_in_their_order_and_large_ones_stay(tmp_path):
    sizes = [3, 1, 0, 20, 2, 9, 9, 4]
    parts = []
    for i, size in enumerate(sizes):
        lines = [line(i, Rate="-1" if row % 3 == 2 else "1") for row in range(size)]
        name = f"{'Benign' if i % 2 else 'Recon-VulScan'}_{'train' if i % 3 else 'test'}.csv"
        parts += read_typed(csv_row_group(tmp_path / str(i), lines, name=name), RELEASE_39)
    found = list(merged(parts, 10))
    assert [len(part.flows) + len(part.quarantine) for part in found] == [4, 20, 11, 13]
    assert found[1] is parts[3]
    for name in ("flows", "quarantine"):
        one, other = (pa.concat_tables([getattr(each, name) for each in group]) for group in (parts, found))
        assert one.to_pylist() == other.to_pylist()
    assert sum((part.read for part in found), Counter()) == sum((part.read for part in parts), Counter())
