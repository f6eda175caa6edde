"""Nights of a synthetic hospital with a benign shape of its own: a week that it learns, and the nights after it.

The week may hold attacks: of all classes in four of its nights, or the same attacks in all of them. Of the nights
after it, some are benign, two have an attack of each of nine classes, and one has the attacks that are in every night
of a week of that kind.
"""

import datetime as dt
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ids_spark.config.synthetic import ADDRESSES, FLEET, Episode, SynthesizeNightConfig
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.synthetic import night

NIGHTS: Final = 7
ATTACKED: Final = 4
"""Nights of a week with attacks."""
BENIGN_NIGHTS: Final = 5
"""Benign nights after the week."""
SHIFT: Final = 1.0
_FIRST: Final = dt.date(2026, 3, 1)
_EPISODES: Final = 5  # of an attacked night of the week
_LATER_SHARE: Final = 0.01  # attack flows of an attacked night after the week
_OWN_ADDRESSES: Final = ADDRESSES[512 + 60 : 512 + 250]  # external, without a benign flow
_EVERY_NIGHT: Final = ("Recon-Port_Scan", "ARP_Spoofing", "MQTT-Malformed_Data", "DDoS-SYN", "Recon-VulScan")
_ENOUGH: Final = 3  # flows of an attack in one cell


@dataclass(frozen=True)
class Hospital:
    """A hospital.

    Attributes:
        flows: Benign flows of a night.
        seed: Of its devices and attacks.
        feature_schema: Release of the data set.
    """

    flows: int
    seed: int
    feature_schema: str = "release39"

    def write_week(self, folder: Path, share: float, every_night: bool = False) -> dict[tuple[str, int], str]:
        """Write the nights that are learned; returns the class of each attack flow by source file and row.

        Args:
            folder: Of the nights; an earlier one is removed.
            share: Of attack flows among all flows.
            every_night: Whether the same attacks are in all nights.
        """
        shutil.rmtree(folder, ignore_errors=True)
        rng = np.random.default_rng([self.seed, round(1e6 * share), every_night])
        attacked = range(NIGHTS) if every_night else sorted(rng.choice(NIGHTS, ATTACKED, replace=False).tolist())
        classes = [name for _ in range(_EPISODES) for name in rng.permutation(CLASS19[1:]).tolist()]
        total, truth = share / (1 - share) * self.flows * NIGHTS, {}
        for number in range(NIGHTS):
            own = self.recurring(share) if every_night else ()
            if number in attacked and not every_night:
                own = episodes_of(rng, total / ATTACKED, [classes.pop() for _ in range(_EPISODES)])
            truth.update(self.write_night(folder, number, own if share else ()))
        return truth

    def recurring(self, share: float) -> tuple[Episode, ...]:
        """Return the attacks of a week that has the same ones in every night."""
        rng = np.random.default_rng([self.seed, round(1e6 * share)])
        return episodes_of(rng, share / (1 - share) * self.flows, _EVERY_NIGHT)

    def write_later(self, folder: Path) -> "Later":
        """Write the nights after the week; an earlier folder is removed."""
        shutil.rmtree(folder, ignore_errors=True)
        rng = np.random.default_rng([self.seed, 1])
        classes = rng.permutation(CLASS19[1:]).tolist()
        flows = _LATER_SHARE * self.flows
        attacks = [episodes_of(rng, flows, classes[i::2]) for i in range(2)] + [self.recurring(_LATER_SHARE)]
        nights: list[tuple[Episode, ...]] = [*[()] * BENIGN_NIGHTS, *attacks]
        for number, own in enumerate(nights, start=NIGHTS):
            self.write_night(folder, number, own)
        return Later(folder, tuple(_date(NIGHTS + i) for i in range(len(nights))))

    def write_night(self, folder: Path, number: int, episodes: Sequence[Episode]) -> dict[tuple[str, int], str]:
        """Write one night in this process; returns the class of each attack flow by source file and row."""
        settings: dict[str, Any] = {"feature_schema": self.feature_schema, "own_episodes": tuple(episodes)}
        config = SynthesizeNightConfig(
            target=str(folder), date=_date(number), flows=self.flows, episodes=0, shift=SHIFT, files=1, **settings
        )
        truth = {}
        for task in night.plan_night(str(folder), config, self.seed):
            night.write_night_file(task)
            classes = _truth_of(folder, _date(number), task.name)["class19"].to_pylist()
            for row, name in enumerate(classes):
                if name != CLASS19[BENIGN_ID]:
                    truth[f"event_date={_date(number)}/{task.name}", row] = name
        return truth


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


