"""Reasons of a degraded night against figures by hand."""

import datetime as dt
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ids_spark.config.score import ScoreConfig
from ids_spark.extract.footer import Extraction
from ids_spark.features.drift import BinCounts
from ids_spark.score import degradation
from ids_spark.score.night_files import NightFile, NightSource
from ids_spark.score.night_tasks import NightCounts

DATE = dt.date(2026, 3, 4)
NONE = np.zeros(0, dtype=np.int64)
SOUND = NightFile("a.parquet", 90)


def reasons(
    scored: int, *files: NightFile, refused: int = 0, before: tuple[int, ...] = (), alike: float = 0.0, **settings: Any
) -> list[str]:
    counts = NightCounts(BinCounts(0, [], NONE, NONE, NONE), NONE, rows_read=scored + refused, rows_scored=scored)
    counts.quarantined = Counter({"missing": refused} if refused else {})
    counts.scored_by_file = Counter({"a.parquet": scored})
    nights = {
        DATE - dt.timedelta(days=i): [{"role": "champion", "rows_in": rows}, {"role": "challenger", "rows_in": 7}]
        for i, rows in enumerate(before, start=1)
    }
    source = NightSource(DATE, (), files or (SOUND,), (), "measured")
    found = degradation.reasons(source, counts, nights, ScoreConfig(flow_logs="logs", date=DATE, **settings), alike)
    assert all(each["text"] for each in found)
    return [each["reason"] for each in found]


@pytest.mark.parametrize(
    ("rows", "before", "expected"),
    [
        (34, (100, 100, 100), []),
        (33, (100, 100, 100), ["few_flows"]),
        (300, (100, 100, 100), []),
        (301, (100, 100, 100), ["many_flows"]),
        (1, (100, 100), []),  # two nights are too few
        (1, (100, 100, 0, 0), []),  # nights without flows are none of them
        (60, (20, 100, 10_000), []),  # the median
    ],
)
def test_the_number_of_flows_is_compared_with_the_median_of_three_nights_or_more(
    rows: int, before: tuple[int, ...], expected: list[str]
) -> None:
    assert reasons(rows, before=before) == expected


@pytest.mark.parametrize(
    ("invisible", "single", "limit", "expected"),
    [
        (100, 0, 0.5, []),
        (101, 0, 0.5, ["packets_invisible"]),
        (99, 2, 0.5, ["packets_invisible"]),
        (101, 0, 0.6, []),
        (1, 0, 0.0, ["packets_invisible"]),
        (0, 0, 0.0, []),
    ],
)
def test_a_night_is_degraded_if_no_flow_describes_a_large_share_of_its_packets(
    invisible: int, single: int, limit: float, expected: list[str]
) -> None:
    counted = {"ipv4": 60 + single, "arp": 40 - single, "ipv6": invisible, "llc": 0}
    of_capture = Extraction(window=10, packets=counted, single=single, windows=90)
    assert reasons(90, replace(SOUND, extraction=of_capture), max_invisible_share=limit) == expected


def test_a_footer_that_contradicts_itself_degrades_the_night() -> None:
    of_capture = Extraction(window=10, packets={}, single=7, windows=90)
    assert reasons(90, replace(SOUND, extraction=of_capture)) == ["packets_invisible"]


@pytest.mark.parametrize(
    ("name", "similar"),
    [("dt=2026-03-04", True), ("20260304", True), ("event_date=2026-3-4", True), ("date=04.03.2026", True),
     ("event_date=2026-03-04 00%3A00%3A00", True), ("event_date=2026-03-04T00:00:00Z", True),
     ("year=2026/month=03/day=04", True), ("year=2026/month=3/day=4", True), ("event_date=2026-03-05", False),
     ("event_date=2026-03-04", False), ("year=2026/month=03/day=05", False), ("20261399", False), ("notes", False)],
)  # fmt: skip
def test_folders_that_hold_the_date_in_another_spelling_are_found(tmp_path: Path, name: str, similar: bool) -> None:
    (tmp_path / name).mkdir(parents=True)
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    assert degradation.similar_folders(config, DATE) == ([name] if similar else [])


@pytest.mark.parametrize(
    "settings",
    [{"date": "0001-01-02"}, {"date": "9999-12-31"}, {"last_days": 10**9}, {"first_date": "1969-12-31"},
     {"date": "2026-03-04", "batch_rows": 10**20}],
)  # fmt: skip
def test_dates_and_numbers_that_no_night_can_have_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScoreConfig(flow_logs="logs", **settings)


def test_a_share_of_refused_rows_above_the_setting_degrades() -> None:
    assert reasons(95, refused=5) == []
    assert reasons(94, refused=6) == ["rows_refused"]
    assert reasons(94, refused=6, max_rejected_share=0.06) == []
    assert reasons(0, refused=100) == ["nothing_scored"]


def test_refused_rows_of_all_entities_alike_degrade_above_what_is_usual() -> None:
    assert reasons(9_980, refused=20, alike=10) == []
    assert reasons(9_980, refused=20, alike=11) == ["rows_refused_alike"]


@pytest.mark.parametrize(
    ("refused", "usual"),
    [
        ((), 0.001),
        ((90, 90), 0.001),  # two nights are too few
        ((0, 0, 0), 0.001),
        ((1, 2, 3, 4), 0.005),  # twice the median of shares of one in a thousand
        ((0, 0, 0, 500), 0.001),  # one bad night makes nothing usual
        ((20, 20, 20), 0.01),  # nor do many above 1 %
    ],
)
def test_the_usual_share_of_refused_rows_is_that_of_the_nights_before_within_limits(
    refused: tuple[int, ...], usual: float
) -> None:
    nights = {
        DATE - dt.timedelta(days=i): [{"role": "champion", "rows_in": 1_000, "rows_quarantined": n}]
        for i, n in enumerate(refused, start=1)
    }
    nights[DATE] = [{"role": "champion", "rows_in": 1_000, "rows_quarantined": 999}]
    assert degradation.usual_refused(DATE, nights) == pytest.approx(usual)
    of_a_night = [min(n, 10) for n in refused]  # no more than 1 % of a night
    assert degradation.refused_before(DATE, nights) == (sum(of_a_night), 1_000 * len(refused))


def test_files_whose_flows_are_unknown_or_not_scored_degrade() -> None:
    assert reasons(90, SOUND, NightFile("empty.parquet", 0, "no_rows")) == []
    assert reasons(90, SOUND, NightFile("half.parquet", 0, "unreadable_file")) == ["files_unreadable"]
    assert reasons(90, SOUND, NightFile("twice.parquet", 3, "duplicated_column")) == ["files_not_scored"]
    assert reasons(90, SOUND, NightFile("_SUCCESS", 0, "hidden"), NightFile("readme.txt", 0, "document")) == []
    assert reasons(90, SOUND, NightFile("b.gz", 0, "gzip")) == ["files_unreadable"]
    assert reasons(0, NightFile("empty.parquet", 0, "no_rows")) == ["nothing_scored"]
