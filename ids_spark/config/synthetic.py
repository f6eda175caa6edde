"""Settings of a synthetic night of flow logs, its invented hours, devices, addresses and attacks; of a day of captures.

Their values are plausible, but not measured in a hospital. Addresses are those reserved for documentation, which no
host on the internet has (RFC 5737).
"""

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ids_spark.config.score import Count, NightDate, Section
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19

RHYTHM: Final = (38, 35, 33, 32, 33, 38, 50, 72, 90, 98, 100, 99, 92, 93, 97, 95, 88, 80, 72, 66, 60, 54, 48, 42)
"""Benign traffic of each hour in UTC, relative: more by day (ward rounds, imaging), never zero (monitors, pumps)."""
_KINDS: Final = {
    "infusion-pump": (10, 1),
    "patient-monitor": (12, 3),
    "ventilator": (4, 2),
    "pulse-oximeter": (5, 1),
    "ecg-monitor": (3, 2),
    "glucose-meter": (2, 1),
    "mqtt-broker": (2, 12),
    "imaging-gateway": (1, 8),
    "nurse-call": (1, 4),
}
FLEET: Final[Mapping[str, int]] = {
    f"{kind}-{i:02d}": traffic for kind, (devices, traffic) in _KINDS.items() for i in range(1, devices + 1)
}
"""Every device, with its benign traffic relative to an infusion pump's."""
_NETWORKS: Final = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
ADDRESSES: Final = tuple(network.replace("0/24", str(host)) for network in _NETWORKS for host in range(256))
"""Every address that a night may contain: 256 each for devices, other hosts of the hospital, and external hosts."""
FIRST_DEVICE: Final = 10
"""Index of the first device's address; the others follow in the fleet's order."""
OTHER_SOURCES: Final[Mapping[tuple[int, int], float]] = {(256 + 10, 256 + 60): 0.12, (512 + 10, 512 + 20): 0.03}
"""Share of a device's benign flows by range of indices in `ADDRESSES`: from a workstation, and from a vendor."""
_MINUTES: Final = 24 * 60
_MAX_ROWS: Final = 1 << 27  # the row number is coded in 27 bits of IAT, see `synthetic.sampler.number`
_MIN_FLOWS: Final = 20  # of a built-in attack


