"""What became of the packets of captures on each date; every packet is counted once."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Ints
from ids_spark.base.errors import NotReconciled
from ids_spark.extract.formats import Refused
from ids_spark.extract.packets import KINDS, MARKS, VISIBLE, Packets

_MOST_DATES: Final = 1_000  # each is a file, and a night
_DAY_NS: Final = 86_400 * 10**9
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_IMPOSSIBLE: Final = KINDS.index("impossible_time")

_ONE_NUMBER: Final = ("windows", "in_windows", "single")


@dataclass
class PacketCounts:
    """Counts of packets and windows on one date, or on several.

    Attributes:
        packets: Packets of the date by kind (`packets.KINDS`).
        marks: Packets of the date by mark (`packets.MARKS`); a packet may have several.
        windows: Windows whose first packet is of the date.
        in_windows: Packets in them; a few may be of the next date.
        single: Packets that could be in a window, but were the only one of their device and of their sender.
    """

    packets: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    windows: int = 0
    in_windows: int = 0
    single: int = 0

    @property
    def records(self) -> int:
        """All packets."""
        return self.packets.total()

    @property
    def unseen(self) -> int:
        """Packets of kinds that are never in windows."""
        return sum(self.packets[kind] for kind in KINDS[VISIBLE:])

    def add(self, other: "PacketCounts") -> None:
        """Add the counts of other packets."""
        self.packets.update(other.packets)
        self.marks.update(other.marks)
        for name in _ONE_NUMBER:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def reconcile(self, what: str) -> None:
        """Check that every packet is in a window, single, or of a kind that is in none; over all dates of a capture.

        Args:
            what: Begins the message.

        Raises:
            NotReconciled: a fault of this program.
        """
        accounted = self.in_windows + self.single + self.unseen
        if self.records != accounted:
            raise NotReconciled(
                f"{what}: {self.records} packets, but {accounted} accounted for ({self.in_windows} in windows,"
                f" {self.single} single, {self.unseen} of kinds in no window)"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the counts as plain values; kinds and marks that no packet has are left out."""
        return {
            "packets": {kind: self.packets[kind] for kind in KINDS if self.packets[kind]},
            "marks": {mark: self.marks[mark] for mark in MARKS if self.marks[mark]},
        } | {name: getattr(self, name) for name in _ONE_NUMBER}


def total(counts: Mapping[Any, PacketCounts]) -> PacketCounts:
    """Return the sum of counts."""
    summed = PacketCounts()
    for each in counts.values():
        summed.add(each)
    return summed


class DateCounter:
    """Counts packets by date.

    Args:
        fixed: For each number of a capture, the date to which all its packets belong; None: each to its own.

    Attributes:
        counts: By date.
    """

    def __init__(self, fixed: Sequence[dt.date | None] = (None,)) -> None:
        self.counts: dict[str, PacketCounts] = defaultdict(PacketCounts)
        self._fixed = np.array([-1 if date is None else date.toordinal() - _EPOCH for date in fixed])
        self._last = -1  # day of the last packet
        self._undated = np.zeros(len(KINDS), dtype=np.int64)  # before the first packet with a possible time

    def count(self, packets: Packets, captures: NDArray[np.int32] | None = None) -> None:
        """Count packets by kind and mark.

        A packet without a possible time counts for the date of the packet before it.
        """
        days = self._days_of(packets, captures)
        for day in distinct(days):
            mine = days == day
            kinds = np.bincount(packets.kind[mine], minlength=len(KINDS))
            if day < 0:
                self._undated += kinds
                continue
            counts = self.counts[date_text(day)]
            counts.packets.update({kind: int(n) for kind, n in zip(KINDS, kinds, strict=True) if n})
            marks = packets.marks[mine]
            found = {mark: int(np.count_nonzero(marks & (1 << bit))) for bit, mark in enumerate(MARKS)}
            counts.marks.update({mark: n for mark, n in found.items() if n})

    def days(self, nanos: Ints, captures: NDArray[np.int32] | None = None) -> Ints:
        """Return the date of each time in days since 1970."""
        fixed = self._fixed[0 if captures is None else captures]
        found: Ints = np.where(fixed >= 0, fixed, nanos // _DAY_NS)
        return found

    def close(self, others: Mapping[str, PacketCounts]) -> None:
        """Count packets before the first one with a possible time for the first date, if any, of these and others."""
        if self._undated.any():
            first = min([*self.counts, *others], default=date_text(0))
            counted = zip(KINDS, self._undated.tolist(), strict=True)
            self.counts[first].packets.update({kind: n for kind, n in counted if n})

    def _days_of(self, packets: Packets, captures: NDArray[np.int32] | None) -> Ints:
        days = self.days(packets.nanos, captures)
        possible = (packets.kind != _IMPOSSIBLE) | (self._fixed[0 if captures is None else captures] >= 0)
        if not possible.all():
            last = np.maximum.accumulate(np.where(possible, np.arange(len(days)), -1))
            days = np.where(last >= 0, days[last], self._last)
        if len(days):
            self._last = int(days[-1])
        return days


def distinct(days: Ints) -> list[int]:
    """Return the different values, ascending; fast where there is one."""
    if len(days) and days.min() == days.max():
        return [int(days[0])]
    found: list[int] = np.unique(days).tolist()
    return found


def date_text(day: int) -> str:
    """Return a date, given as days since 1970, as YYYY-MM-DD."""
    return str(dt.date.fromordinal(_EPOCH + day))


def refuse_many_dates(found: Collection[str]) -> None:
    """Raise `Refused` if a capture has more dates than there can be nights."""
    if len(found) > _MOST_DATES:
        raise Refused(
            f"its packets have times on more than {_MOST_DATES:,} dates, {min(found)} to {max(found)}; expected the"
            " times at which they were captured; put it into a folder event_date=YYYY-MM-DD if the date is known"
        )
