"""Rows of windows of 10 packets, joined to rows of longer windows, as the extractor would have computed them.

The features of the second release are sums, means, extremes and moments of a window's packets, so those of consecutive
windows give those of the longer one. Differences remain where a row does not tell: for IP fragments and rare protocols
the row's own mode stands for the protocol number, packets out of order can make `Rate` higher, and the time between two
slices of an official capture, each extracted on its own, is unknown and counts as none.

A run is consecutive rows of a file with 10 packets each. A row with fewer packets, the end of a slice, ends its run and
belongs to it, as in a window of the extractor; any other row, and a row in quarantine, ends it without. Of each run,
windows are joined from its first row on; rows that are left become a shorter window, and a single row stays as it is.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa

from ids_spark.base.arrays import Floats, Ints
from ids_spark.dataset.features import FLAGS, PROTOCOLS, RELEASE_39, SOURCE_SPLITS
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.ingest.rows import TypedRows, flows_table
from ids_spark.ingest.sources import RowGroup

SHORT_WINDOW: Final = 10
"""Packets of the windows that are joined."""
_MEANS: Final = ("Header_Length", "Time_To_Live", *(f"{flag}_flag_number" for flag in FLAGS), *PROTOCOLS, "IPv", "LLC")
_SUMS: Final = ("ack_count", "syn_count", "fin_count", "rst_count", "Tot sum", "Number")
_PROTOCOL_NUMBERS: Final[Mapping[str, int]] = {"ARP": 0, "ICMP": 1, "IGMP": 2, "TCP": 6, "UDP": 17}
_ROUNDING: Final = 1e-6  # largest relative distance of a total from a whole number, and 0.01 at most
_LARGEST: Final = 1e12  # of a value that is joined; variances are below 2^32
_NUMBER: Final = RELEASE_39.features.index("Number")
_RATE: Final = RELEASE_39.features.index("Rate")
_PROTOCOL: Final = RELEASE_39.features.index("Protocol Type")
_NOTHING: Final = np.empty((len(RELEASE_39.features), 0)), np.empty(0, np.int64)


def joined(parts: Iterable[TypedRows], row_group: RowGroup, window: int) -> Iterator[TypedRows]:
    """Yield the rows of a file with its windows of 10 packets joined; the result does not depend on the parts.

    A joined row has the number of its first row as `source_row`. Warnings are those of the rows before.

    Args:
        parts: Rows of a whole file in its order, typed.
        row_group: Any of the file; all its rows have one class and split.
        window: Packets of a joined window, a multiple of 10.
    """
    key = str(row_group.split), str(row_group.class19)
    values, numbers = _NOTHING  # of a window that more rows may join
    for part in parts:
        values = _with(values, part.flows)
        numbers = np.concatenate([numbers, part.flows["source_row"].to_numpy()])
        starts, end = _starts(_packets(values), numbers, window, at_end=False)
        flows = _flows(values[:, :end], numbers[starts], starts, row_group)
        yield replace(part, flows=flows, joined=+Counter({key: end - len(starts)}))
        values, numbers = values[:, end:].copy(), numbers[end:]
    starts, end = _starts(_packets(values), numbers, window, at_end=True)
    flows = _flows(values, numbers[starts], starts, row_group)
    yield TypedRows(Counter(), flows, QUARANTINE.empty_table(), joined=+Counter({key: end - len(starts)}))


def _with(values: Floats, flows: pa.Table) -> Floats:
    """Return the features of rows with those of further rows, shape (39, rows), copied once."""
    before = values.shape[1]
    rows = np.empty((len(values), before + len(flows)))
    rows[:, :before] = values
    for own, name in zip(rows, RELEASE_39.features, strict=True):
        own[before:] = flows[name].to_numpy()
    return rows


def _packets(values: Floats) -> Floats:
    """Return the number of packets of each row; NaN for rows with values that no sum can have, infinite among them."""
    limits = np.where(np.arange(len(values)) == _RATE, np.inf, _LARGEST)
    possible = np.ones(values.shape[1], dtype=np.bool_)
    for column, limit in zip(values, limits, strict=True):
        possible &= np.abs(column) <= limit
    possible &= values[_PROTOCOL] == np.rint(values[_PROTOCOL])
    return np.where(possible, values[_NUMBER], np.nan)


def _starts(packets: Floats, numbers: Ints, window: int, at_end: bool) -> tuple[Ints, int]:
    """Return the first row of each window, and where the rows of these windows end; later rows wait for more."""
    if not len(packets):
        return np.empty(0, np.int64), 0
    whole = packets == SHORT_WINDOW
    ends_run = (packets >= 2) & (packets < SHORT_WINDOW) & (packets == np.rint(packets))
    continues = np.r_[False, (np.diff(numbers) == 1) & whole[:-1] & (whole | ends_run)[1:]]
    run_starts = np.flatnonzero(~continues)
    place = np.arange(len(packets)) - run_starts[np.cumsum(~continues) - 1]
    rows = window // SHORT_WINDOW
    starts = np.flatnonzero(place % rows == 0)
    last = int(starts[-1])
    if not at_end and whole[-1] and len(packets) - last < rows:
        return starts[:-1], last
    return starts, len(packets)


def _flows(values: Floats, numbers: Ints, starts: Ints, row_group: RowGroup) -> pa.Table:
    """Return the rows of windows as flows.

    Args:
        values: Features of all rows, shape (39, rows).
        numbers: Number of the first row of each window in the file, shape (windows,).
        starts: First row of each window, shape (windows,).
        row_group: Any of the file.
    """
    found = dict(zip(RELEASE_39.features, values, strict=True))
    if len(starts):
        sizes = np.diff(np.r_[starts, values.shape[1]])
        with np.errstate(all="ignore"):  # of a row that stays as it is, whatever it holds
            longer = _features(found, starts, sizes)
        found = {name: np.where(sizes > 1, longer[name], column[starts]) for name, column in found.items()}
    class_ids = np.full(len(starts), CLASS19.index(str(row_group.class19)), np.int32)
    splits = np.full(len(starts), SOURCE_SPLITS.index(str(row_group.split)), np.int32)
    return flows_table(row_group, RELEASE_39, numbers, found, class_ids, splits)


def _features(columns: Mapping[str, Floats], starts: Ints, sizes: Ints) -> dict[str, Floats]:
    """Return the features of windows of several rows each, every one of shape (windows,)."""
    packets = columns["Number"]
    total = np.add.reduceat(packets, starts)
    found = {name: np.add.reduceat(columns[name], starts) for name in _SUMS}
    found |= {name: np.add.reduceat(_whole(columns[name] * packets), starts) / total for name in _MEANS}
    found["Min"] = np.minimum.reduceat(columns["Min"], starts)
    found["Max"] = np.maximum.reduceat(columns["Max"], starts)
    found["AVG"] = found["Tot size"] = found["Tot sum"] / total
    found["Variance"] = _variance(columns, starts, total)
    found["Std"] = np.sqrt(found["Variance"])
    found["IAT"] = np.add.reduceat(columns["IAT"] * packets, starts) / total
    found["Rate"] = _rate(columns, starts, total)
    found["Protocol Type"] = _mode(columns, starts, sizes)
    return found


def _whole(totals: Floats) -> Floats:
    """Return totals of whole numbers without the rounding of a mean; other totals as they are."""
    nearest = np.rint(totals)
    near = np.abs(totals - nearest) <= np.clip(_ROUNDING * np.abs(nearest), _ROUNDING, 0.01)
    exact: Floats = np.where(near, nearest, totals)
    return exact


def _variance(columns: Mapping[str, Floats], starts: Ints, total: Floats) -> Floats:
    """Return the sample variance of all packets.

    Lengths are whole numbers, so with their sum S and sum of squares Q, Variance · n (n − 1) = n Q − S² is one as well:
    Q is found without error. Of 1,000 packets n Q is below 2^53.
    """
    n, lengths = columns["Number"], _whole(columns["Tot sum"])
    squares = (_whole(columns["Variance"] * n * (n - 1)) + lengths**2) / n
    apart = total * np.add.reduceat(squares, starts) - np.add.reduceat(lengths, starts) ** 2
    variance: Floats = np.maximum(apart, 0.0) / (total * (total - 1))
    return variance


def _rate(columns: Mapping[str, Floats], starts: Ints, total: Floats) -> Floats:
    """Return packets over the time from first to last packet.

    That is the span of the first row, and of each further row its `IAT` · n, which runs from the last packet of the row
    before; a row's own span is a lower limit, reached where packets are out of order.
    """
    n = columns["Number"]
    own = n / columns["Rate"]
    parts = columns["IAT"] * n
    parts[starts] = own[starts]
    span = np.maximum(np.add.reduceat(parts, starts), np.maximum.reduceat(own, starts))
    return np.divide(total, span, out=np.full(len(total), np.inf), where=span > 0)


def _mode(columns: Mapping[str, Floats], starts: Ints, sizes: Ints) -> Floats:
    """Return the most frequent protocol number, of several the smallest."""
    own = np.rint(columns["Protocol Type"])  # rows that are joined have whole ones; of others no mode is used
    numbers = np.unique(np.r_[list(_PROTOCOL_NUMBERS.values()), own])
    packets = {number: _whole(columns[name] * columns["Number"]) for name, number in _PROTOCOL_NUMBERS.items()}
    counts = np.zeros((len(starts), len(numbers)))
    for number, of_protocol in packets.items():
        counts[:, np.searchsorted(numbers, number)] += np.add.reduceat(of_protocol, starts)
    others = np.maximum(columns["Number"] - sum(packets.values()), 0.0)
    np.add.at(counts, (np.repeat(np.arange(len(starts)), sizes), np.searchsorted(numbers, own)), others)
    modes: Floats = numbers[counts.argmax(axis=1)]
    return modes
