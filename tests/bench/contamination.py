"""Benchmark of contamination: attacks in the nights that a site learns, and what the review leaves of them.

    python -m tests.bench.contamination --lake runs/nightly --out OUT

`make contamination` calls it. A synthetic hospital has seven nights with a benign shape of its own
(`synthesize_night.shift`) and attacks of all classes in four of them, or the same attacks in all of them. The nights
become local rows; `adapt.review` says which are left out. With `--train` a model is trained on what is left, and
compared with the champion: false incidents of a later benign night, recall of each class on the test rows at the
operating point. It prints a table and writes `contamination.json`.
"""

import argparse
import datetime as dt
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from ids_spark.adapt import local_rows, review
from ids_spark.adapt.replay import replay
from ids_spark.config.synthetic import ADDRESSES, FLEET, Episode, SynthesizeNightConfig
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.models import artifact
from ids_spark.models.artifact import Model
from ids_spark.runtime import job
from ids_spark.synthetic import night
from tests.bench.outside_site import Site

NIGHTS: Final = 7
SHARES: Final = (0.001, 0.01, 0.05)
SHIFT: Final = 1.0
MODEL: Final = "gru_dnn-19-operational"
_FIRST: Final = dt.date(2026, 3, 1)
_ATTACKED: Final = 4  # nights
_EPISODES: Final = 5  # of an attacked night
_OWN_ADDRESSES: Final = ADDRESSES[512 + 60 : 512 + 250]  # external, without a benign flow
_EVERY_NIGHT: Final = ("Recon-Port_Scan", "ARP_Spoofing", "MQTT-Malformed_Data", "DDoS-SYN", "Recon-VulScan")


