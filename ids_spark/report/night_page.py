"""The page of a night: reads its tables, draws the pictures, writes one self-contained HTML file."""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from ids_spark.alerts import narrative
from ids_spark.alerts.severity import category_of
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS2, CLASS6, CLASS19, CLASSES, LEVELS, class2_of
from ids_spark.features import drift
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.store import Lake
from ids_spark.models import registry
from ids_spark.models.artifact import ModelCard, ModelUnusable, model_versions
from ids_spark.models.signatures import Trust
from ids_spark.report import html, night_figures, night_findings, night_text, packet_counts
from ids_spark.report.night_findings import Night, Row
from ids_spark.report.style import png

log = logging.getLogger(__name__)

DRAWN_FEATURES: Final = 6
"""Number of features drawn and listed before `details` is opened; those that drifted most."""
LISTED_INCIDENTS: Final = 20
"""Number of incidents listed before `details` is opened."""
LISTED_FOLDED: Final = 100
"""Number of incidents of each state that are listed below the open ones."""
LISTED_ALERTS: Final = 20
"""Number of alerts listed with an incident."""
LISTED_FLOWS: Final = 5
"""Number of flows listed with an incident, those with the highest scores."""
LISTED_ENTITIES: Final = 3
"""Number of sources, and of devices, named on the line of an incident."""
DRAWN_INCIDENTS: Final = 12
"""Number of incidents drawn by time; the first ones."""
LISTED_REFUSED: Final = 20
"""Number of devices and sources with quarantined flows, listed before `details` is opened."""
LISTED_FILES: Final = 20
"""Number of files that could not be read, listed before `details` is opened."""
TREND: Final[Mapping[str, str]] = {
    "rows_in": "flows",
    "flows_flagged": "flows flagged",
    "incidents": "incidents",
    "false_incidents_expected": "false incidents expected",
    "drift_significant": "features drifted",
    "rows_quarantined": "flows quarantined",
}
"""Column of `nights/` and title of each figure that is shown for seven nights."""


def night_of_lake(lake: Lake, event_date: dt.date, trust: Trust | None = None) -> Night:
    """Read the tables of a night and of the six dates before it.

    A model whose directory was removed or changed since, or, with trusted keys, is not signed by one, has no card.

    Raises:
        NightUnknown: the champion did not score the night.
        SchemaMismatch: a table of the night has other columns than this version writes.
    """
    nights = {**earlier(lake, event_date), event_date: _rows_of(lake, "nights", event_date)}
    before, after = neighbours(lake.dates("reports/night"), event_date)
    night = Night(
        event_date,
        _rows_of(lake, "incidents", event_date),
        _rows_of(lake, "drift", event_date),
        nights,
        cards={row["role"]: card for row in nights[event_date] if (card := _card_of(lake, row, trust)) is not None},
        alerts=_rows_of(lake, "alerts", event_date),
        before=before,
        after=after,
    )
    log.info("night read date=%s incidents=%d", event_date, night.champion["incidents"])  # raises without a champion
    return night


def neighbours(dates: Iterable[dt.date], event_date: dt.date) -> tuple[dt.date | None, dt.date | None]:
    """Return the last of some dates before a night and the first after it; None where there is none."""
    known = sorted(dates)
    before, after = (
        (date for date in reversed(known) if date < event_date),
        (date for date in known if date > event_date),
    )
    return next(before, None), next(after, None)


def earlier(lake: Lake, event_date: dt.date) -> dict[dt.date, list[Row]]:
    """Return the rows of `nights/` by date, of the six dates before a night; dates of another version are omitted."""
    found = {}
    for date in (event_date - dt.timedelta(days=i) for i in range(1, night_findings.TREND_NIGHTS)):
        try:
            found[date] = _rows_of(lake, "nights", date)
        except SchemaMismatch as error:
            log.warning("trend skips an earlier night date=%s error=%s", date, error)
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
        pictures["timeline"] = night_figures.timeline(night.shown[:DRAWN_INCIDENTS], night.event_date)
    if mix := by_hour(night.champion):
        pictures["classes"] = night_figures.class_hours(mix)
    worst = [row for row in night.drifts("feature")[:DRAWN_FEATURES] if row["expected"]]
    if worst and night.champion["rows_scored"]:
        pictures["drift"] = night_figures.drifted(worst)
    return {name: png(figure) for name, figure in pictures.items()}