@dataclass(frozen=True)
class Later:
    """The nights after the week.

    Attributes:
        folder: Of their flow logs.
        dates: Benign nights, two nights with attacks, the night with the attacks of every night.
    """

    folder: Path
    dates: tuple[dt.date, ...]

    @property
    def benign(self) -> tuple[dt.date, ...]:
        """Nights without an attack."""
        return self.dates[:BENIGN_NIGHTS]

    @property
    def attacked(self) -> tuple[dt.date, ...]:
        """Nights with attacks of all classes."""
        return self.dates[BENIGN_NIGHTS:-1]

    @property
    def recurring(self) -> dt.date:
        """The night with the attacks that are in every night of such a week."""
        return self.dates[-1]

    def logs(self, date: dt.date) -> pa.Table:
        """Return the flows of a night."""
        return pa.concat_tables(pq.ParquetFile(path).read() for path in self._paths(date))

    def truth(self, date: dt.date) -> "Truth":
        """Return the attacks of a night."""
        cells: dict[tuple[str, str, int], Counter[str]] = defaultdict(Counter)
        flows: Counter[str] = Counter()
        for path in self._paths(date):
            table = pq.ParquetFile(path).read(["device_id", "src_ip", "event_time"])
            classes = _truth_of(self.folder, date, path.name)["class19"].to_pylist()
            attacks = [row for row, name in enumerate(classes) if name != CLASS19[BENIGN_ID]]
            for row, each in zip(attacks, table.take(pa.array(attacks, pa.int64())).to_pylist(), strict=True):
                flows[classes[row]] += 1
                for kind in ("device_id", "src_ip"):
                    cells[kind, each[kind], each["event_time"].hour][classes[row]] += 1
        return Truth(dict(flows), dict(cells))

    def _paths(self, date: dt.date) -> list[Path]:
        return sorted((self.folder / f"event_date={date}").glob("*.parquet"))


@dataclass(frozen=True)
class Truth:
    """The attacks of a night, one of each class.

    Attributes:
        flows: By class.
        cells: Attack flows by class, of a kind of entity, an entity and an hour.
    """

    flows: dict[str, int]
    cells: dict[tuple[str, str, int], Counter[str]]

    def of(self, alerts: Sequence[dict[str, Any]]) -> tuple[bool, set[str]]:
        """Return whether an incident is of an attack, and which attacks it found.

        It is if attack flows in the cells of its alerts explain at least half of the flagged flows; it found those with
        at least three flows, or half of them, in one of its cells.

        Args:
            alerts: Of the incident, rows of `tables.ALERTS`.
        """
        flagged = attacks = 0
        found: set[str] = set()
        for alert in alerts:
            own = self.cells.get((alert["entity_kind"], alert["entity"], alert["window_start"].hour), Counter())
            flagged += alert["flagged"][alert["level"]]
            attacks += min(alert["flagged"][alert["level"]], own.total())
            found |= {name for name, n in own.items() if n >= _ENOUGH or 2 * n >= self.flows[name]}
        is_attack = 2 * attacks >= flagged and attacks > 0
        return is_attack, found if is_attack else set()


def _date(number: int) -> dt.date:
    return _FIRST + dt.timedelta(days=number)


def _truth_of(folder: Path, date: dt.date, name: str) -> pa.Table:
    return pq.ParquetFile(folder / night.TRUTH / f"event_date={date}" / name).read(["class19"])
