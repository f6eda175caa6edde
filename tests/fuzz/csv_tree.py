"""A source as a tree of CSV files, mutated by cell, line, header, file and byte."""

import gzip
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz import cells, raw
from tests.fuzz.case import Base, Case, start
from tests.fuzz.draw import Draw
from tests.support.flows import synthetic_frame

NAMES: Final = ("Benign", "TCP_IP-DDoS-ICMP1", "MQTT-DDoS-Connect_Flood", "Recon-VulScan", "ARP_Spoofing")
STRANGE_NAMES: Final = (
    "{n}_{s}.pcap.CSV", "{n}_{s}.pcap.csv.gz", "{n}_{s}.pcap.txt", "{n}_{s}.pcap", "{n}_{s}.pcap (1).csv",
    "._{n}_{s}.pcap.csv",
    "{n}_{s}.pcap - Copy.csv", ".{n}_{s}.pcap.csv", "_{n}_{s}.pcap.csv", "{n}_{s}.pcap.csv.tmp",
    "{n}_{s}.pcap.csv.crc",
    "{n} {s}.csv", "{n}_{s}.pcap.csv\n", "{n}\x1b[31m_{s}.pcap.csv", "{n}\u202e_{s}.pcap.csv", "{n}%3A_{s}.pcap.csv",
    "{n}#_{s}.pcap.csv", "{n}?_{s}.pcap.csv", "{n}_{s}.pcap.csv/part-00000.csv",
    "event_date=2026-03-01/{n}_{s}.pcap.csv",
    "__MACOSX/{n}_{s}.pcap.csv", "{n}\udcff_{s}.pcap.csv", "\u00e9t\u00e9/{n}_{s}.pcap.csv", "a b/{n}_{s}.pcap.csv",
    "{n}_{s}.csv", "{n}_{s}_{s}.pcap.csv", "{n}_test_train.pcap.csv", "Unheard-Of_{s}.pcap.csv", "{n}.csv",
    "s3:x/{n}_{s}.csv",
    "{n}_{s}.pcap.csv.crdownload", "{n}_{s}.xlsx", "{n}_{s}.pcap.json",
)  # fmt: skip


@dataclass
class CsvFile:
    """One file before it is written: its header, its rows, and how they become bytes."""

    header: list[str]
    rows: list[list[str]]
    delimiter: str = ","
    line_end: str = "\n"
    encoding: str = "utf-8"
    before: str = ""
    last_line_end: bool = True

    def content(self) -> bytes:
        lines = [self.delimiter.join(line) for line in (self.header, *self.rows)]
        text = self.before + self.line_end.join(lines) + (self.line_end if self.last_line_end else "")
        return text.encode(self.encoding, errors="surrogateescape" if self.encoding == "utf-8" else "replace")


def make(draw: Draw, base: Base, folder: Path) -> Case:
    """Return an ingest of two to four small files."""
    case = start(folder, base.flows)
    schema = draw.pick(("release39", "original45"))
    files: dict[str, bytes] = {}
    for i, name in enumerate(draw.some(NAMES, 3)):
        split = "test" if i % 3 == 1 else "train"
        frame = synthetic_frame(draw.rng.choice((1, 6, 15)), draw.rng.randrange(1000), schema)
        file = CsvFile(list(frame.columns), frame.map(repr).to_numpy().tolist())
        for _ in range(draw.rng.choice((0, 0, 1, 1, 2))):
            _mutate(draw, file)
        files[f"{split}/{name}_{split}.pcap.csv"] = file.content()
    write(draw, case, files)
    case.job, case.table = "ingest", "flows"
    case.settings = ingest_settings(draw, case)
    return case


def ingest_settings(draw: Draw, case: Case) -> list[str]:
    """Return the settings of an ingest; mostly such that refused rows are accepted."""
    settings = [f"ingest.source={case.input}"]
    if draw.chance(0.85):
        settings.append("ingest.max_rejected_share=1")
    if draw.chance(0.1):
        settings.append(f"ingest.rows_per_file={draw.pick((1, 3, 10**30))}")
    if draw.chance(0.1):
        settings.append(f"ingest.ignored_columns=[{draw.pick(('extra', 'Rate', 'label'))}]")
    return settings


def write(draw: Draw, case: Case, files: dict[str, bytes]) -> None:
    """Write files, some of them mutated as bytes or under another name, and note the rows of those that are CSV."""
    for valid_name, valid in files.items():
        name, content = valid_name, valid
        if draw.chance(0.1):
            content = raw.mutate(draw, valid)
        elif draw.chance(0.04):
            content = raw.another_kind(draw, valid)
        if draw.chance(0.1):
            split, plain = valid_name.split("/", 1)
            shape = draw.pick(STRANGE_NAMES)
            draw.note(f"name: {shape!r}")
            name = f"{split}/" + shape.format(n=plain.split("_train")[0].split("_test")[0], s=split)
            if name.endswith(".gz"):
                content = gzip.compress(content, mtime=0)
        path = os.path.join(case.input, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if draw.chance(0.02):
            draw.note("a dangling link")
            os.symlink(draw.pick(("gone", "/nonexistent/gone", ".", os.path.basename(path))), path)
        elif draw.chance(0.01):
            draw.note("a folder in place of a file")
            os.makedirs(path)
        else:
            with open(path, "wb") as stream:
                stream.write(content)
            case.rows[name] = rows_of(content)
    if draw.chance(0.03):
        draw.note("incomplete synthetic mark")
        (case.input / "_SYNTHETIC.json").write_bytes(draw.pick((b"{", b"[]", b'{"complete": false}', b"", b"\xff")))


def rows_of(content: bytes) -> int:
    """Return the lines below the header that are not empty: a line has no quoted line breaks."""
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, ValueError):
            return 0
    lines = re.split(rb"\r\n|\n|\r", content)
    return sum(1 for line in lines[1:] if line)


