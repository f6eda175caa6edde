"""The report of an extraction: what became of every packet, and which files have something to say."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ids_spark.base.logs import printable
from ids_spark.base.report import Report
from ids_spark.base.text import shown
from ids_spark.extract.capture_files import Listing
from ids_spark.extract.counts import PacketCounts, total
from ids_spark.extract.extraction import CaptureDone
from ids_spark.extract.flow_logs import SCHEMA
from ids_spark.extract.packets import KINDS, MARKS, VISIBLE

_NAMES_SHOWN: Final = 5
_MEANINGS: Final[Mapping[str, str]] = {
    "ipv6": "IPv6, which no row of the data set has",
    "mpls": "with MPLS labels",
    "pppoe": "PPP over Ethernet",
    "llc": "IEEE 802.3 frames, such as spanning tree",
    "other_ethertype": "of another Ethernet type",
    "truncated": "with less than their link-layer and IP header in the capture",
    "malformed": "with a header that contradicts itself",
    "impossible_time": "with a time before 1970 or after 2200",
    "other_link_type": "of an interface whose link type cannot be read",
    "vlan": "with VLAN tags, which were taken off",
    "fragment": "fragments other than the first, without a transport header",
    "tunnel": "carry packets in a tunnel, which the features do not describe",
    "short_capture": "captured in part; features are of their headers and original length",
    "no_transport": "TCP or UDP without its header in the capture",
    "large": "longer than 1,514 bytes: segmentation offload, or jumbo frames",
    "arp_conflict": "of a sender that claims the address of another one by ARP: spoofing, or a failover",
}


def report_of(
    done: Sequence[CaptureDone],
    listing: Listing,
    data_origin: str,
    only: dt.date | None,
    joined: Mapping[str, PacketCounts] | None = None,
    name_of: Callable[[str], str] = str,
) -> Report:
    """Return the report of captures that were extracted; packets are its rows.

    Args:
        done: Captures that were read.
        listing: All files of the folder.
        data_origin: `measured` or `synthetic`.
        only: Date whose rows were written; None: every date.
        joined: Counts by date if windows continue across files, so that captures have no windows of their own.
        name_of: Returns by which name the report calls a file.
    """
    done = [replace(each, capture=replace(each.capture, name=name_of(each.capture.name))) for each in done]
    listing = listing.renamed(name_of)
    report = Report(feature_schema=SCHEMA.name, data_origin=data_origin)
    sound = [each for each in done if each.refused is None]
    by_date = by_date_of(sound) if joined is None else joined
    written = {date: counts for date, counts in by_date.items() if only is None or date == str(only)}
    add_counts(report, total(by_date), written)
    report.inputs += [f"{each.capture.name}: {_line(total(each.counts), joined is None)}" for each in sound]
    report.inputs += [f"{refusal.name}: not read: {refusal.reason}" for refusal in listing.refused]
    report.inputs += [f"{each.capture.name}: not read: {each.refused}" for each in done if each.refused is not None]
    report.notes += _notes({each.capture.name: total(each.counts) for each in sound}, joined is None)
    _degrade(report, done, listing)
    return report


def by_date_of(done: Iterable[CaptureDone]) -> dict[str, PacketCounts]:
    """Return the counts of captures by date."""
    by_date: dict[str, PacketCounts] = defaultdict(PacketCounts)
    for each in done:
        for date, counts in each.counts.items():
            by_date[date].add(counts)
    return dict(by_date)


def add_counts(report: Report, every: PacketCounts, written: Mapping[str, PacketCounts]) -> None:
    """Add the packets of a run to its report: all of them, and by date those whose rows were written."""
    out = total(written)
    report.rows_in, report.rows_out = every.records, out.in_windows
    report.rows_left_out = every.records - out.in_windows
    parts = {"windows": out.windows, "packets in windows": out.in_windows, "packets alone, in no window": out.single}
    parts |= {f"packets in no window: {kind}": out.packets[kind] for kind in KINDS[VISIBLE:] if out.packets[kind]}
    parts |= {f"packets marked: {mark}": out.marks[mark] for mark in MARKS if out.marks[mark]}
    other_dates = every.records - out.in_windows - out.single - out.unseen
    if other_dates:
        parts["packets of other dates"] = other_dates
    report.counts |= {(what, "", None): n for what, n in parts.items()}
    for date, counts in sorted(written.items()):
        report.counts[f"windows of {date}", "", None] = counts.windows
        report.counts[f"packets of {date}", "", None] = counts.records


def _line(counts: PacketCounts, windows: bool) -> str:
    kinds = [f"{kind} {n:,}" for kind, n in counts.as_json()["packets"].items()]
    line = f"{counts.records:,} packets ({', '.join(kinds)})"
    return f"{line}, {counts.windows:,} windows, {counts.single:,} packets alone" if windows else line


def _notes(counts: Mapping[str, PacketCounts], windows: bool) -> list[str]:
    """Return a sentence for each kind that is in no window, and each mark, with the names of files."""
    notes = []
    everything = total(counts)
    share = everything.unseen / everything.records if everything.records else 0.0
    if everything.unseen:
        notes.append(f"{everything.unseen:,} of {everything.records:,} packets ({share:.1%}) cannot be seen by a model")
    for name in (*KINDS[VISIBLE:], *MARKS):
        found = {file: each.packets[name] + each.marks[name] for file, each in counts.items()}
        files = sorted((file for file, n in found.items() if n), key=lambda file: (-found[file], file))
        if files:
            notes.append(f"{sum(found.values()):,} packet(s) {_MEANINGS[name]} ({name}): {shown(files, _NAMES_SHOWN)}")
    alone = sorted((file for file, each in counts.items() if each.single), key=lambda file: -counts[file].single)
    if windows and alone:
        n = sum(counts[file].single for file in alone)
        names = shown(alone, _NAMES_SHOWN)
        notes.append(
            f"{n:,} packet(s), each the only one of its device and sender in a capture, are in no window: {names}"
        )
    if windows and (without := sorted(file for file, each in counts.items() if not each.windows)):
        notes.append(f"without any window: {shown(without, _NAMES_SHOWN)}")
    return notes


def _degrade(report: Report, done: Sequence[CaptureDone], listing: Listing) -> None:
    for note in listing.notes():
        report.notes.append(note)
    refused: dict[str, list[str]] = defaultdict(list)
    for each in done:
        if each.refused is not None:
            refused[each.refused].append(each.capture.name)
    report.notes += [f"not read: {shown(names, _NAMES_SHOWN)}: {reason}" for reason, names in refused.items()]
    lost = [*(refusal.name for refusal in listing.refused), *(name for names in refused.values() for name in names)]
    if lost:
        report.degrade(f"{len(lost):,} file(s) cannot be read as captures: {shown(sorted(lost), _NAMES_SHOWN)}")
    growing = [each.capture.name for each in done if each.growing]
    if growing:
        report.notes.append(
            f"{shown(growing, _NAMES_SHOWN)}: modified in the last ten minutes and without an end, as if still being"
            " written; read up to there, and again by the next run"
        )
    broken = [each for each in done if each.fault and not each.growing]
    for each in broken[:_NAMES_SHOWN]:
        report.notes.append(f"{printable(each.capture.name)}: {each.fault}")
    if broken:
        names = [each.capture.name for each in broken]
        report.degrade(f"{len(broken):,} capture(s) could be read in part only: {shown(names, _NAMES_SHOWN)}")
