"""What must hold after every run, whatever the input was."""

import json
import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from tests.fuzz.case import Case
from tests.support.audits import newest_audit
from tests.support.nights import DATE

DONE, REFUSED, DEGRADED = 0, 2, 3
Snapshot = dict[str, tuple[int, int]]
_TRACE: Final = re.compile(
    r"^(?:Traceback \(most recent call last\)|\s+at [\w$.]+\(.*\)$|Exception in thread|java\.lang\.)", re.M
)
_ERROR: Final = re.compile(
    r"^(?:\w+\.)*(\w+(?:Error|Exception|Invalid|NotImplemented|Reconciled|Unusable|Missing)\w*)\b:? ?(.{0,80})", re.M
)
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")
_AUDIT_ROW: Final = re.compile(r"lake/audit/[^/]+\.parquet")
_ALWAYS: Final = ("train", "test", f"event_date={DATE}")
_LEFT: Final = (".staging", ".trash", ".commit-", ".running-")


def snapshot(folder: Path) -> Snapshot:
    """Return size and time of every file below a folder."""
    found: Snapshot = {}
    for at, folders, files in os.walk(folder):
        for name in [*files, *(f for f in folders if os.path.islink(os.path.join(at, f)))]:
            path = os.path.join(at, name)
            status = os.lstat(path)
            found[os.path.relpath(path, folder)] = (status.st_size, status.st_mtime_ns)
    return found


def faults_of(
    case: Case, code: int | None, records: list[logging.LogRecord], output: str, before: Snapshot
) -> list[str]:
    """Return what is wrong with a run; nothing if all is right.

    Args:
        case: The input.
        code: Exit code; None if an error escaped.
        records: Log records of the run.
        output: What the run and Spark wrote to standard error.
        before: The folder before the run, without `input`.
    """
    faults = []
    if code not in (DONE, REFUSED, DEGRADED):
        faults.append(f"exit code {code}: {_last_error(records, output)}")
    elif case.planted and code != DONE:
        faults.append(f"a journal or heartbeat ended a job with exit code {code}: {_last_error(records, output)}")
    elif _TRACE.search(output):
        faults.append(f"a stack trace at exit code {code}: {_last_error(records, output)}")
    if found := _CONTROL.search(output):
        faults.append(f"a control character in the log: {found[0]!r}")
    if code == REFUSED:
        errors = [record for record in records if record.levelno >= logging.ERROR]
        if len(errors) != 1 or not errors[0].getMessage().strip():
            faults.append(f"a refusal with {len(errors)} messages")
        elif len(errors[0].getMessage()) > 20_000:
            faults.append("a refusal of more than 20,000 characters")
        after = snapshot(case.folder)
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        changed = [path for path in changed if not path.startswith("input/") and not _is_planted(case, path)]
        added = [path for path in changed if path not in before and _AUDIT_ROW.fullmatch(path)]
        changed = [path for path in changed if path not in added[:1]]  # a refusal writes its audit row and nothing else
        if changed:
            faults.append(f"a refusal changed {len(changed)} file(s), such as {changed[0]}")
    outside = {path: facts for path, facts in before.items() if path.startswith("outside/")}
    if any(snapshot(case.folder).get(path) != facts for path, facts in outside.items()):
        faults.append("files outside the lake were changed")
    left = sorted(name for name in os.listdir(case.lake) if name.startswith(_LEFT))
    kept = case.planted if code == REFUSED else tuple(name for name in case.planted if name != ".commit-")
    left = [name for name in left if not name.startswith(kept or "\0")]
    if left and code is not None:
        faults.append(f"left behind: {', '.join(map(repr, left))}")
    if code in (DONE, DEGRADED) and case.table:
        faults += _table_faults(case, records, output)
    return faults


def _is_planted(case: Case, path: str) -> bool:
    return path.removeprefix("lake/").startswith(case.planted or "\0")


def _last_error(records: list[logging.LogRecord], output: str) -> str:
    """Return the last error and the last place in this package that a stack trace names."""
    for record in reversed(records):
        if record.exc_info and record.exc_info[1] is not None:
            output = f"{output}\n{logging.Formatter().formatException(record.exc_info)}"
            break
    places = re.findall(r'ids_spark/([\w/]+\.py)", line (\d+), in (\w+)', output)
    kinds = _ERROR.findall(output)
    kinds = [kind for kind in kinds if not kind[0].startswith("Py4J") and "SparkException" not in kind[0]]
    messages = [record.getMessage() for record in records if record.levelno >= logging.ERROR]
    where = "{}:{} {}".format(*places[-1]) if places else ""
    what = ": ".join(kinds[-1]) if kinds else (messages[-1][:120] if messages else output.strip()[-120:])
    return f"{where} {what}".strip()


