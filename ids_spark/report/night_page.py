"""The page of a night: read from the lake, drawn, written as one file that needs nothing else, also on a phone."""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from ids_spark.alerts.severity import category_of
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import DRIFT, INCIDENTS, NIGHTS, require
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS2, CLASS6, CLASS19, CLASSES, LEVELS, class2_of
from ids_spark.lake.filesystem import files_in, resolve, write_bytes
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import ModelCard, ModelUnusable, model_versions
from ids_spark.models.artifact import read_model as read_model
from ids_spark.report import format, html, night_figures, night_findings
from ids_spark.report.format import amount, counted, known, probability, reason, seen
from ids_spark.report.night_findings import Night, NightUnknown, Row
from ids_spark.report.night_template import PAGE
from ids_spark.report.style import png

__all__ = ("Night", "NightUnknown", "earlier", "night_of_lake", "render_page", "write_page")
log = logging.getLogger(__name__)

WORST: Final = 6
"""Features whose distributions are drawn."""
MOST_OPEN: Final = 20
"""Incidents that are seen before anything is opened."""
TREND: Final[Mapping[str, str]] = {
    "rows_in": "flows",
    "flows_flagged": "flows flagged",
    "incidents": "incidents",
    "expected_false_alarms": "false alarms expected",
    "drift_significant": "features drifted",
    "rows_quarantined": "flows quarantined",
}
"""Column of `nights/` and title of each figure that is shown for seven nights."""
_AGREEMENT: Final[Mapping[str, str]] = {
    "both": "flagged by both",
    "champion_only": "flagged by the champion alone",
    "challenger_only": "flagged by the challenger alone",
}


def night_of_lake(lake: Lake, event_date: dt.date) -> Night:
    """Return what the lake's tables say about a night and the six dates before it.

    A model whose directory is gone or was changed since has no card.

    Raises:
        NightUnknown: the champion did not score the night.
        SchemaMismatch: a table of the night has other columns than this version writes.
    """
    nights = {**earlier(lake, event_date), event_date: _rows_of(lake, f"nights/event_date={event_date}", NIGHTS)}
    night = Night(
        event_date,
        _rows_of(lake, f"alerts/event_date={event_date}", INCIDENTS),
        _rows_of(lake, f"drift/event_date={event_date}", DRIFT),
        nights,
        cards={row["role"]: card for row in nights[event_date] if (card := _card_of(lake, row)) is not None},
    )
    log.info("night read date=%s incidents=%d", event_date, night.champion["incidents"])  # refuses one without
    return night


def earlier(lake: Lake, event_date: dt.date) -> dict[dt.date, list[Row]]:
    """Return the rows of `nights/` of the six dates before a night; none for one that another version wrote."""
    found = {}
    for date in (event_date - dt.timedelta(days=i) for i in range(1, night_findings.TREND_NIGHTS)):
        try:
            found[date] = _rows_of(lake, f"nights/event_date={date}", NIGHTS)
        except SchemaMismatch as error:
            log.warning("earlier night left out of the trend date=%s error=%s", date, error)
    return found


def write_page(target_uri: str, night: Night) -> None:
    """Write `night.html` and its pictures as PNG into a staged folder."""
    pictures = draw(night)
    for name, content in pictures.items():
        write_bytes(f"{target_uri}/{name}.png", content)
    write_bytes(f"{target_uri}/night.html", render_page(night, pictures).encode())


def draw(night: Night) -> dict[str, bytes]:
    """Return those of the pictures `timeline`, `classes`, `drift` and `trend` that the data allow."""
    pictures = {"trend": night_figures.nights(night.trend, TREND)}
    if night.shown:
        pictures["timeline"] = night_figures.timeline(night.shown, night.event_date)
    if mix := by_hour(night.champion):
        pictures["classes"] = night_figures.class_hours(mix)
    worst = [row for row in night.drifts("feature")[:WORST] if row["expected"]]
    if worst and night.champion["rows_scored"]:
        pictures["drift"] = night_figures.drifted(worst)
    return {name: png(figure) for name, figure in pictures.items()}


def render_page(night: Night, pictures: Mapping[str, bytes]) -> str:
    """Return the page; every text is escaped.

    Args:
        night: From `read`.
        pictures: From `draw`.
    """
    champion, challenger = night.champion, night.challenger
    covered = [entry for entry in night.allow_list if _in_force(entry, night.event_date)]
    bands = Counter(str(row["drift_level"]) for row in night.drifts("feature"))
    return html.render(
        PAGE,
        pictures,
        night=night,
        champion=champion,
        challenger=challenger,
        f=night_findings,
        w=format,
        doubts=night_findings.doubts(night),
        classes=classes_of(night),
        differences=differences(champion, challenger) if challenger else [],
        trend_figures=TREND,
        changes=[date for date, row in night.trend.items() if row and _model(row) != _model(champion)],
        bands=[f"{counted(n, 'feature')} {band}" for band, n in bands.items()],
        allowed={"in force": covered, "expired": [entry for entry in night.allow_list if entry not in covered]},
        columns=list(dict.fromkeys(key for entry in night.allow_list for key in entry)),
        in_use=in_use(night),
        colour=night_figures.severity_colour,
        seen=lambda row, time="%H:%M:%S": seen(row, night.event_date, time),
        reason=reason,
        agreement={_AGREEMENT.get(key, key): n for key, n in (night.agreement or {}).items()},
        worst=WORST,
        most_open=MOST_OPEN,
        number=lambda value: amount(None if value is None else float(value)),
    )


