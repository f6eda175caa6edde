"""A night of flow logs, and nights around it."""

import os
from pathlib import Path
from typing import Final

import pyarrow as pa

from tests.fuzz import parquet_sources, tables
from tests.fuzz.case import Base, Case, start
from tests.fuzz.draw import Draw
from tests.support.nights import DATE, MODEL

TEXTS: Final = ["flow_id", "device_id", "src_ip"]
FOLDERS: Final = (
    "event_date=20260301", "dt=2026-03-01", "event_date=2026-03-01 00%3A00%3A00", "event_date=2026-03-01 00:00:00",
    "2026-03-01",
    "event_date=2026-3-1", "event_date=2026-02-30", "Event_Date=2026-03-01", "event_date=__HIVE_DEFAULT_PARTITION__",
    "year=2026/month=03/day=01", "event_date=2026-03-01T00", "event_date=", "\u00e9vent_date=2026-03-01",
)  # fmt: skip
STRANGE_NAMES: Final = (
    "{0}.PARQUET", "{0}", "{0}.parq", ".{0}.parquet", "_{0}.parquet", "{0}.parquet.tmp", "{0}.parquet.crc",
    "{0}.csv", "{0}\n.parquet",
    "_delta_log/{0}.parquet", "hour=10/{0}.parquet", "event_date=2026-03-01/{0}.parquet", "{0}.gz.parquet",
    "{0}\udcff.parquet",
    "{0}\x1b[31m.parquet", "{0}%20#?.parquet", "{0}.parquet/part-0.parquet", "{0}.parquet.inprogress",
    "data/{0}.parquet",
)  # fmt: skip
SETTINGS: Final = (
    "alerts.most_lines=1", f"alerts.most_lines={10**20}", "alerts.window_minutes=1", "score.batch_rows=1",
    f"score.batch_rows={10**20}",
    "score.columns=[]", "score.columns=[lineage,levels,top3,attributions]", "alerts.attributions=10",
    "alerts.entities=[nothing]",
    "alerts.entities=[]", f"alerts.explained_rows={10**20}", "score.pass_through=[event_time]",
    "score.event_time=flow_id",
    "score.pass_through=[event_time,Rate]", "score.column_aliases={extra: Rate}",
    "score.pass_through=[event_time,id.orig_h,id]",
    "score.column_aliases={Rate: IAT}", "score.challenger=false", "score.pseudonymise=[device_id]",
)  # fmt: skip


def make(draw: Draw, base: Base, folder: Path) -> Case:
    """Return the scoring of one night, or of a range, of one to three files each."""
    case = start(folder, base.night)
    settings = [f"score.flow_logs={case.input}/logs", f"score.models=[{MODEL}]"]
    dates = [str(DATE)]
    if draw.chance(0.15):
        dates = ["2026-02-28", "2026-03-01"]
        settings += ["score.first_date=2026-02-28", "score.last_date=2026-03-02"]
        draw.note("a range of dates")
    else:
        settings.append(f"score.date={DATE}")
    for date in dates:
        place = f"event_date={date}"
        if draw.chance(0.08):
            place = draw.pick(FOLDERS)
            draw.note(f"folder: {place!r}")
        for i in range(draw.rng.randint(1, 3)):
            _write(draw, case, base, f"logs/{place}", f"flows-{i}.parquet")
        if draw.chance(0.05) and (case.input / "logs" / place).is_dir():
            parquet_sources.write_delta_log(draw, case.input / "logs" / place)
    if draw.chance(0.2):
        chosen = draw.pick(SETTINGS)
        draw.note(chosen)
        settings.append(chosen)
    case.job, case.table, case.settings = "score", "nights", settings
    return case


def write_valid(draw: Draw, base: Base, case: Case) -> list[str]:
    """Write a valid night of twelve flows; return the settings that score it."""
    folder = case.input / f"logs/event_date={DATE}"
    folder.mkdir(parents=True)
    at = draw.rng.randrange(len(base.logs) - 12)
    (folder / "flows-0.parquet").write_bytes(tables.plain(base.logs.slice(at, 12)))
    case.rows = {f"event_date={DATE}/flows-0.parquet": 12}
    return [f"score.flow_logs={case.input}/logs", f"score.models=[{MODEL}]", f"score.date={DATE}"]


def _write(draw: Draw, case: Case, base: Base, place: str, name: str) -> None:
    rows = draw.rng.choice((1, 10, 30))
    table: pa.Table = base.logs.slice(draw.rng.randrange(len(base.logs) - rows), rows)
    numbers = [n for n in table.column_names if n not in (*TEXTS, "event_time")]
    table = tables.mutate(draw, table, numbers, TEXTS, "event_time")
    content, counted = tables.content_of(draw, table)
    if draw.chance(0.12):
        shape = draw.pick(STRANGE_NAMES)
        draw.note(f"name: {shape!r}")
        name = shape.format(name.removesuffix(".parquet"))
    path = os.path.join(case.input, place, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if draw.chance(0.04):
        draw.note("a dangling link")
        os.symlink(draw.pick(("gone", os.path.basename(path))), path)
        return
    with open(path, "wb") as stream:
        stream.write(content)
    if counted:
        case.rows[f"{place.removeprefix('logs/')}/{name}"] = len(table)
