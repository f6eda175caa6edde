"""Windows that continue across files (`extract.join_files`): packets are shuffled by device and sorted by time.

Only columns of headers are shuffled. The packets of one partition are in memory at once, so those of one device must
fit into a task; devices are spread over partitions of about equal size.
"""

import dataclasses
import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.errors import NotReconciled
from ids_spark.base.spark_tasks import balanced, run_shuffled
from ids_spark.base.text import shown
from ids_spark.extract import extraction
from ids_spark.extract.capture_files import Capture, Piece, other_name, pieces_of
from ids_spark.extract.claims import Claims
from ids_spark.extract.counts import DateCounter, PacketCounts, refuse_many_dates, total
from ids_spark.extract.extraction import CaptureDone, PieceDone, Plan
from ids_spark.extract.flow_logs import FlowLogWriter, Origin
from ids_spark.extract.formats import Refused
from ids_spark.extract.manifests import JOINED, DateLogs, ExtractedLogs, LogFile, Manifest
from ids_spark.extract.packets import KINDS, VISIBLE, Packets, read_packets
from ids_spark.extract.windows import Windower
from ids_spark.ingest.row_hash import buckets, row_keys

if TYPE_CHECKING:
    from pyspark import SparkContext

log = logging.getLogger(__name__)

_LOAD_OF_PARTITION: Final = 64_000_000  # bytes of captures: at most 850,000 packets, which take 400 MB
_SENT_AT_ONCE: Final = 262_144  # packets
_COLUMNS: Final = tuple(column.name for column in dataclasses.fields(Packets))
_Columns = dict[str, NDArray[Any]]
_Record = tuple[NDArray[np.int32], _Columns] | PieceDone


@dataclass
class Joined:
    """What became of captures together.

    Attributes:
        captures: Each of them; their counts are of packets, not of windows.
        counts: By date, also of dates that are not written.
        kept: Notes on dates whose earlier logs were kept.
    """

    captures: list[CaptureDone]
    counts: dict[str, PacketCounts]
    kept: list[str] = field(default_factory=list)


@dataclass
class _PartitionDone:
    """What became of the packets of a partition, and the pieces that were counted in it."""

    counts: dict[str, PacketCounts]
    files: dict[str, list[LogFile]]
    pieces: list[PieceDone]


def extract_joined(
    spark_context: "SparkContext",
    captures: Sequence[Capture],
    stamp: str,
    plan: Plan,
    logs: ExtractedLogs,
    name_of: Callable[[str], str] = str,
    copies: Collection[str] = (),
) -> Joined:
    """Extract all captures together and replace the logs of their dates.

    A date keeps its logs if one of the captures they are from is no longer there or cannot be read.

    Args:
        spark_context: Its executors run the tasks.
        captures: In the order of their names.
        stamp: Of all of them.
        plan: What tasks have in common.
        logs: The flow logs.
        name_of: Returns by which name a note calls a capture.
        copies: Names of files that are there, but are not read, as they are copies of captures.

    Raises:
        NotReconciled: packets read and packets accounted for differ: a fault of this program.
    """
    refused: dict[str, str] = {}
    whole: set[str] = set()
    while True:  # again without captures that cannot be read to their end, and whole ones whose pieces do not join
        log.info("joining captures=%d bytes=%d", len(captures), sum(capture.size for capture in captures))
        readable = [capture for capture in captures if capture.key not in refused]
        partitions = _shuffled(spark_context, readable, whole, stamp, plan)
        pieces: dict[str, list[PieceDone]] = defaultdict(list)
        for piece in sorted((each for part in partitions for each in part.pieces), key=lambda each: each.piece.number):
            pieces[piece.piece.capture.key].append(piece)
        new = {key: reason for key, found in pieces.items() if (reason := extraction.refusal(found)) is not None}
        apart = {key for key, found in pieces.items() if not extraction.is_joined(found)}
        if not new and not apart:
            break
        refused |= new
        whole |= apart
    done = [
        CaptureDone(each, *extraction.merged(pieces[each.key]), growing=extraction.is_growing(pieces[each.key]))
        for each in readable
    ]
    done += [CaptureDone(each, refused=refused[each.key]) for each in captures if each.key in refused]
    counts: dict[str, PacketCounts] = defaultdict(PacketCounts)
    files: dict[str, list[LogFile]] = defaultdict(list)
    for partition in partitions:
        for date, found in partition.counts.items():
            counts[date].add(found)
        for date, written in partition.files.items():
            files[date] += written
    everything = total(counts)
    everything.reconcile("all captures")
    if everything.records != sum(piece.ending.records for each in pieces.values() for piece in each if piece.ending):
        raise NotReconciled(f"{everything.records} packets counted, but the files have other records")
    kept = _replace(done, counts, files, stamp, plan, logs, name_of, copies)
    return Joined(sorted(done, key=lambda each: each.capture.name), dict(counts), kept)