def in_use(night: Night) -> dict[str, str]:
    """Return what scored the night, text by name."""
    row, card = night.champion, night.cards.get("champion")
    said = {"model": f"{row['model']}, version {row['model_version']}", "SHA-256": str(row["model_sha256"])}
    if card is None:
        said["card"] = f"models/{row['model']}/{row['model_version']} does not hold the model that scored this night"
    else:
        said |= {
            "architecture": f"{card.title}, {card.classes} classes, feature_set {card.feature_set}, recipe {card.recipe},"
            f" {counted(len(card.features), 'feature')}, trained on {card.data_origin} flows",
            "never learnt": ", ".join(card.classes_absent_in_train) or "train held rows of every class",
        }
    logit, seconds = known(row["threshold_logit"]), known(row["seconds"])
    said |= {
        "threshold": f"{probability(logit)} (log-odds {amount(logit)})",
        "budget": f"{row['budget']:,} a night",
        **night.facts,
        "scored": f"{row['scored_at']:%Y-%m-%d %H:%M} UTC in {amount(seconds)} s",
        "code": f"{row['code_version']}, schema {row['schema_version']}, run {row['run_id']}",
    }
    return said


def by_hour(row: Row) -> dict[str, night_figures.Hours]:
    """Return flows by category and hour, Benign first.

    Returns:
        Shape (25,) each: hours in UTC, then flows without an event time. Empty where no flow has one.
    """
    cells = row["class_mix"] or ()
    if all(cell["hour"] is None for cell in cells):
        return {}
    found: dict[str, night_figures.Hours] = {}
    for cell in cells:
        counts = found.setdefault(category_of(cell["class_name"]), np.zeros(night_figures.HOURS + 1, dtype=np.int64))
        counts[night_figures.HOURS if cell["hour"] is None else cell["hour"]] += cell["flows"]
    order = [*CLASS6, CLASS2[1]]
    return {name: found[name] for name in order if name in found and found[name].any()}


def classes_of(night: Night) -> list[tuple[str, int, float | None]]:
    """Return (class, flows, expected share) of each predicted class, most flows first.

    The expected share is that of the benign validation rows' predictions; None where it is unknown.
    """
    found = _flows_by(night.champion, str)
    expected: dict[str, float] = {}
    for row in night.drifts("class_mix"):
        names = next((CLASSES[level] for level in LEVELS if level == len(row["expected"] or ())), ())
        expected |= dict(zip(names, row["expected"] or (), strict=False))
    return [(name, n, expected.get(name)) for name, n in found.most_common()]


def differences(champion: Row, challenger: Row) -> list[tuple[str, int, int]]:
    """Return (class, flows of the champion, of the challenger), most different first.

    Classes are categories, or benign and attack, where that is as far as both models tell them apart.
    """
    names = [set(_flows_by(row, str)) for row in (champion, challenger)]
    coarser: Callable[[str], str] = str
    for coarser in (str, category_of, lambda name: class2_of(category_of(name))):
        levels = [{coarser(name) for name in found} - {CLASS19[BENIGN_ID]} for found in names]
        if any(all(found <= set(CLASSES[level]) for found in levels) for level in LEVELS):
            break
    ours, theirs = (_flows_by(row, coarser) for row in (champion, challenger))
    found = [(name, ours[name], theirs[name]) for name in {*ours, *theirs}]
    return sorted(found, key=lambda row: (-abs(row[1] - row[2]), row[0]))


def _flows_by(row: Row, name_of: Callable[[str], str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for cell in row["class_mix"] or ():
        found[name_of(cell["class_name"])] += cell["flows"]
    return +found


def _rows_of(lake: Lake, table: str, contract: pa.Schema) -> list[Row]:
    """Return the rows of one partition with the columns of the contract; none where it is not there."""
    files = files_in(lake.uri(table), ".parquet")
    if not files:
        return []
    fs, _ = resolve(lake.root)
    found = pads.dataset([resolve(file)[1] for file in files], filesystem=fs)
    require(found.schema, contract, lake.uri(table))
    rows: list[Row] = found.to_table(columns=contract.names).to_pylist()
    return rows


def _card_of(lake: Lake, row: Row) -> ModelCard | None:
    name, version = row["model"], row["model_version"]
    if version not in model_versions(lake.uri("models"), name):
        return None
    try:
        model = read_model(lake.uri(f"models/{name}/{version}"))
    except ModelUnusable as error:
        log.warning("no card of a model model=%s version=%s error=%s", name, version, error)
        return None
    return model.card if model.sha256 == row["model_sha256"] else None


def _model(row: Row) -> tuple[str, str]:
    return row["model"], row["model_version"]


def _in_force(entry: Row, event_date: dt.date) -> bool:
    return str(entry["expires"]) >= event_date.isoformat()
