"""A source as one parquet table with labels, or as a tree of parquet files."""

import os
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from tests.fuzz import cells, csv_tree, tables
from tests.fuzz.case import Base, Case, start
from tests.fuzz.draw import Draw
from tests.support.flows import synthetic_frame

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


def _labels(draw: Draw, table: pa.Table) -> pa.Table:
    kind = draw.pick(("strange", "any type", "name", "left over", "missing", "one split", "invalid"))
    draw.did(f"labels: {kind}")
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
        draw.did(f"name: {shape!r}")
        name = shape.format(name.removesuffix(".parquet"))
    content, counted = tables.content_of(draw, table)
    path = os.path.join(case.input, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if draw.chance(0.03):
        draw.did("a dangling link")
        os.symlink("gone", path)
        return
    with open(path, "wb") as stream:
        stream.write(content)
    if counted:
        case.rows[name] = len(table)
