"""Kinds of synthetic nights with truth, each a hospital whose nights follow each other.

A hospital has a seed, a number of benign flows a night and the behaviour of its false alarms, which stays the same from
night to night: the same devices are noisy every night.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np

from ids_spark.base.arrays import Ints
from ids_spark.config.synthetic import ADDRESSES, FIRST_DEVICE, Episode, SynthesizeNightConfig
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.score.night_incidents import Levels
from tests.bench import night_method
from tests.bench.night_flows import DEVICES, SOURCES, SPOOFED, Flows, Pool, Scores, joined

FLOWS: Final = 200_000
_DAY_MINUTES: Final = 24 * 60
_OWN_ADDRESSES: Final = ADDRESSES[512 + 60 : 512 + 250]
"""External addresses without a benign flow."""
_RECON: Final = tuple(name for name in CLASS19 if name.startswith("Recon"))
_BURYING_CLASS: Final = "MQTT-DDoS-Connect_Flood"
Attacks = Callable[[np.random.Generator], tuple[Episode, ...]]


@dataclass(frozen=True)
class Kind:
    """A kind of night.

    Attributes:
        name: Name in tables.
        attacks: Draws the attacks of one night.
        flows: Benign flows.
        shift: Added to the attack logit of every benign flow.
        noisy: Whether two devices have half of all false alarms; `bursts`: each in the same hour of every night, of at
            most a third of its flows in that hour.
        spoofed: Single flows of a critical class, each with a source of its own, against the whole fleet.
    """

    name: str
    attacks: Attacks
    flows: int = FLOWS
    shift: float = 0.0
    noisy: Literal["", "all day", "bursts"] = ""
    spoofed: int = 0

    @property
    def world(self) -> tuple[int, float, str]:
        """What benign nights of the hospital depend on: equal for kinds that can share earlier nights."""
        return self.flows, self.shift, self.noisy


def built_in(count: int) -> Attacks:
    """Return the built-in attacks of synthetic nights."""
    return lambda rng: SynthesizeNightConfig(flows=FLOWS, episodes=count).attacks


def no_attacks(rng: np.random.Generator) -> tuple[Episode, ...]:
    """Return no attack."""
    return ()


def small_episodes(rng: np.random.Generator) -> tuple[Episode, ...]:
    """Return 12 attacks of 3 to 60 flows: any class, one to six devices, one or two sources without benign flows."""
    return tuple(_random_episode(rng, int(np.rint(np.exp(rng.uniform(np.log(3), np.log(60)))))) for _ in range(12))


def shared_addresses(rng: np.random.Generator) -> tuple[Episode, ...]:
    """Return the eight built-in attacks, each from the address of a device with benign traffic of its own."""
    devices = rng.choice(len(DEVICES), 8, replace=False)
    return tuple(
        attack.model_copy(update={"sources": (ADDRESSES[FIRST_DEVICE + device],)})
        for attack, device in zip(built_in(8)(rng), devices, strict=True)
    )


def slow_scans(rng: np.random.Generator) -> tuple[Episode, ...]:
    """Return three scans of 60 to 120 flows over six hours, each from one source against one to six devices."""
    return tuple(_random_episode(rng, int(rng.integers(60, 121)), _RECON, minutes=360) for _ in range(3))


def _random_episode(
    rng: np.random.Generator, flows: int, classes: tuple[str, ...] = CLASS19[1:], minutes: int = 0
) -> Episode:
    minutes = minutes or int(rng.integers(5, 41))
    start = int(rng.integers(0, _DAY_MINUTES - minutes))
    sources = rng.choice(_OWN_ADDRESSES, 1 if minutes > 60 else int(rng.integers(1, 3)), replace=False)
    return Episode(
        class19=str(rng.choice(classes)),
        start=dt.time(start // 60, start % 60),
        minutes=minutes,
        flows=flows,
        devices=tuple(rng.choice(DEVICES, int(rng.integers(1, 7)), replace=False).tolist()),
        sources=tuple(sources.tolist()),
    )


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("default", built_in(4)),
        Kind("eight attacks", built_in(8)),
        Kind("small episodes", small_episodes),
        Kind("slow scans", slow_scans),
        Kind("shared addresses", shared_addresses),
        Kind("benign", no_attacks),
        Kind("benign, shifted", no_attacks, shift=1.5),
        Kind("benign, noisy devices", no_attacks, noisy="all day"),
        Kind("eight attacks, shifted", built_in(8), shift=1.5),
        Kind("eight attacks, noisy devices", built_in(8), noisy="all day"),
        Kind("benign, 9 flows", no_attacks, flows=9),
        Kind("benign, 425 flows", no_attacks, flows=425),
        Kind("benign, 5,000 flows", no_attacks, flows=5_000),
        Kind("default, 60 spoofed", built_in(4), spoofed=60),
        Kind("default, 5,000 spoofed", built_in(4), spoofed=5_000),
    )
}


@dataclass(frozen=True)
class Hospital:
    """A hospital and its nights.

    Attributes:
        pool: Model and benign flows.
        kind: Of its nights.
        seed: Of the hospital.
        levels: Of the model: benign flows at or above one of its first levels are false alarms.
    """

    pool: Pool
    kind: Kind
    seed: int
    levels: Levels

    @cached_property
    def noisy_devices(self) -> Ints:
        """Two devices, as indices of `DEVICES`."""
        return np.random.default_rng([self.seed, 1]).choice(len(DEVICES), 2, replace=False)

    def night(self, number: int, attacks: Attacks | None = None) -> Flows:
        """Return one night: benign flows, then each attack; spoofed flows last, so that they change no other number.

        Args:
            number: Of the night; 0 is the measured one, its attacks are those of the kind unless others are given.
            attacks: Draws other attacks.
        """
        rng = np.random.default_rng([self.seed, 2, number])
        benign = self.pool.benign_night(self.kind.flows, rng)
        if self.kind.noisy:
            benign = self._with_noisy_devices(benign, rng)
        benign = benign.with_columns(logits=benign.logits + self.kind.shift)
        episodes = (attacks or self.kind.attacks)(rng)
        parts = [benign, self.pool.attacks(episodes, int(rng.integers(1 << 31)))]
        if self.kind.spoofed and attacks is None:
            parts.append(self._spoofed(len(episodes) + 1, rng))
        return joined(parts)

    def _with_noisy_devices(self, benign: Flows, rng: np.random.Generator) -> Flows:
        """Exchange the scores of half of the false alarms with those of flows of the noisy devices."""
        own = np.isin(benign.devices, self.noisy_devices)
        alarms = night_method.levels_reached(benign, self.levels) > 0
        moved = rng.permutation(np.flatnonzero(alarms & ~own))[: int(alarms.sum()) // 2]
        places = rng.permutation(np.flatnonzero(own & ~alarms))
        if self.kind.noisy == "bursts":
            places = places[benign.seconds[places] // 3600 == 2 + benign.devices[places] % 20]
            places = places[: len(places) // 3]
        places = places[: len(moved)]
        moved = moved[: len(places)]
        order = np.arange(len(benign))
        order[moved], order[places] = places, moved
        return benign.with_columns(**{name: getattr(benign, name)[order] for name in Scores._fields})

    def _spoofed(self, episode: int, rng: np.random.Generator) -> Flows:
        count = self.kind.spoofed
        flood = Episode(class19=_BURYING_CLASS, start=dt.time(0), minutes=_DAY_MINUTES, flows=count)
        flows = self.pool.attacks([flood], int(rng.integers(1 << 31)))
        sources = len(SOURCES) - len(SPOOFED) + np.arange(count)
        return flows.with_columns(sources=sources, episodes=np.full(count, episode, dtype=np.int64))
