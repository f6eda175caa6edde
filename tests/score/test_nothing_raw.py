"""A pseudonymised night whose identifiers, names and broken rows hold a marker: it is in nothing that is written.

After a purge of the date, neither the marker nor any pseudonym of it is in anything but the audit.
"""

import contextlib
import datetime as dt
import hashlib
import hmac
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ids_spark.alerts.allow_list import read_allow_list
from ids_spark.extract.footer import Extraction
from tests.support.in_process import run
from tests.support.nights import DATE, KEY, copy, night_row, read, score

MARKER = "patient-4711-marker"
SUFFIX = ".parquet"
ROWS = 400
ALLOWED = """
- where: {{device_id: {marker}-pump-1}}
  reason: {marker} is known
  owner: night shift
  expires: {expires}
"""
INVENTORY = f"""address,device,type,department,owner,{MARKER}-column
198.51.100.23,{MARKER}-pump-1,pump,ICU,{MARKER}-owner,{MARKER}
198.51.100.24,{MARKER}-pump-2,pump,ICU,{MARKER}-owner,{MARKER}
"""


def pseudonym(text: str) -> str:
    return hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]


VALUES = (
    *(f"{MARKER}-pump-{i}" for i in range(3)),
    *(f"{MARKER}-{name}" for name in ("source", "cell", "target", "column", "capture")),
    *(f"{MARKER}-flow-{i}" for i in range(ROWS)),
)
FILES = (f"{MARKER}/ward.parquet", f"ward of {MARKER}.parquet")


def marked(night: pa.Table) -> pa.Table:
    """The flows of a night with the marker in every identifier, in a column that nobody declared, and in a cell."""
    n = len(night)
    columns = {
        "flow_id": [f"{MARKER}-flow-{i}" for i in range(n)],
        "device_id": [f"{MARKER}-pump-{i % 3}" for i in range(n)],
        "src_ip": [f"{MARKER}-source" if i % 2 else None for i in range(n)],
        "dst_ip": [f"{MARKER}-target"] * n,
        "capture_file": [f"{MARKER}-capture"] * n,
        f"{MARKER}-column": [f"{MARKER}-value-of-column"] * n,
    }
    for name, values in columns.items():
        if name in night.column_names:
            night = night.drop_columns([name])
        night = night.append_column(name, pa.array(values, pa.string()))
    place = night.column_names.index("Rate")
    cells = [f"{MARKER}-cell" if i == 7 else str(value) for i, value in enumerate(night["Rate"].to_pylist())]
    return night.set_column(place, "Rate", pa.array(cells))


def write(path: Path, table: pa.Table) -> None:
    capture = Extraction(window=10, capture=f"{MARKER}-capture", packets={"ipv4": 4_000}, windows=len(table))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(capture.metadata()), path, row_group_size=100)


def contents(folder: Path, nights: Path) -> dict[str, str]:
    """Everything below the lake that the lake of the model lacks, by path: bytes as text, parquet also decoded."""
    found = {}
    for path in (folder / "lake").rglob("*"):
        name = str(path.relative_to(folder / "lake"))
        if path.is_file() and not (nights / "lake" / name).exists():
            found[name] = path.read_bytes().decode(errors="replace")
            if path.suffix == SUFFIX:
                table = pq.ParquetFile(path).read()
                found[name] += str((table.to_pydict(), table.schema.metadata))
    return found


def holding(folder: Path, nights: Path, *texts: str) -> list[str]:
    """Paths in the lake whose name or content holds one of the texts."""
    found = contents(folder, nights).items()
    return [name for name, content in found if any(text in name or text in content for text in texts)]


def holding_pseudonyms(folder: Path, nights: Path) -> list[str]:
    """Paths in the lake whose name or content holds a pseudonym of the night, or its date in the name."""
    known = {pseudonym(value) for value in (*VALUES, *FILES)}
    return [
        name
        for name, content in contents(folder, nights).items()
        if f"event_date={DATE}" in name or known & set(re.findall(r"[0-9a-f]{32}", name + content))
    ]