def _table_faults(case: Case, records: list[logging.LogRecord], output: str) -> list[str]:
    job = "ingest" if case.table == "flows" else "score"
    audit = newest_audit(case.lake, job)
    faults = []
    accounted = audit.rows_out + audit.rows_quarantined + audit.rows_duplicate + audit.rows_joined + audit.rows_left_out
    if audit.rows_in != accounted:
        faults.append(f"audit: {audit.rows_in} rows in, {accounted} accounted for")
    if case.table == "flows":
        written, refused = _counts(case.lake / "flows"), _counts(case.lake / "quarantine/job=ingest")
        listed: dict[str, int] = {}
    elif case.table == "split_predictions":
        written, refused = _counts(case.lake / case.table), _counts(case.lake / "quarantine/job=score_split")
        listed = {}
    else:
        nights = [path for path in (case.lake / "nights").glob("event_date=*") if _run_of(path) == audit.run_id]
        written, refused, listed, more = _night_counts(case, nights)
        faults += more
    rows_out, rows_quarantined = sum(written.values()), sum(refused.values())
    if (rows_out, rows_quarantined) != (audit.rows_out, audit.rows_quarantined):
        faults.append(
            f"audit: {audit.rows_out} out and {audit.rows_quarantined} quarantined; tables: {rows_out} and"
            f" {rows_quarantined}"
        )
    if job == "ingest" and audit.rows_in and not rows_out and not rows_quarantined:
        faults.append("rows in, none written")
    mentions = " ".join([*audit.notes, *audit.inputs, *listed, *(record.getMessage() for record in records)])
    for name, rows in case.rows.items():
        found = written[name] + refused[name]
        if found and found != rows:
            faults.append(f"a file has other rows than the tables: {name!r}, {rows} and {found}")
        elif (
            not found and rows and not any(_is_named(part, mentions) for part in name.split("/") if part not in _ALWAYS)
        ):
            faults.append(f"a file that was not read is not named: {os.path.basename(name)!r}")
    return faults


def _is_named(name: str, mentions: str) -> bool:
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    plain = re.sub(r"[^\w.%#?-]+", "", shown)
    return plain[:20] in re.sub(r"[^\w.%#?-]+", "", mentions)


def _counts(folder: Path) -> Counter[str]:
    """Return rows by file, without predictions of rows that are in quarantine as well."""
    found: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.parquet")):
        file = pq.ParquetFile(path)
        table = file.read(["source_file", *({"imputed"} & set(file.schema_arrow.names))])
        if "imputed" in table.column_names:
            table = table.filter(table["imputed"].is_null())
        found.update(table["source_file"].to_pylist())
    return found


def _run_of(night: Path) -> str:
    return str(pq.ParquetFile(next(night.glob("*.parquet"))).read(["run_id"])["run_id"][0])


def _night_counts(case: Case, nights: list[Path]) -> tuple[Counter[str], Counter[str], dict[str, int], list[str]]:
    """Return rows by file of predictions and quarantine, the rows that the nights list by file, and faults."""
    written: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    listed: dict[str, int] = {}
    faults = []
    for night in nights:
        place = night.name
        for table, total in (("predictions", written), ("quarantine/job=score", refused)):
            total.update({f"{place}/{name}": n for name, n in _counts(case.lake / table / place).items()})
        row = pq.ParquetFile(next(night.glob("*.parquet"))).read().to_pylist()[0]
        listed |= {f"{place}/{file['name']}": file["rows"] for file in row["files"]}
        if row["rows_in"] != sum(file["rows"] for file in row["files"]):
            faults.append(f"{place}: {row['rows_in']} rows in, files hold {sum(f['rows'] for f in row['files'])}")
        page = (case.lake / "reports/night" / place / "night.html").read_bytes().decode()
        if "<script>alert" in page or _CONTROL.search(page):
            faults.append(f"{place}: the page holds markup or control characters of the data")
        for export in (case.lake / "exports" / place).iterdir():
            for line in export.read_text(encoding="utf-8").split("\n"):
                if line:
                    json.loads(line, parse_constant=lambda text: faults.append(f"{text} in an export"))
        incidents = pq.ParquetFile(next((case.lake / "incidents" / place).glob("*.parquet"))).read().to_pylist()
        if [each["state"] for each in incidents].count("open") != row["incidents"]:
            faults.append(f"{place}: {len(incidents)} incidents, counted {row['incidents']}")
        if sum(each["shown"] for each in incidents) != row["incidents_shown"]:
            faults.append(f"{place}: other incidents shown than counted")
    if nights:
        index = (case.lake / "reports/index.html").read_bytes().decode()
        faults += [f"{n.name} is not on the index" for n in nights if f'id="night-{n.name[11:]}" ' not in index]
        if "<script>alert" in index or _CONTROL.search(index):
            faults.append("the index holds markup or control characters of the data")
    return written, refused, listed, faults
