"""Packet captures to flow logs: pieces of captures are dealt to Spark tasks, which write the logs themselves.

Nothing is shuffled, and only counts reach the driver. A capture becomes part of the logs as soon as its last piece is
done (`manifests`), so a run that was killed has lost the captures in work only.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ids_spark.base.errors import NotReconciled
from ids_spark.base.logs import printable
from ids_spark.base.spark_tasks import balanced, run_each
from ids_spark.base.text import one_line
from ids_spark.config.extract import ExtractConfig
from ids_spark.extract import records
from ids_spark.extract.capture_files import Capture, Piece, may_grow, pieces_of
from ids_spark.extract.claims import Claims
from ids_spark.extract.counts import PacketCounts, refuse_many_dates, total
from ids_spark.extract.devices import Devices
from ids_spark.extract.flow_logs import FlowLogWriter, Origin
from ids_spark.extract.formats import Refused
from ids_spark.extract.manifests import DateLogs, ExtractedLogs, LogFile, Manifest
from ids_spark.extract.packets import read_packets
from ids_spark.extract.record_columns import Records
from ids_spark.extract.windows import Windower

if TYPE_CHECKING:
    from pyspark import SparkContext

log = logging.getLogger(__name__)

_AT_ONCE: Final = 16
_LOAD_OF_TASK: Final = 64_000_000
_TASKS_AT_ONCE: Final = 4  # of each core, until captures that are done become part of the logs


@dataclass(frozen=True)
class Plan:
    """What the tasks of a run have in common.

    Attributes:
        config: Settings.
        devices: Of the settings.
        writing: URI of the folder for files that are not yet part of the logs.
        data_origin: `measured` or `synthetic`.
    """

    config: ExtractConfig
    devices: Devices
    writing: str
    data_origin: str


@dataclass
class PieceDone:
    """What became of a piece.

    Attributes:
        piece: The piece.
        counts: By date.
        files: By date.
        ending: How the reading ended.
        refused: Why the file cannot be read at all; else None.
    """

    piece: Piece
    counts: dict[str, PacketCounts] = field(default_factory=dict)
    files: dict[str, list[LogFile]] = field(default_factory=dict)
    ending: records.Ending | None = None
    refused: str | None = None


@dataclass
class CaptureDone:
    """What became of a capture.

    Attributes:
        capture: The file.
        counts: By date, also of dates that are not written.
        fault: Where and why it cannot be read further; empty for a sound one.
        refused: Why it cannot be read at all; else None. Logs of an earlier run stay.
        growing: Whether it only ends too early and was modified in the last minutes, as a capture that is still being
            written. The next run reads it again.
    """

    capture: Capture
    counts: dict[str, PacketCounts] = field(default_factory=dict)
    fault: str = ""
    refused: str | None = None
    growing: bool = False

    @property
    def seen(self) -> list[str]:
        """Every date that it has packets of."""
        return sorted(self.counts)


def extract_captures(
    spark_context: "SparkContext", captures: Sequence[tuple[Capture, str]], plan: Plan, logs: ExtractedLogs
) -> list[CaptureDone]:
    """Extract captures, each given with its stamp, and make each part of the logs as soon as it is done.

    Raises:
        NotReconciled: packets read and packets accounted for differ: a fault of this program.
    """
    stamps = {capture.key: stamp for capture, stamp in captures}
    done: list[CaptureDone] = []
    piece_bytes = plan.config.piece_mb * 1_000_000
    pieces = [piece for capture, stamp in captures for piece in pieces_of(capture, piece_bytes, stamp)]
    again: list[Piece] = []
    packets, started = 0, time.monotonic()
    for finished in _in_turns(spark_context, pieces, plan):
        joined = [pieces for pieces in finished if is_joined(pieces)]
        broken = (pieces[0].piece.capture for pieces in finished if not is_joined(pieces))
        again += [Piece(capture, 0, 0, capture.size, stamps[capture.key]) for capture in broken]
        done += _stored(joined, plan, logs)
        packets = sum(total(each.counts).records for each in done)
        seconds = time.monotonic() - started
        log.info("extracted captures=%d/%d packets=%d seconds=%.1f", len(done), len(captures), packets, seconds)
    for finished in _in_turns(spark_context, again, plan):
        done += _stored(finished, plan, logs)
    return sorted(done, key=lambda each: each.capture.name)


def _in_turns(spark_context: "SparkContext", pieces: Sequence[Piece], plan: Plan) -> Iterator[list[list[PieceDone]]]:
    """Run the tasks, some at a time; yield the pieces of each capture of which no piece is left."""
    cores = spark_context.defaultParallelism
    tasks = max(cores, sum(piece.load for piece in pieces) // _LOAD_OF_TASK)
    hands = balanced(pieces, tasks, lambda piece: piece.load) if pieces else []
    left = Counter(piece.capture.key for piece in pieces)
    waiting: dict[str, list[PieceDone]] = defaultdict(list)
    for first in range(0, len(hands), _TASKS_AT_ONCE * cores):
        turn = hands[first : first + _TASKS_AT_ONCE * cores]
        for results in run_each(spark_context, turn, lambda hand: [extract(each, plan) for each in hand]):
            for result in results:
                waiting[result.piece.capture.key].append(result)
        complete = [key for key, found in waiting.items() if len(found) == left[key]]
        yield [sorted(waiting.pop(key), key=lambda each: each.piece.number) for key in complete]


def extract(piece: Piece, plan: Plan) -> PieceDone:
    """Write the flow logs of a piece to the folder of the plan; memory does not depend on its size."""
    config, capture = plan.config, piece.capture
    origin = Origin(
        plan.writing,
        (capture.name,),
        capture.key,
        piece.number,
        config.window,
        config.by,
        plan.data_origin,
        piece.stamp,
        (capture.date,),
        config.date,
    )
    writer = FlowLogWriter(origin, plan.devices)
    windower, claims = Windower(config.window, by_device=config.by == "device"), Claims()
    try:
        with opened(piece) as capture_file:
            for chunk in chunks(capture_file):
                packets = claims.marked(read_packets(chunk))
                writer.count(packets)
                refuse_many_dates(writer.dates)
                for windows in windower.add(packets, plan.devices.keys(packets)):
                    writer.add(windows)
            ending = capture_file.ending
        for windows in windower.close():
            writer.add(windows)
        writer.close(windower.single)
    except Refused as refused:
        return PieceDone(piece, refused=str(refused))
    return PieceDone(piece, dict(writer.counts), dict(writer.files), ending)


def opened(piece: Piece) -> records.Capture:
    """Open the capture of a piece.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return records.read(piece.capture.uri, piece.begin, piece.end)
    except OSError as error:
        raise Refused(_unreadable(error)) from error