def render_page(night: Night, pictures: Mapping[str, bytes]) -> str:
    """Return the page; every text is escaped.

    Args:
        night: From `night_of_lake`.
        pictures: From `draw`.
    """
    champion, challenger = night.champion, night.challenger
    in_force = [entry for entry in night.allow_list if _in_force(entry, night.event_date)]
    issues, recall = night_findings.issues(night), night_findings.recall(night)
    return html.render(
        "night.html.j2",
        pictures,
        run_id=champion["run_id"],
        data_origins=[champion["data_origin"]],
        night=night,
        drift=drift,
        champion=champion,
        challenger=challenger,
        card_of_model=night.cards.get("champion"),
        packet_sentences=packet_counts.sentences,
        state=night_findings.state(night),
        severities=night_findings.severities(night.shown),
        not_shown=night_findings.not_shown(night),
        alarms=night_findings.false_alarms(night),
        false_incidents=night_findings.false_incidents(night),
        rates=night_findings.false_alarm_rates(night),
        recall=recall,
        mean_recall=night_findings.mean_recall(recall),
        explained=narrative.explained,
        main_of=narrative.main_of,
        name_of=narrative.name_of,
        known_of=narrative.known_of,
        attacks_others=narrative.attacks_others,
        victims=narrative.victims,
        sentences=narrative.sentences,
        title_of=narrative.title,
        issues=issues,
        runs=night_text.runs(night),
        hidden=night_findings.hidden(night),
        listed_refused=LISTED_REFUSED,
        trust=night_findings.trust(issues),
        classes=classes_of(night),
        differences=differences(champion, challenger) if challenger else [],
        trend_figures=TREND,
        trend_nights=night_findings.TREND_NIGHTS,
        older=[date for date, row in night.trend.items() if row and row.get("false_incidents") is None],
        other_champions=[date for date, row in night.trend.items() if row and _model(row) != _model(champion)],
        drift_levels=Counter(str(row["drift_level"]) for row in night.drifts("feature")),
        allow_lists={"in force": in_force, "expired": [entry for entry in night.allow_list if entry not in in_force]},
        allow_columns=list(dict.fromkeys(key for entry in night.allow_list for key in entry)),
        drawn_features=DRAWN_FEATURES,
        drawn_incidents=DRAWN_INCIDENTS,
        listed_incidents=LISTED_INCIDENTS,
        listed_folded=LISTED_FOLDED,
        listed_alerts=LISTED_ALERTS,
        listed_entities=LISTED_ENTITIES,
        listed_flows=LISTED_FLOWS,
        listed_files=LISTED_FILES,
    )


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

    The expected share is that among the predictions of the benign validation rows; None where it is unknown.
    """
    found = _flows_by(night.champion, str)
    expected: dict[str, float] = {}
    for row in night.drifts("class_mix"):
        names = next((CLASSES[level] for level in LEVELS if level == len(row["expected"] or ())), ())
        expected |= dict(zip(names, row["expected"] or (), strict=False))
    return [(name, n, expected.get(name)) for name, n in found.most_common()]


def differences(champion: Row, challenger: Row) -> list[tuple[str, int, int]]:
    """Return (class, flows of the champion, of the challenger), largest difference first.

    Classes are the finest that both models predict: of 19, else categories, else benign and attack.
    """
    names = [set(_flows_by(row, str)) for row in (champion, challenger)]
    coarser: Callable[[str], str] = str
    for coarser in (str, category_of, lambda name: class2_of(category_of(name))):
        levels = [{coarser(name) for name in found} - {CLASS19[BENIGN_ID]} for found in names]
        if any(all(found <= set(CLASSES[level]) for found in levels) for level in LEVELS):
            break
    first, second = (_flows_by(row, coarser) for row in (champion, challenger))
    found = [(name, first[name], second[name]) for name in {*first, *second}]
    return sorted(found, key=lambda row: (-abs(row[1] - row[2]), row[0]))


def _flows_by(row: Row, name_of: Callable[[str], str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for cell in row["class_mix"] or ():
        found[name_of(cell["class_name"])] += cell["flows"]
    return +found


def _rows_of(lake: Lake, table: str, event_date: dt.date) -> list[Row]:
    rows: list[Row] = lake.read(table, event_date=event_date).to_pylist()
    return rows


def _card_of(lake: Lake, row: Row, trust: Trust | None) -> ModelCard | None:
    name, version = row["model"], row["model_version"]
    if version not in model_versions(lake.uri("models"), name):
        return None
    try:
        model = registry.read_version(lake.uri("models"), name, version, trust)
    except ModelUnusable as error:
        log.warning("model has no card model=%s version=%s error=%s", name, version, error)
        return None
    return model.card if model.sha256 == row["model_sha256"] else None


def _model(row: Row) -> tuple[str, str]:
    return row["model"], row["model_version"]


def _in_force(entry: Row, event_date: dt.date) -> bool:
    return str(entry["expires"]) >= event_date.isoformat()