def _clock(value: Any) -> Any:
    """Convert a number to a time of day: YAML parses 12:10 without quotes as the number 12 · 60 + 10."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MINUTES:
        return dt.time(value // 60, value % 60)
    return value


def _attack(class19: str) -> str:
    if class19 not in CLASS19 or class19 == CLASS19[BENIGN_ID]:
        raise ValueError(f"{class19!r} is no attack class; expected one of {', '.join(CLASS19[1:])}")
    return class19


def _device(name: str) -> str:
    if name not in FLEET:
        raise ValueError(f"device {name!r} is not in the synthetic fleet; expected one of {', '.join(FLEET)}")
    return name


def _address(address: str) -> str:
    if address not in ADDRESSES:
        raise ValueError(
            f"{address!r} is not in {', '.join(_NETWORKS)}; a synthetic log must not contain real addresses"
        )
    return address


class Episode(Section):
    """One attack: flows of one class, spread evenly over a time range of the night.

    Attributes:
        class19: Class of its flows.
        start: Time of day in UTC, to the second.
        minutes: Duration; the attack must end before midnight.
        flows: Number of flows.
        devices: Devices under attack, one for each flow; default: the whole fleet.
        sources: Source addresses of the attack, one for each flow.
    """

    class19: Annotated[str, AfterValidator(_attack)]
    start: Annotated[dt.time, BeforeValidator(_clock)]
    minutes: Annotated[int, Field(ge=1, le=_MINUTES)]
    flows: Count
    devices: tuple[Annotated[str, AfterValidator(_device)], ...] = ()
    sources: Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], Field(min_length=1)] = ("203.0.113.66",)

    @property
    def begins(self) -> float:
        """Seconds after midnight."""
        return self.start.hour * 3600.0 + self.start.minute * 60.0 + self.start.second

    @property
    def ends(self) -> float:
        """Seconds after midnight."""
        return self.begins + 60.0 * self.minutes

    @model_validator(mode="after")
    def _within_the_date(self) -> "Episode":
        if self.start.tzinfo is not None or self.start.microsecond:
            raise ValueError(f"start {self.start}: expected a time of day in UTC, such as 02:10, without a time zone")
        if self.ends > 60.0 * _MINUTES:
            raise ValueError(
                f"{self.minutes} minutes from {self.start:%H:%M} end after midnight; expected an end before midnight"
            )
        return self


def _built_in(class19: str, start: str, minutes: int, devices: str, sources: str) -> Episode:
    clock = dt.time.fromisoformat(start)
    where = {"devices": tuple(devices.split()), "sources": tuple(sources.split())}
    return Episode(class19=class19, start=clock, minutes=minutes, flows=1, **where)


_OUTSIDE: Final = "203.0.113.66 203.0.113.67 203.0.113.68 203.0.113.69"
_PUMPS: Final = " ".join(f"infusion-pump-{i:02d}" for i in range(1, 7))
_HOSPITAL: Final = ("198.51.100.23", "198.51.100.41")  # two compromised workstations
_BUILT_IN: Final[Mapping[Episode, float]] = {
    _built_in("MQTT-DDoS-Publish_Flood", "02:10", 15, "mqtt-broker-01", _OUTSIDE): 0.006,
    _built_in("Recon-Port_Scan", "03:30", 25, _PUMPS, _HOSPITAL[0]): 0.0015,
    _built_in("ARP_Spoofing", "04:40", 30, "patient-monitor-04 patient-monitor-05", "192.0.2.240"): 0.0005,
    _built_in("Recon-VulScan", "22:15", 40, "infusion-pump-03 ventilator-01 imaging-gateway-01", _HOSPITAL[0]): 0.0003,
    _built_in("MQTT-Malformed_Data", "13:05", 10, "mqtt-broker-02", _HOSPITAL[1]): 0.0004,
    _built_in("DDoS-SYN", "18:45", 5, "imaging-gateway-01", _OUTSIDE): 0.004,
    _built_in("Recon-OS_Scan", "05:20", 20, "ventilator-02 ventilator-03", _HOSPITAL[1]): 0.0003,
    _built_in("DoS-UDP", "01:05", 5, "nurse-call-01", "203.0.113.120"): 0.003,
}
"""Built-in attacks, with their number of flows relative to the benign flows."""


class SynthesizeNightConfig(Section):
    """`jobs/synthesize_night.py`: one night of synthetic flow logs, in the layout that collectors of a hospital write.

    Attributes:
        target: Folder of nights; must not exist, or hold synthetic nights. The night of the same date is replaced.
        date: Date of the night; default: yesterday in UTC.
        flows: Number of benign flows; attack flows are added.
        episodes: Number of built-in attacks; 0: benign flows only.
        own_episodes: Attacks to use instead of the built-in ones.
        feature_schema: Release of CICIoMT2024 to imitate.
        capture_day_iat: As `synthesize.capture_day_iat`.
        files: Number of parquet files; each holds one interval of the night.
        shift: How far the benign flows of each device differ from those of the data set, as those of a hospital do; 0:
            not at all; at 1, a model of the data set calls about 15 % of them attacks. Nights of one seed are of one
            hospital.
    """

    target: str = "nights"
    date: dt.date | None = None
    flows: Count = 200_000
    episodes: Annotated[int, Field(ge=0, le=len(_BUILT_IN))] = 4
    own_episodes: tuple[Episode, ...] = ()
    feature_schema: Literal["original45", "release39"] = "original45"
    capture_day_iat: bool = True
    files: Count = 8
    shift: Annotated[float, Field(ge=0, le=2)] = 0.0

    @property
    def attacks(self) -> tuple[Episode, ...]:
        """Attacks of the night; built-in attacks have flows in proportion to the benign flows."""
        chosen = list(_BUILT_IN.items())[: self.episodes]
        scaled = (e.model_copy(update={"flows": max(_MIN_FLOWS, round(share * self.flows))}) for e, share in chosen)
        return self.own_episodes or tuple(scaled)

    @property
    def flows_per_class(self) -> dict[str, int]:
        """Flows of each class, benign first."""
        count = Counter({CLASS19[BENIGN_ID]: self.flows})
        for attack in self.attacks:
            count[attack.class19] += attack.flows
        return dict(count)

    @model_validator(mode="after")
    def _can_be_written(self) -> "SynthesizeNightConfig":
        rows = sum(self.flows_per_class.values())
        if not self.files <= rows < _MAX_ROWS:
            raise ValueError(
                f"{rows:,} rows in {self.files:,} files; expected at least one row for each file, and fewer than"
                f" {_MAX_ROWS:,} rows"
            )
        return self


class SynthesizeCapturesConfig(Section):
    """`jobs/synthesize_captures.py`: one day of packet captures of a small synthetic ward.

    Attributes:
        target: Folder of captures; must not exist, or hold synthetic captures. The day of the same date is replaced.
        date: Date of the captures; default: yesterday in UTC.
        attacks: Whether a SYN flood, a port scan and ARP spoofing are part of them; else benign traffic only.
    """

    target: str = "captures"
    date: NightDate | None = None
    attacks: bool = True