def chunks(capture_file: records.Capture) -> Iterator[Records]:
    """Yield the chunks of a capture; an error of reading, unlike one of writing logs, concerns this file alone."""
    remaining = iter(capture_file)
    while True:
        try:
            chunk = next(remaining)
        except StopIteration:
            return
        except OSError as error:
            raise Refused(_unreadable(error)) from error
        yield chunk


def _unreadable(error: OSError) -> str:
    return f"it cannot be read ({one_line(error)}); fetch it again"


def is_joined(pieces: Sequence[PieceDone]) -> bool:
    """Return whether the pieces of a capture hold each of its records once, or it is refused."""
    endings = [piece.ending for piece in pieces if piece.ending is not None]
    return len(endings) < len(pieces) or records.contiguous(endings)


def _stored(finished: Sequence[Sequence[PieceDone]], plan: Plan, logs: ExtractedLogs) -> list[CaptureDone]:
    """Make captures part of the logs."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda pieces: _store(pieces, plan, logs), finished))


def _store(pieces: Sequence[PieceDone], plan: Plan, logs: ExtractedLogs) -> CaptureDone:
    capture, only = pieces[0].piece.capture, plan.config.date
    if (reason := refusal(pieces)) is not None:
        return CaptureDone(capture, refused=reason)
    counts, fault = merged(pieces)
    files: dict[str, list[LogFile]] = defaultdict(list)
    for piece in pieces:
        for date, written in piece.files.items():
            files[date] += written
    whole = total(counts)
    whole.reconcile(printable(capture.name))
    if whole.records != sum(piece.ending.records for piece in pieces if piece.ending):
        raise NotReconciled(
            f"{printable(capture.name)}: {whole.records} packets counted, but its file has other records"
        )
    stamp = pieces[0].piece.stamp
    new = {
        date: DateLogs(stamp, [file.path for file in files[date]], found)
        for date, found in counts.items()
        if only is None or date == str(only)
    }
    old = logs.manifest(capture.key)
    kept = {} if old is None or only is None else {date: each for date, each in old.dates.items() if date != str(only)}
    replaced = [path for date, each in (old.dates if old else {}).items() if date not in kept for path in each.files]
    growing = is_growing(pieces)
    manifest = Manifest(capture.name, "" if growing else stamp, sorted(counts), kept | new, fault, capture.folder)
    logs.replace(capture.key, manifest, [file for date in new for file in files[date]], replaced)
    return CaptureDone(capture, counts, fault, growing=growing)


def refusal(pieces: Sequence[PieceDone]) -> str | None:
    """Return why a capture cannot be read; None if it can."""
    return next((piece.refused for piece in pieces if piece.refused is not None), None)


def merged(pieces: Sequence[PieceDone]) -> tuple[dict[str, PacketCounts], str]:
    """Return the counts of a capture by date, and its fault as in `CaptureDone`."""
    counts: dict[str, PacketCounts] = defaultdict(PacketCounts)
    for piece in pieces:
        for date, found in piece.counts.items():
            counts[date].add(found)
    ending = next((piece.ending for piece in pieces if piece.ending and piece.ending.reason), None)
    if ending is None:
        return dict(counts), ""
    return dict(counts), f"{ending.reason} at byte {ending.reached:,}; {ending.left:,} byte(s) from there are not read"


def is_growing(pieces: Sequence[PieceDone]) -> bool:
    """Return whether a capture ends as one that is still being written; see `CaptureDone`."""
    ending = pieces[-1].ending
    return ending is not None and ending.cut and may_grow(pieces[-1].piece.capture.modified)
