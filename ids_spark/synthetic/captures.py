"""Writes the packets of a synthetic ward as captures, one file an hour, with the attacks and the inventory beside them.

As `tcpdump -G 3600` would write them. Some are compressed, one is pcapng.
"""

import dataclasses
import datetime as dt
import gzip
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ids_spark.base.arrays import Ints
from ids_spark.base.errors import InputError
from ids_spark.config.synthetic import SynthesizeCapturesConfig
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake import filesystem
from ids_spark.lake.store import Lake
from ids_spark.synthetic import frames, ward
from ids_spark.synthetic.target import hidden_folder, refuse_other_content, remove_folder

log = logging.getLogger(__name__)

GENERATOR: Final = 1  # increment when the same settings give other packets
INVENTORY: Final = "_inventory.csv"
TRUTH: Final = "_truth"
_MARK: Final = {"synthetic": True, "captures": True, "generator": GENERATOR, "data_origin": "synthetic"}
_HOUR: Final = 3_600_000_000_000  # nanoseconds
_COMPRESSED_EVERY: Final = 4  # hours
_PCAPNG: Final = 13  # hour
_COMMENT: Final = "synthetic: made by a program, no packet was captured"


@dataclass(frozen=True)
class CapturesReport:
    """Facts about the captures written; also in `_truth/event_date=….json`.

    Attributes:
        date: Their date.
        seed: As in `write_captures`.
        attacks: Every attack of the day: name, class, attacker, victims, start and end in UTC.
        packets: Packets by file name.
        data_origin: Always `synthetic`.
    """

    date: str
    seed: int
    attacks: tuple[Mapping[str, Any], ...]
    packets: Mapping[str, int]
    data_origin: str = "synthetic"


def write_captures(config: SynthesizeCapturesConfig, seed: int) -> CapturesReport:
    """Write the captures of one day below `config.target`; an earlier day of that date is replaced, others are kept.

    Args:
        config: Settings; `target` is local or a URI.
        seed: Equal seeds, dates and settings give equal files.

    Raises:
        InputError: when the target holds anything other than synthetic captures, or the seed is negative. Nothing was
            written.
    """
    date = config.date or dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    if seed < 0:
        raise InputError(f"synthesize_captures: found seed {seed}; expected at least 0")
    refuse_other_content(config.target, "captures", "synthesize_captures")
    root, night = Lake(config.target).root, f"event_date={date}"
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    packets = ward.packets_of(date, seed, config.attacks)
    files = _files(packets, int(midnight.timestamp()) * 1_000_000_000)
    report = CapturesReport(
        date=str(date),
        seed=seed,
        attacks=tuple(_as_truth(attack, midnight) for attack in ward.ATTACKS) if config.attacks else (),
        packets={name: len(of_hour) for name, of_hour in files.items()},
    )
    filesystem.write_json(f"{root}/{SYNTHETIC_MARK}", _MARK)  # first, so that no packet is mistaken for a captured one
    fs, path = filesystem.resolve(root)
    hidden = hidden_folder(root, date)
    try:
        filesystem.make_folder(fs, f"{path}/{hidden}")
        for name, of_hour in files.items():
            with fs.open_output_stream(f"{path}/{hidden}/{name}", compression=None) as stream:  # it would detect .gz
                stream.write(_content(name, of_hour))
        filesystem.write_bytes(f"{root}/{INVENTORY}", ward.inventory().encode())
        filesystem.write_json(f"{root}/{TRUTH}/{night}.json", dataclasses.asdict(report))
        remove_folder(fs, f"{path}/{night}")
        filesystem.move(fs, f"{path}/{hidden}", f"{path}/{night}")
    finally:
        remove_folder(fs, f"{path}/{hidden}")
    log.info("captures written data_origin=synthetic target=%s date=%s packets=%d", root, date, len(packets))
    return report


def _files(packets: frames.Packets, midnight: int) -> dict[str, frames.Packets]:
    """Return the packets of each file by its name."""
    bounds: Ints = np.searchsorted(packets.nanos, midnight + _HOUR * np.arange(25))
    found = {}
    for hour in range(24):
        ending = "pcapng" if hour == _PCAPNG else "pcap" if hour % _COMPRESSED_EVERY else "pcap.gz"
        found[f"ward-{hour:02d}.{ending}"] = packets.take(slice(int(bounds[hour]), int(bounds[hour + 1])))
    return found


def _content(name: str, packets: frames.Packets) -> bytes:
    if name.endswith(".pcapng"):
        return frames.pcapng(packets, _COMMENT).tobytes()
    content = frames.pcap(packets).tobytes()
    return gzip.compress(content, compresslevel=1, mtime=0) if name.endswith(".gz") else content


def _as_truth(attack: ward.Attack, midnight: dt.datetime) -> dict[str, Any]:
    start, end = (midnight + dt.timedelta(seconds=moment) for moment in (attack.start, attack.end))
    return {
        "name": attack.name,
        "class19": attack.class19,
        "attacker": attack.attacker,
        "victims": attack.victims,
        "start": start.isoformat(),
        "end": end.isoformat(),
    }
