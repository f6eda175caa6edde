"""A source as one parquet table with labels, or as a tree of parquet files."""

import json
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tests.fuzz import cells, csv_tree, documents, tables
from tests.fuzz.case import Base, Case, start
from tests.fuzz.draw import Draw
from tests.support.flows import synthetic_frame
from tests.support.nights import MODEL

LABELS: Final = ("Benign", "TCP_IP-DDoS-ICMP1", "MQTT-DDoS-Connect_Flood", "Recon-VulScan", "ARP_Spoofing")
STRANGE_LABELS: Final = (
    None, "", "Benign", "benign_train.pcap.csv", "label", "Bluetooth_train.pcap.csv",
    "WiFi_and_MQTT_test_Benign_test.pcap", "\x00",
    "Benign_train.pcap.csv\n", '"Benign_train.pcap.csv"', "x" * 5000, "Benign_validation.pcap.csv", "3", "nan",
)  # fmt: skip
STRANGE_NAMES: Final = (
    "{0}.PARQUET", "{0}", "{0}.parq", "{0}.snappy.parquet", "{0}.parquet.gz", ".{0}.parquet", "_{0}.parquet",
    "{0}.parquet.tmp",
    "_delta_log/{0}.parquet", "{0}.parquet/part-00000-a.c000.snappy.parquet", "{0}\udcff.parquet", "{0}\n.parquet",
    "metadata/{0}.parquet", "data/{0}.parquet", "{0}.csv", "event_date=2026-03-01/{0}.parquet", "label=x/{0}.parquet",
)  # fmt: skip


def make_table(draw: Draw, base: Base, folder: Path) -> Case:
    """Return an ingest of a table of one to three files with a column of labels."""
    case = start(folder, base.flows)
    schema = draw.pick(("release39", "original45"))
    for i in range(draw.rng.randint(1, 3)):
        frame = synthetic_frame(draw.rng.choice((1, 8, 20)), draw.rng.randrange(1000), schema)
        ends = ("train", "test")
        frame["label"] = [f"{draw.pick(LABELS)}_{draw.pick(ends)}.pcap.csv" for _ in range(len(frame))]
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if draw.chance(0.25):
            table = _labels(draw, table)
        table = tables.mutate(draw, table, [n for n in frame.columns if n != "label"], ["label"], None)
        _write(draw, case, f"part-{i}.parquet", table)
    if draw.chance(0.12):
        write_delta_log(draw, case.input)
    case.job, case.table = "ingest", "flows"
    case.settings = csv_tree.ingest_settings(draw, case)
    return case


def make_tree(draw: Draw, base: Base, folder: Path) -> Case:
    """Return an ingest of two to four parquet files named by class."""
    case = start(folder, base.flows)
    schema = draw.pick(("release39", "original45"))
    for i, name in enumerate(draw.some(LABELS, 3)):
        split = "test" if i % 3 == 1 else "train"
        frame = synthetic_frame(draw.rng.choice((1, 8, 20)), draw.rng.randrange(1000), schema)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        table = tables.mutate(draw, table, list(frame.columns), [], None)
        _write(draw, case, f"{split}/{name}_{split}.pcap.parquet", table)
    case.job, case.table = "ingest", "flows"
    case.settings = csv_tree.ingest_settings(draw, case)
    return case


def make_split(draw: Draw, base: Base, folder: Path) -> Case:
    """Return the scoring of a labelled split of one or two files."""
    case = start(folder, base.night)
    for i in range(draw.rng.randint(1, 2)):
        rows = draw.rng.choice((1, 10, 30))
        table: pa.Table = base.logs.slice(draw.rng.randrange(len(base.logs) - rows), rows)
        features = [name for name in table.column_names if pa.types.is_floating(table.schema.field(name).type)]
        table = table.select(features)
        if draw.chance(0.5):
            table = table.append_column("class19", tables.text_column(draw, rows))
        if draw.chance(0.2):
            table = table.append_column("source_row", tables.text_column(draw, rows))
        if draw.chance(0.2):
            table = table.append_column("duplicate", tables.text_column(draw, rows))
        _write(draw, case, f"part-{i}.parquet", tables.mutate(draw, table, features, ["class19"], None))
    case.job, case.table = "score", "split_predictions"
    case.settings = [f"score.source={case.input}", f"score.models=[{MODEL}]"]
    return case


