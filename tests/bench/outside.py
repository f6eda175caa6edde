"""Benchmark outside the laboratory: models of the data set on other captures, without and with rows of them.

    python -m tests.bench.outside --captures CAPTURES --data DATA --seeds 5 --out OUT

`make outside` calls it. The captures of `everyday/` are divided at random into halves: one is what a site has recorded
on the nights that it learns, the other one is measured, and no model has seen it. Without adaptation a model is trained
on the data set alone. Also measured: later windows of captures that were learned, the scan in `attacks/`, a generated
SYN flood in windows of 10 and of 100 packets, and the test rows of the data set. Everything is done by the jobs
extract, ingest, features, train and score. It prints tables and writes `outside.json`, `outside.md` and `outside.png`.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
from rich.console import Console

from ids_spark.adapt import gate
from ids_spark.adapt.replay import replay
from ids_spark.config.settings import Config
from ids_spark.models.artifact import Model
from ids_spark.runtime import job
from tests.bench import (
    outside_captures,
    outside_measures,
    outside_nights,
    outside_report,
    outside_shift,
    outside_windows,
)
from tests.bench.measure import ROOT
from tests.bench.outside_measures import HeldOutRows, Run
from tests.bench.outside_nights import Halves
from tests.bench.outside_report import ADAPTED, LABORATORY, Results
from tests.bench.outside_shift import WARD, Shift, of_ward
from tests.bench.outside_site import Site

CONFIG: Final = str(ROOT / "conf" / "site.yaml")
FLOOD_WINDOWS: Final = (10, 100)
MOST_LOST: Final = Config().adapt.most_recall_lost


class Bench:
    """Measures models of a site, the first one without local rows."""

    def __init__(self, site: Site, captures: Path) -> None:
        self._site, self._captures = site, captures
        self.everyday = site.extract(captures / outside_captures.EVERYDAY)
        self._scan = outside_captures.scan_of(site.extract(captures / outside_captures.ATTACKS))
        flood = site.folder / "flood"
        outside_captures.write_flood(flood)
        self._floods = {window: site.extract(flood, window) for window in FLOOD_WINDOWS}
        started = time.monotonic()
        self.laboratory = site.train("laboratory")
        self._seconds = time.monotonic() - started
        replayed = replay(job.session("bench").sparkContext, site.lake, [self.laboratory])
        self._test = outside_measures.test_rows(replayed, 0)

    def without(self, measured: pa.Table) -> Run:
        """Return the figures of the model of the data set alone."""
        return self._figures(self.laboratory, measured, self._seconds, self._test, None)

    def adapted(self, halves: Halves) -> Run:
        """Return the figures of a model that has learned some windows, on those to be measured."""
        started = time.monotonic()
        self._adapted = model = self._site.adapt(halves)
        seconds = time.monotonic() - started
        judged = gate.judge(job.session("bench").sparkContext, self._site.lake, self.laboratory, model, MOST_LOST)
        test = outside_measures.test_rows(judged.replayed, 1)
        return self._figures(model, halves.measured, seconds, test, judged.comparison)

    def shift(self, halves: Halves) -> list[Shift]:
        """Return what the last two models do with windows of devices and of captures; needs a run of `adapted`."""
        site, everyday = self._site, self._captures / outside_captures.EVERYDAY
        unseen = set(outside_nights.captures_of(halves.measured))
        whole = site.extract(everyday, by="capture")
        whole = whole.filter(pa.array([name in unseen for name in whole["capture_file"].to_pylist()]))
        scan = outside_captures.scan_of(site.extract(self._captures / outside_captures.ATTACKS, by="capture"))
        ward = site.folder / "ward"
        site.run("synthesize_captures", f"synthesize_captures.target={ward}", f"synthesize_captures.date={WARD}")
        day = site.extract(ward), site.extract(ward, by="capture")
        found = {"everyday, unseen half": (halves.measured, whole), "scan": (self._scan, scan), **dict(of_ward(day))}
        return outside_shift.measure({LABORATORY: self.laboratory, ADAPTED: self._adapted}, found)

    def _figures(
        self, model: Model, measured: pa.Table, seconds: float, test: HeldOutRows, compared: gate.Comparison | None
    ) -> Run:
        incidents, shown = self._site.false_incidents(model, measured)
        return Run(
            everyday=outside_measures.windows(model, measured),
            scan=outside_measures.windows(model, self._scan),
            floods={window: outside_measures.windows(model, found) for window, found in self._floods.items()},
            test=test,
            false_incidents=incidents,
            false_shown=shown,
            threshold=outside_measures.operating_point(model),
            statement=outside_measures.statement(model),
            lost=None if compared is None else outside_measures.largest_fall(compared),
            accepted=None if compared is None else compared.accepted,
            seconds=seconds,
        )


def measure(bench: Bench, seeds: int, results: Results) -> Iterator[None]:
    """Add the figures of each random half, and of later blocks, to the results; yields after each of them."""
    for seed in range(seeds):
        chosen = outside_nights.halves(bench.everyday, seed)
        results.unseen[LABORATORY].append(bench.without(chosen.measured))
        results.unseen[ADAPTED].append(bench.adapted(chosen))
        results.shift = results.shift or bench.shift(chosen)
        yield
    chosen = outside_nights.blocks(bench.everyday)
    results.later[LABORATORY].append(bench.without(chosen.measured))
    results.later[ADAPTED].append(bench.adapted(chosen))
    yield


def main() -> int:
    """Run the benchmark; 0 whatever its figures are."""
    given = _arguments().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    out = Path(given.out).resolve()
    scratch = out / "outside"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    os.environ["PYTHONPATH"] = str(ROOT)  # of Spark's Python workers
    captures, data = Path(given.captures), Path(given.data)
    synthetic_captures, synthetic_data = not (captures / outside_captures.EVERYDAY).is_dir(), not data.is_dir()
    if synthetic_captures:
        captures = scratch / "captures"
        outside_captures.write_synthetic(captures)
    data_set = None if synthetic_data else data.resolve()
    session, started = job.session("bench outside"), time.monotonic()
    results = Results(
        {
            "captures": "synthetic" if synthetic_captures else "measured",
            "data": "synthetic" if synthetic_data else data.name,
            "config": [Path(name).name for name in given.config],
            "settings": given.set,
        }
    )
    try:
        if given.windows:
            results.windows = outside_windows.measure(scratch, data_set, captures.resolve(), given.config, given.set)
        else:
            site = Site(scratch, given.config, given.set)
            site.ingest(data_set)
            bench = Bench(site, captures.resolve())
            for done, _ in enumerate(measure(bench, given.seeds, results), 1):
                results.facts["seconds"] = round(time.monotonic() - started)
                outside_report.write(out, results)
                console.print(f"outside: {done} of {given.seeds + 1} runs, {results.facts['seconds']} s")
    finally:
        session.stop()
        if not given.keep:
            shutil.rmtree(scratch, ignore_errors=True)
    if given.windows:
        (out / "outside-windows.md").write_text(outside_report.windows_markdown(results))
        outside_report.show_windows(console, results)
        console.print(f"figures: {out / 'outside-windows.md'}")
    else:
        outside_report.show(console, results)
        console.print(f"figures: {out / 'outside.json'}, {out / 'outside.md'}, {out / 'outside.png'}")
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench.outside", description=__doc__)
    parser.add_argument("--captures", required=True, help="folder with everyday/ and attacks/; if absent: synthetic")
    parser.add_argument("--data", required=True, help="the second release of the data set; if absent: synthetic")
    parser.add_argument("--seeds", type=int, default=5, help="random halves of the captures")
    parser.add_argument(
        "--windows", action="store_true", help="instead: models of windows of 10 packets, of 100, and of both"
    )
    parser.add_argument("--config", nargs="+", default=[CONFIG], help="configuration files of features and train")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more settings")
    parser.add_argument("--out", default="runs/bench", help="folder for outside.json, outside.md and outside.png")
    parser.add_argument("--keep", action="store_true", help="keep lake and flow logs in OUT/outside")
    return parser


if __name__ == "__main__":
    sys.exit(main())