@pytest.fixture(scope="module")
def night(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the lake of a marked night, and all that its scoring logged and printed."""
    folder = copy(nights, tmp_path_factory.mktemp("marked") / "night")
    logs = folder / "logs" / f"event_date={DATE}"
    whole = pa.concat_tables(pq.ParquetFile(path).read() for path in sorted(logs.glob("*.parquet")))
    attacks = pc.starts_with(whole["src_ip"].cast(pa.string()), "203.0.113.")
    chosen = pa.concat_tables([whole.filter(attacks).slice(0, ROWS // 2), whole.slice(0, ROWS // 2)]).combine_chunks()
    for path in logs.glob("*.parquet"):
        path.unlink()
    table = marked(chosen)
    write(logs / FILES[0], table.slice(0, ROWS // 2))
    write(logs / FILES[1], table.slice(ROWS // 2))
    write(logs / f"{MARKER}-lacks.parquet", table.slice(0, 5).drop_columns(["Rate"]))
    (logs / f"{MARKER}-broken.parquet").write_bytes(b"PAR1" + MARKER.encode() * 9)
    (logs / f"{MARKER}.csv").write_text(f"{MARKER},{MARKER}\n1,2\n")
    (logs / f".{MARKER}.tmp").write_text(MARKER)
    (folder / "logs" / f"{MARKER} of {DATE}").mkdir()
    expires = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)
    (folder / "allowed.yaml").write_text(ALLOWED.format(marker=MARKER, expires=expires))
    (folder / "inventory.csv").write_text(INVENTORY)
    (folder / "key").write_text(KEY + "\n")
    (folder / "key").chmod(0o600)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code, log = score(
            folder,
            "score.pseudonymise=null",
            f"score.pseudonym_key_file={folder}/key",
            f"score.inventory={folder}/inventory.csv",
            f"alerts.allow_list={folder}/allowed.yaml",
            "score.learning_nights=0",
            "alerts.false_incidents=50",
        )
    assert code == 3, log  # degraded: broken files
    assert f"night {DATE}" in printed.getvalue()
    return folder, log + printed.getvalue()


def test_a_marker_in_identifiers_names_and_a_broken_row_is_in_nothing_that_is_written(
    night: tuple[Path, str], nights: Path
) -> None:
    folder, log = night
    assert MARKER not in log
    assert KEY not in log
    assert holding(folder, nights, MARKER, KEY) == []
    predictions, row = read(folder, "predictions"), night_row(folder)
    assert set(predictions["device_id"]) == {pseudonym(f"{MARKER}-pump-{i}") for i in range(3)}  # the night was scored
    assert set(predictions["source_file"]) == {pseudonym(name) + SUFFIX for name in FILES}
    assert len(read(folder, "incidents"))
    assert {file["name"] for file in row["files"]} >= {
        pseudonym(f"{MARKER}-broken.parquet") + SUFFIX,
        pseudonym(f"{MARKER}.csv") + ".csv",
    }
    assert pseudonym(f"{MARKER}-column") in row["extra_columns"]
    [broken] = [
        json.loads(raw) for raw, reason in read(folder, "quarantine/job=score")[["raw", "reason"]].to_numpy()
        if reason == "unparsable"
    ]  # fmt: skip
    assert broken["Rate"] == pseudonym(f"{MARKER}-cell")
    assert all(isinstance(value, int | float) for name, value in broken.items() if name != "Rate")


def test_the_key_is_named_by_its_id_in_nights_and_audit(night: tuple[Path, str], nights: Path) -> None:
    key_id = hmac.new(KEY.encode(), b"ids_spark: which key", hashlib.sha256).hexdigest()[:8]
    folder, _ = night
    assert night_row(folder)["key_id"] == key_id
    assert any(key_id in content for path, content in contents(folder, nights).items() if path.startswith("audit/"))


def test_no_hash_without_the_key_lets_somebody_try_all_addresses(night: tuple[Path, str], nights: Path) -> None:
    folder, log = night
    inventory = hashlib.sha256((folder / "inventory.csv").read_bytes()).hexdigest()[:16]
    today = dt.datetime.now(dt.UTC).date()
    allowed = read_allow_list(f"{folder}/allowed.yaml", today, ["device_id"]).sha256()
    assert inventory not in log
    assert allowed[:16] not in log
    assert holding(folder, nights, inventory, allowed[:16]) == []
    facts = json.loads(night_row(folder)["page_inputs"])["facts"]
    assert pseudonym(allowed)[:16] in facts["allow-list"]


def test_a_refused_night_does_not_name_its_files_and_columns(night: tuple[Path, str], nights: Path) -> None:
    folder, _ = night
    logs = folder / "logs" / "event_date=2026-03-05"
    table = pq.ParquetFile(next((folder / "logs").rglob("ward.parquet"))).read()
    write(logs / f"{MARKER}.parquet", table.rename_columns([f"{name}-{MARKER}" for name in table.column_names]))
    key = f"score.pseudonym_key_file={folder}/key"
    code, log = score(folder, "score.pseudonymise=null", key, date=dt.date(2026, 3, 5))
    assert code == 2
    assert "lacks" in log
    code, log = score(folder, "score.pseudonymise=null", key, date=dt.date(2026, 3, 6))
    assert code == 2
    assert MARKER not in log
    (folder / "faulty.yaml").write_text(f"- {{{MARKER}: x}}\n")
    code, _ = score(folder, "score.pseudonymise=null", key, f"alerts.allow_list={folder}/faulty.yaml")
    assert code == 2  # the log quotes the file, the audit does not
    assert holding(folder, nights, MARKER) == []


def test_local_rows_of_the_night_hold_no_marker(night: tuple[Path, str], nights: Path, tmp_path: Path) -> None:
    folder = copy(night[0], tmp_path / "night")
    key = f"score.pseudonym_key_file={folder}/key"
    settings = (f"ingest.local={folder}/logs", f"ingest.local_dates=[{DATE}]", "ingest.max_rejected_share=1")
    code, log = run(folder, "ingest", *settings, "score.pseudonymise=null")
    assert code == 2
    assert "device_id, src_ip, capture_file can identify" in log
    code, log = run(folder, "ingest", *settings, "score.pseudonymise=null", key)
    assert code in (0, 3), log
    assert MARKER not in log
    assert holding(folder, nights, MARKER) == []
    rows = pq.read_table(folder / "lake/flows/split=local", partitioning=None).to_pydict()
    assert set(rows["device"]) == {pseudonym(f"{MARKER}-pump-{i}") for i in range(3)}
    assert set(rows["source_file"]) == {pseudonym(f"{MARKER}-capture")}
    require_purged(folder, nights)


def test_after_a_purge_of_the_date_nothing_of_it_remains_but_audit_rows(
    night: tuple[Path, str], nights: Path, tmp_path: Path
) -> None:
    require_purged(copy(night[0], tmp_path / "night"), nights)


def require_purged(folder: Path, nights: Path) -> None:
    """Purge the date of the night, and check that no pseudonym of it is left."""
    assert len(holding_pseudonyms(folder, nights)) > 5
    code, log = run(folder, "purge", "purge.older_than_days=1", f"purge.today={DATE + dt.timedelta(days=2)}")
    assert code == 0, log
    assert [name for name in holding_pseudonyms(folder, nights) if not name.startswith("audit/")] == []