def _shuffled(
    spark_context: "SparkContext", captures: Sequence[Capture], whole: set[str], stamp: str, plan: Plan
) -> list[_PartitionDone]:
    piece_bytes = plan.config.piece_mb * 1_000_000
    pieces = [
        piece
        for capture in captures
        for piece in pieces_of(capture, capture.size + 1 if capture.key in whole else piece_bytes, stamp)
    ]
    numbers = {capture.key: number for number, capture in enumerate(captures)}
    cores = spark_context.defaultParallelism
    load = sum(piece.load for piece in pieces)
    count = max(cores, load // _LOAD_OF_PARTITION)
    origin = Origin(
        plan.writing,
        tuple(capture.name for capture in captures),
        JOINED,
        0,
        plan.config.window,
        plan.config.by,
        plan.data_origin,
        stamp,
        tuple(capture.date for capture in captures),
        plan.config.date,
    )

    def scatter(hand: list[Piece]) -> Iterator[tuple[int, _Record]]:
        for piece in hand:
            yield from _scatter(piece, numbers[piece.capture.key], count, plan)

    def gather(partition: int, found: Iterable[_Record]) -> _PartitionDone:
        return _gather(found, dataclasses.replace(origin, piece=partition), plan)

    return run_shuffled(
        spark_context, balanced(pieces, max(cores, count), lambda piece: piece.load), count, scatter, gather
    )


def _scatter(piece: Piece, number: int, count: int, plan: Plan) -> Iterator[tuple[int, _Record]]:
    """Yield the visible packets of a piece, each to the partition of its device, then what was read."""
    counter = DateCounter((piece.capture.date,))
    waiting: list[tuple[Packets, NDArray[np.uint64]]] = []
    claims = Claims()
    try:
        with extraction.opened(piece) as opened:
            for chunk in extraction.chunks(opened):
                packets = claims.marked(read_packets(chunk))
                counter.count(packets)
                refuse_many_dates(counter.counts)
                waiting.append((packets, plan.devices.keys(packets)))
                if sum(len(each) for each, _ in waiting) >= _SENT_AT_ONCE:
                    yield from _dealt(waiting, number, count)
                    waiting.clear()
            ending = opened.ending
        yield from _dealt(waiting, number, count)
        counter.close({})
        done = PieceDone(piece, dict(counter.counts), ending=ending)
    except Refused as refused:
        done = PieceDone(piece, refused=str(refused))
    yield number % count, done


def _dealt(
    waiting: Sequence[tuple[Packets, NDArray[np.uint64]]], number: int, count: int
) -> Iterator[tuple[int, _Record]]:
    if not waiting:
        return
    visible = np.concatenate([packets.visible for packets, _ in waiting])
    columns: _Columns = {
        name: np.concatenate([getattr(packets, name) for packets, _ in waiting])[visible] for name in _COLUMNS
    }
    columns["device"] = np.concatenate([devices for _, devices in waiting])[visible]
    partition = buckets(row_keys([columns["device"].astype(np.float64)]), count)
    order = np.argsort(partition, kind="stable")
    ends = np.cumsum(np.bincount(partition, minlength=count))
    for target, (begin, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        if end > begin:
            mine = order[begin:end]
            captures = np.full(len(mine), number, dtype=np.int32)
            yield target, (captures, {name: column[mine] for name, column in columns.items()})


def _gather(found: Iterable[_Record], origin: Origin, plan: Plan) -> _PartitionDone:
    """Write the windows of a partition's devices, packets sorted by time, then by place in the captures."""
    writer = FlowLogWriter(origin, plan.devices)
    windower = Windower(origin.window)
    pieces: list[PieceDone] = []
    parts: list[tuple[NDArray[np.int32], _Columns]] = []
    for record in found:
        if isinstance(record, PieceDone):
            pieces.append(record)
            writer.count_others(_unseen(record.counts))
        else:
            parts.append(record)
    if parts:
        captures = np.concatenate([each for each, _ in parts])
        columns = {name: np.concatenate([each.pop(name) for _, each in parts]) for name in (*_COLUMNS, "device")}
        order = np.lexsort((columns["offset"], captures, columns["nanos"]))
        for begin in range(0, len(order), _SENT_AT_ONCE):
            mine = order[begin : begin + _SENT_AT_ONCE]
            packets = Packets(**{name: columns[name][mine] for name in _COLUMNS})
            writer.count(packets, captures[mine])
            for windows in windower.add(packets, columns["device"][mine], captures[mine]):
                writer.add(windows)
    for windows in windower.close():
        writer.add(windows)
    writer.close(windower.single, windower.single_capture)
    return _PartitionDone(dict(writer.counts), dict(writer.files), pieces)


def _unseen(counts: Mapping[str, PacketCounts]) -> dict[str, PacketCounts]:
    """Return the counts of packets that are never in windows, which no partition receives."""
    found = {}
    for date, each in counts.items():
        kinds = {kind: each.packets[kind] for kind in KINDS[VISIBLE:] if each.packets[kind]}
        if kinds:
            found[date] = PacketCounts()
            found[date].packets.update(kinds)
    return found


def _replace(
    done: Sequence[CaptureDone],
    counts: Mapping[str, PacketCounts],
    files: Mapping[str, list[LogFile]],
    stamp: str,
    plan: Plan,
    logs: ExtractedLogs,
    name_of: Callable[[str], str],
    copies: Collection[str],
) -> list[str]:
    """Make the dates part of the logs; return notes on those that were not replaced."""
    only = plan.config.date
    old = logs.manifest(JOINED)
    before = old.dates if old is not None else {}
    here = {*copies, *(each.capture.name for each in done if each.refused is None)}
    here |= set(map(other_name, here))
    lost = {date: sorted(set(logs_of.captures) - here) for date, logs_of in before.items()}
    written = {date for date in {*counts, *(date for date in before if not lost[date])} if _is_one_of(date, only)}
    kept = sorted(date for date in written if lost.get(date))
    new = {
        date: DateLogs(
            stamp,
            [file.path for file in files.get(date, [])],
            counts[date],
            sorted(each.capture.name for each in done if date in each.counts),
        )
        for date in written - set(kept)
        if date in counts
    }
    remaining = {date: each for date, each in before.items() if date not in written or date in kept}
    replaced = [path for date in before if date not in remaining for path in before[date].files]
    manifest = Manifest("", "" if any(each.growing for each in done) else stamp, sorted(counts), remaining | new)
    logs.replace(JOINED, manifest, [file for date in new for file in files.get(date, [])], replaced)
    return [
        f"{date}: its flow logs were kept, because they are also from captures that cannot be read now:"
        f" {shown([name_of(name) for name in lost[date]])}"
        for date in kept
    ]


def _is_one_of(date: str, only: dt.date | None) -> bool:
    return only is None or date == str(only)