def episodes_of(rng: np.random.Generator, flows: float, classes: Sequence[str]) -> tuple[Episode, ...]:
    """Return an attack of each class, on one to four devices, with so many flows in all."""
    shares = rng.dirichlet(np.full(len(classes), 3.0))
    found = []
    for class19, share in zip(classes, shares, strict=True):
        minutes = int(rng.integers(5, 60))
        start = int(rng.integers(0, 24 * 60 - minutes))
        found.append(
            Episode(
                class19=class19,
                start=dt.time(start // 60, start % 60),
                minutes=minutes,
                flows=max(3, round(flows * share)),
                devices=tuple(rng.choice(tuple(FLEET), int(rng.integers(1, 5)), replace=False).tolist()),
                sources=tuple(rng.choice(_OWN_ADDRESSES, int(rng.integers(1, 3)), replace=False).tolist()),
            )
        )
    return tuple(found)


def write_week(
    folder: Path, share: float, flows: int, seed: int, every_night: bool = False
) -> dict[tuple[str, int], str]:
    """Write the nights that are learned; returns the class of each attack flow by source file and row.

    Args:
        folder: Of the nights; an earlier one is removed.
        share: Of attack flows among all flows.
        flows: Benign flows of a night.
        seed: Of the hospital and its attacks.
        every_night: Whether the same attacks are in all nights.
    """
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng([seed, round(1e6 * share), every_night])
    attacked = range(NIGHTS) if every_night else sorted(rng.choice(NIGHTS, _ATTACKED, replace=False).tolist())
    classes = [name for _ in range(_EPISODES) for name in rng.permutation(CLASS19[1:]).tolist()]
    total, truth = share / (1 - share) * flows * NIGHTS, {}
    same = episodes_of(rng, total / NIGHTS, _EVERY_NIGHT) if every_night else ()
    for number in range(NIGHTS):
        own = same
        if number in attacked and not every_night:
            own = episodes_of(rng, total / _ATTACKED, [classes.pop() for _ in range(_EPISODES)])
        truth.update(write_night(folder, number, flows, seed, own if share else ()))
    return truth


def write_night(
    folder: Path, number: int, flows: int, seed: int, episodes: Sequence[Episode]
) -> dict[tuple[str, int], str]:
    """Write one night in this process; returns the class of each attack flow by source file and row."""
    date = _FIRST + dt.timedelta(days=number)
    config = SynthesizeNightConfig(
        target=str(folder), date=date, flows=flows, episodes=0, own_episodes=tuple(episodes), shift=SHIFT,
        feature_schema="release39", files=1,
    )  # fmt: skip
    truth = {}
    for task in night.plan_night(str(folder), config, seed):
        night.write_night_file(task)
        classes = pq.ParquetFile(folder / night.TRUTH / f"event_date={date}" / task.name).read(["class19"])
        for row, name in enumerate(classes["class19"].to_pylist()):
            if name != CLASS19[BENIGN_ID]:
                truth[f"event_date={date}/{task.name}", row] = name
    return truth


class Bench:
    """A scratch copy of a lake with the data set and its champion."""

    def __init__(self, lake: Path, folder: Path, settings: Sequence[str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.site = Site(folder, ("conf/large.yaml",), [*settings, "train.models=[gru_dnn]"])
        for name in ("flows", f"models/{MODEL}"):
            shutil.copytree(lake / name, folder / "lake" / name)
        [uri] = artifact.choose_models(self.site.lake.uri("models"), [MODEL], "latest")
        self.champion: Model = artifact.read_model(uri)

    def review(self, share: float, flows: int, seed: int, every_night: bool) -> dict[str, Any]:
        """Learn a week with so many attack flows, and return what the review left out, by truth."""
        logs = self.site.folder / "nights"
        truth = write_week(logs, share, flows, seed, every_night)
        self.site.run("ingest", f"ingest.local={logs}")
        lake, run_id = self.site.lake, "20260308T000000Z-bench"
        spark = job.session("bench")
        found = review.review(
            spark.sparkContext, lake, lambda table: lake.staged("adapt", run_id, table), self.champion, 60, run_id
        )
        lake.commit("adapt", run_id, [local_rows.TABLE])
        rows = lake.read("flows", ["source_file", "source_row", "left_out"], split="local")
        return _figures(rows, truth) | {"seconds": found.seconds, "by_reason": dict(found.by_reason)}

    def trained(self, flows: int, seed: int) -> dict[str, Any]:
        """Train on what the review left, and compare with the champion."""
        challenger = self.site.train("local")
        logs = self.site.folder / "measured"
        shutil.rmtree(logs, ignore_errors=True)
        write_night(logs, NIGHTS, flows, seed, ())
        paths = sorted((logs / f"event_date={_FIRST + dt.timedelta(days=NIGHTS)}").glob("*.parquet"))
        windows = pa.concat_tables([pq.ParquetFile(path).read() for path in paths])
        spark = job.session("bench")
        compared = replay(spark.sparkContext, self.site.lake, [self.champion, challenger])
        rows = np.maximum(compared.rows(), 1)
        lost = {name: (compared.flagged(0) - compared.flagged(1))[i] / rows[i] for i, name in enumerate(CLASS19) if i}
        worst = max(lost, key=lambda name: lost[name])
        return {
            "false_incidents_champion": self.site.false_incidents(self.champion, windows)[0],
            "false_incidents": self.site.false_incidents(challenger, windows)[0],
            "most_recall_lost": float(lost[worst]),
            "of_class": worst,
        }


def _figures(rows: pa.Table, truth: dict[tuple[str, int], str]) -> dict[str, Any]:
    """Return attack flows that survive, by class, and benign flows that were left out."""
    planted, survive, benign = Counter(truth.values()), Counter[str](), 0
    for file, row, reason in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
        name = truth.get((file, row))
        if name is None:
            benign += reason is not None
        elif reason is None:
            survive[name] += 1
    return {
        "rows": len(rows),
        "planted": planted.total(),
        "survive": survive.total() / planted.total() if planted else None,
        "benign_left_out": benign / (len(rows) - planted.total()),
        "survive_by_class": {name: survive[name] / n for name, n in sorted(planted.items())},
    }


def main() -> int:
    """Measure every share and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flows", type=int, default=60_000, help="benign flows of a night")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--train", action="store_true", help="train a model on what is left")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="settings of features and train")
    given = parser.parse_args()
    bench, results = Bench(given.lake, given.out / "contamination", given.settings), []
    table = Table(title=f"{NIGHTS} nights of {given.flows:,} flows, synthetic")
    names = ["survive", "benign_left_out", "seconds", *(_TRAINED if given.train else ())]
    for name in ("planted", "nights", *names, "most survive"):
        table.add_column(name.replace("_", " "), justify="right")
    cases = [(0.0, False), *((share, False) for share in SHARES), (0.01, True)]
    for share, every_night in cases:
        found = bench.review(share, given.flows, given.seed, every_night)
        found |= bench.trained(given.flows, given.seed) if given.train else {}
        results.append({"share": share, "every_night": every_night, **found})
        most = sorted(found["survive_by_class"].items(), key=lambda item: -item[1])[:3]
        shown = [f"{found[name]:.3g}" if found[name] is not None else "" for name in names]
        where = "every" if every_night else str(_ATTACKED if share else 0)
        table.add_row(f"{share:.1%}", where, *shown, ", ".join(f"{name} {value:.2f}" for name, value in most))
    Console().print(table)
    (given.out / "contamination.json").write_text(json.dumps(results, indent=1))
    shutil.rmtree(given.out / "contamination")
    return 0


_TRAINED: Final = ("false_incidents_champion", "false_incidents", "most_recall_lost")


if __name__ == "__main__":
    sys.exit(main())