def _mutate(draw: Draw, file: CsvFile) -> None:
    kind = draw.weighted(_MUTATIONS)
    draw.note(f"csv: {kind}")
    _mutate_columns(draw, file, kind)
    _mutate_lines(draw, file, kind)
    _mutate_form(draw, file, kind)


def _mutate_columns(draw: Draw, file: CsvFile, kind: str) -> None:
    lines = (file.header, *file.rows)
    column = draw.rng.randrange(len(file.header)) if file.header else 0
    if kind == "column of cells":
        value = draw.pick(cells.NUMBERS_AS_TEXT)
        for line in file.rows:
            line[column : column + 1] = [value]
    elif kind == "drop column":
        for line in lines:
            del line[column : column + 1]
    elif kind == "duplicate column":
        for line in lines:
            line[column:column] = line[column : column + 1]
    elif kind == "rename column" and file.header:
        file.header[column] = cells.name_variant(draw, file.header[column])
    elif kind == "extra column":
        names = ("label", "Label", "timestamp", "extra", "", "Unnamed: 0", "src_ip", "Rate.1", "id")
        file.header.append(draw.pick(names))
        for line in file.rows:
            line.append(draw.pick(("0", "", "x", "Benign_train.pcap")))
    elif kind == "order":
        order = draw.rng.sample(range(len(file.header)), len(file.header))
        for line in lines:
            line[:] = [line[i] for i in order if i < len(line)]
    elif kind == "pad header":
        file.header[:] = [f" {name} " for name in file.header]
    elif kind == "trailing comma":
        for line in lines:
            line.append("")


def _mutate_lines(draw: Draw, file: CsvFile, kind: str) -> None:
    at = draw.rng.randrange(len(file.rows) + 1)
    row = draw.pick(file.rows) if file.rows else []
    if kind == "cells":
        for _ in range(draw.rng.randint(1, 6)):
            target = draw.pick(file.rows) if file.rows else []
            if target:
                target[draw.rng.randrange(len(target))] = draw.pick(cells.NUMBERS_AS_TEXT)
    elif kind == "repeat header":
        file.rows.insert(at, list(file.header))
    elif kind == "blank line":
        file.rows.insert(at, [draw.pick(("", "", " ", "\t"))])
    elif kind == "commas":
        file.rows.insert(at, [""] * draw.pick((2, len(file.header), 100)))
    elif kind == "short row":
        del row[draw.rng.randrange(len(row) + 1) :]
    elif kind == "long row":
        row.extend(["0"] * draw.pick((1, 3, 500)))
    elif kind == "line break in a cell" and row:
        row[0] = '"1\n2"'
    elif kind == "no rows":
        file.rows.clear()
    elif kind == "quotes":
        file.rows = [[f'"{cell}"' for cell in line] for line in file.rows]


def _mutate_form(draw: Draw, file: CsvFile, kind: str) -> None:
    if kind == "no header" and draw.chance(0.5):
        file.header = [str(i) for i in range(len(file.header))]
    elif kind == "no header":
        file.header = list(file.rows[0]) if file.rows else []
    elif kind == "delimiter":
        file.delimiter = draw.pick((";", "\t", "|", ", ", " ", "\x01"))
    elif kind == "decimal comma":
        file.delimiter = ";"
        file.rows = [[cell.replace(".", ",") for cell in line] for line in file.rows]
    elif kind == "line end":
        file.line_end = draw.pick(("\r\n", "\r", "\n\n", "\r\r\n", "\n\r", "\u2028", "\x0b", "\n \n"))
    elif kind == "encoding":
        file.encoding = draw.pick(("utf-16", "utf-8-sig", "latin-1", "utf-32", "utf-16-le", "cp500"))
    elif kind == "before":
        file.before = draw.pick(("sep=,\n", "# comment\n", "\n", "\n\n\n", "\ufeff", '"sep=;"\n', "\x00", " \n"))
    elif kind == "no last line end":
        file.last_line_end = False


_MUTATIONS: Final = {
    "cells": 30, "column of cells": 2, "drop column": 1, "duplicate column": 1, "rename column": 3,
    "extra column": 2, "order": 1,
    "pad header": 1, "repeat header": 2, "blank line": 2, "commas": 1, "short row": 2, "long row": 2,
    "trailing comma": 1,
    "line break in a cell": 1, "no header": 1, "delimiter": 1, "decimal comma": 1, "line end": 2, "encoding": 2,
    "before": 2,
    "no last line end": 1, "no rows": 1, "quotes": 1,
}  # fmt: skip


def valid_files(draw: Draw) -> dict[str, bytes]:
    """Return a small source without any fault, by name."""
    files = {}
    for split in ("train", "test"):
        for name in NAMES:
            frame = synthetic_frame(8, draw.rng.randrange(1000), "release39")
            file = CsvFile(list(frame.columns), frame.map(repr).to_numpy().tolist())
            files[f"{split}/{name}_{split}.pcap.csv"] = file.content()
    return files