def write_delta_log(draw: Draw, folder: Path) -> None:
    """Write the log of a Delta table that names all but one of the parquet files of a folder, mutated."""
    names = sorted(path.name for path in folder.glob("*.parquet"))
    lines: list[dict[str, Any]] = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "0", "format": {"provider": "parquet"}, "schemaString": "{}", "partitionColumns": []}},
        *({"add": {"path": name, "size": 1, "dataChange": True, "partitionValues": {}}} for name in names),
    ]
    if len(names) > 1:
        lines.append({"remove": {"path": names[-1], "dataChange": True}})
    draw.note("a Delta table")
    log = folder / "_delta_log"
    log.mkdir(exist_ok=True)
    texts = [json.dumps(line).encode() for line in lines]
    for _ in range(draw.rng.choice((0, 1, 1, 2))):
        at = draw.rng.randrange(len(lines))
        texts[at] = documents.mutated(draw, lines[at], "json").replace(b"\n", b"")
    (log / f"{0:020}.json").write_bytes(b"\n".join(texts) + b"\n")
    if draw.chance(0.2):
        (log / "_last_checkpoint").write_bytes(documents.mutated(draw, {"version": 0, "size": 3}, "json"))
    if draw.chance(0.2):
        name = draw.pick((f"{1:020}.json", f"{2:020}.json", f"{0:020}.checkpoint.parquet"))
        (log / name).write_bytes(draw.pick((b"", b"{}", b"\xff", b"[]\n", b'{"add": {"path": "../x.parquet"}}')))


def _labels(draw: Draw, table: pa.Table) -> pa.Table:
    kind = draw.pick(("strange", "any type", "name", "left over", "missing", "one split", "invalid"))
    draw.note(f"labels: {kind}")
    at = table.column_names.index("label")
    names = table["label"].to_pylist()
    if kind == "strange":
        names[draw.rng.randrange(len(names))] = draw.pick(STRANGE_LABELS)
        return table.set_column(at, "label", pa.array(names, pa.string()))
    if kind == "any type":
        return table.set_column(at, "label", tables.text_column(draw, len(table)))
    if kind == "name":
        return table.rename_columns(
            [*table.column_names[:-1], draw.pick(("Label", " label", "attack_type", "class", "LABEL"))]
        )
    if kind == "left over":
        codes = pa.array(np.zeros(len(names), dtype=np.int8))
        left = pa.array([names[0], "Bluetooth_train.pcap.csv", draw.pick(cells.TEXTS)])
        return table.set_column(at, "label", pa.DictionaryArray.from_arrays(codes, left))
    if kind == "invalid":
        return table.set_column(at, "label", tables.invalid_text([draw.pick(cells.INVALID) for _ in names]))
    if kind == "missing":
        return table.remove_column(at)
    return table.set_column(at, "label", pa.array(["Benign_train.pcap.csv"] * len(names)))


def _write(draw: Draw, case: Case, name: str, table: pa.Table) -> None:
    if draw.chance(0.12):
        shape = draw.pick(STRANGE_NAMES)
        draw.note(f"name: {shape!r}")
        name = shape.format(name.removesuffix(".parquet"))
    content, counted = tables.content_of(draw, table)
    path = os.path.join(case.input, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if draw.chance(0.03):
        draw.note("a dangling link")
        os.symlink("gone", path)
        return
    with open(path, "wb") as stream:
        stream.write(content)
    if counted:
        case.rows[name] = len(table)
