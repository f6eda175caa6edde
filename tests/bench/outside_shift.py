"""Windows of the packets of each device against windows of a whole capture, as the rows of the data set are.

A model of rows of one kind scores windows of both kinds of the same packets: everyday captures, a scan, and a day of
the synthetic ward with a scan and a flood.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ids_spark.base.arrays import Mask
from ids_spark.models.artifact import Model
from ids_spark.synthetic import ward
from tests.bench import outside_measures
from tests.bench.outside_measures import Windows

WAYS: Final = ("device", "capture")
WARD: Final = dt.date(2026, 3, 3)
_MARGIN_S: Final = 120.0
Extract = Callable[[Path, int, str], pa.Table]
"""Folder of captures, packets of a window, and device or capture, to windows."""


@dataclass(frozen=True)
class Shift:
    """What a model does with windows of the same packets.

    Attributes:
        packets: Which.
        model: Which model.
        of_device: Windows of each device.
        of_capture: Windows of the whole capture.
    """

    packets: str
    model: str
    of_device: Windows
    of_capture: Windows

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def measure(models: dict[str, Model], windows: dict[str, tuple[pa.Table, pa.Table]]) -> list[Shift]:
    """Score windows of devices and of captures with each model; of kinds that have both."""
    return [
        Shift(packets, name, *(outside_measures.windows(model, found) for found in both))
        for packets, both in windows.items()
        if all(len(found) for found in both)
        for name, model in models.items()
    ]


def of_ward(both: tuple[pa.Table, pa.Table]) -> Iterator[tuple[str, tuple[pa.Table, pa.Table]]]:
    """Yield the windows of a day of the ward: without attacks, and during its scan and its flood.

    Args:
        both: Windows of devices, and of captures.
    """
    quiet = [np.ones(len(found), dtype=np.bool_) for found in both]
    for attack in ward.ATTACKS:
        during = [_between(found, attack.start, attack.end, 0.0) for found in both]
        quiet = [
            own & ~_between(found, attack.start, attack.end, _MARGIN_S) for own, found in zip(quiet, both, strict=True)
        ]
        if attack.name in ("scan", "flood"):
            yield f"ward: {attack.name}", (_of(both[0], during[0] & _to(both[0], attack)), _of(both[1], during[1]))
    yield "ward: without attacks", (_of(both[0], quiet[0]), _of(both[1], quiet[1]))


def _of(found: pa.Table, which: Mask) -> pa.Table:
    return found.filter(pa.array(which))


def _between(found: pa.Table, start: float, end: float, margin: float) -> Mask:
    midnight = dt.datetime.combine(WARD, dt.time(), dt.UTC).timestamp()
    times = found["event_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy() / 1e6 - midnight
    inside: Mask = (times >= start - margin) & (times <= end + margin)
    return inside


def _to(found: pa.Table, attack: ward.Attack) -> Mask:
    """Return windows whose device is one of the victims of an attack, or that its attacker sent."""
    addresses = {ward.text_of(host.address) for host in ward.DEVICES if host.name in attack.victims}
    devices = [str(name).rpartition("/")[2] for name in found["device_id"].to_pylist()]
    sources = found["src_ip"].to_pylist()
    pairs = zip(devices, sources, strict=True)
    return np.array([device in addresses or source == attack.attacker for device, source in pairs])
