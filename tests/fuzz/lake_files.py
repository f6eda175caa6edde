"""Files that the lake keeps for itself: journals of commits, leases of runs, facts of tables."""

import copy
import json
import os
import time
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from ids_spark.dataset.tables import TABLES
from tests.fuzz import cells, documents, tables
from tests.fuzz.case import Base, Case, start
from tests.fuzz.draw import Draw
from tests.support.nights import MODEL

RUN: Final = "20260228T010203Z-0a1b2c3d"
BAD_NAMES: Final = (
    "..", "../..", "../../outside", "../outside", "/", "", ".", "flows/../../outside", "/tmp", "audit", "~",
    "flows\x00", "./flows",
    "models", "flows/", "//flows", "a" * 300, ".staging", "../lake/flows", "quarantine/job=ingest/..",
    "file:///tmp", "s3://b/k",
    "\u2025", "..\\outside", "%2e%2e/outside", "flows\n", ".running-x.json", "reports/../../outside/x",
)  # fmt: skip
JOURNALS: Final = (
    ".commit-{0}.json", ".commit-{0}", ".commit-.json", ".commit-{0}~0a1b2c3d.json", ".commit-..json",
    ".commit-{0}~.json",
    ".commit-x.json", ".commit-{0}.json.new", ".commit-{0}\n.json", ".commit-" + "x" * 200 + ".json",
    ".commit-\x1b[31m.json",
)  # fmt: skip


def make_journal(draw: Draw, base: Base, folder: Path) -> Case:
    """Return a purge on a lake in which an earlier run left a journal and staged tables."""
    case = _purge(draw, base, folder)
    job, run, names = "ingest", RUN, ["flows", "quarantine/job=ingest"]
    for name in names:
        staged = case.lake / ".staging" / job / run / name
        staged.mkdir(parents=True)
        pq.write_table(TABLES[name].contract.empty_table(), staged / "part-00000-new.parquet")
    entry: Any = {"job": job, "run_id": run, "tables": names}
    if draw.chance(0.15):
        entry["files"] = draw.pick(
            ({name: ["part-00000-new.parquet"] for name in names}, {"flows": ["../../../outside/kept"]}, [], None)
        )
        draw.note("files in the journal")
    for _ in range(draw.rng.choice((0, 1, 1, 2))):
        key, bad = draw.pick(("job", "run_id", "tables", "tables")), draw.pick(BAD_NAMES)
        draw.note(f"journal: {key} {bad[:30]!r}")
        if key == "tables":
            entry["tables"] = draw.pick(([bad], [*names, bad], [bad, *names], bad, names * 2))
        else:
            entry[key] = bad
    content = json.dumps(entry).encode()
    if draw.chance(0.35):
        content = documents.mutated(draw, entry, "json")
    name = draw.pick(JOURNALS) if draw.chance(0.25) else JOURNALS[0]
    name = name.format(run)
    if name != f".commit-{run}.json":
        draw.note(f"journal named {name[:40]!r}")
    if draw.chance(0.03):
        draw.note("a folder as journal")
        (case.lake / name).mkdir()
    else:
        (case.lake / name).write_bytes(content)
    if draw.chance(0.2):
        _lease(draw, case, run, old=True)
    case.planted = (".commit-", ".staging", ".running-")
    return case


def make_lease(draw: Draw, base: Base, folder: Path) -> Case:
    """Return a purge or a promotion on a lake with leases of other runs."""
    case = _purge(draw, base, folder)
    for i in range(draw.rng.randint(1, 3)):
        _lease(
            draw,
            case,
            draw.pick((f"20260228T01020{i}Z-0a1b2c3d", "", "..", "x\n", "a b", "\u00e9", "x" * 200)),
            old=draw.chance(0.5),
        )
    (case.lake / ".staging/purge/20260228T010200Z-0a1b2c3d").mkdir(parents=True)
    case.planted = (".running-", ".staging")
    return case


def make_facts(draw: Draw, base: Base, folder: Path) -> Case:
    """Return a job that reads facts of a table, or the aliases of a model, that were changed."""
    if draw.chance(0.5):
        case = start(folder, base.flows)
        file = case.lake / "flows/_table.json"
        file.write_bytes(documents.mutated(draw, json.loads(file.read_text()), "json"))
        case.job, case.settings = "features", ["features.files=1", "features.sample_rows=100"]
        return case
    case = start(folder, base.night)
    file = case.lake / "models" / MODEL / "_aliases.json"
    file.write_bytes(documents.mutated(draw, json.loads(file.read_text()), "json"))
    case.job = "promote"
    case.settings = [f"promote.model={MODEL}", f"promote.alias={draw.pick(('champion', 'challenger'))}"]
    case.settings.append(f"promote.version={draw.pick(('latest', 'previous', '..', '', 'x'))}")
    return case


def _purge(draw: Draw, base: Base, folder: Path) -> Case:
    case = start(folder, base.flows)
    (folder / "outside/flows").mkdir(parents=True)
    (folder / "outside/kept").write_bytes(b"kept")
    (folder / "outside/flows/part.parquet").write_bytes(tables.plain(_SMALL))
    case.job, case.settings = "purge", ["purge.today=2026-03-01"]
    return case


def _lease(draw: Draw, case: Case, run: str, old: bool) -> None:
    identity: Any = {"machine": draw.pick(("another", "")), "pid": 1, "started": 0.0}
    content = json.dumps(identity).encode()
    if draw.chance(0.7):
        key = draw.pick(tuple(identity))
        identity[key] = copy.deepcopy(draw.pick((*cells.ANY[:24], -(2**40), 4_194_304)))
        draw.note(f"lease: {key} {str(identity[key])[:30]!r}")
        content = json.dumps(identity).encode() if draw.chance(0.7) else documents.mutated(draw, identity, "json")
    path = case.lake / f".running-{run}.json"
    path.write_bytes(content)
    at = time.time() - 86_400 if old else time.time()
    os.utime(path, (at, at))


_SMALL: Final = tables.pa.table({"a": [1]})
