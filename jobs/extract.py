"""Packet captures to flow logs: windows of packets of each device, with the features of the second release.

    spark-submit --py-files dist/ids_spark.zip jobs/extract.py --set extract.captures=FOLDER --set extract.target=LOGS

Reads: every pcap and pcapng file below `extract.captures`, also gzip, with or without folders `event_date=YYYY-MM-DD`.
Every other file is named, with the reason why it is not read.
Writes: below `extract.target` flow logs `event_date=…/` for `score.flow_logs`, and `_extract/`, which states what was
extracted from each capture. A capture that has not changed is not read again. Of packets only headers are read.
"""

import logging
import sys
from collections.abc import Callable, Sequence

from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.base.report import Report
from ids_spark.base.text import shown
from ids_spark.extract import changes, extraction, joining, summary
from ids_spark.extract.capture_files import Listing, find_captures
from ids_spark.extract.devices import Devices
from ids_spark.extract.extraction import CaptureDone, Plan
from ids_spark.extract.inventory import read_inventory
from ids_spark.extract.manifests import ExtractedLogs
from ids_spark.lake.filesystem import absolute
from ids_spark.runtime import job
from ids_spark.score.identifiers import identifiers_of

log = logging.getLogger(__name__)
_NAMES_SHOWN = 5


def run(context: job.Context) -> Report:
    """Extract the captures that are new or have changed."""
    config = context.config.extract
    if config.captures is None:
        raise InputError(
            "extract.captures is not set; expected a folder of captures, for example --set extract.captures=pcaps"
        )
    captures, target = absolute(config.captures), absolute(config.target)
    changes.refuse_target(captures, target)
    identifiers = identifiers_of(context.config.score)
    name_of = identifiers.file
    listing = find_captures(captures, name_of)
    origin = changes.data_origin_of(captures, target)
    by_mac = config.device == "mac"
    inventory = None if config.inventory is None else read_inventory(absolute(config.inventory))
    names = {} if inventory is None else inventory.names(by_mac)
    logs = ExtractedLogs(target, context.run_id)
    changes.refuse_other_joining(logs, config.join_files)
    plan = Plan(config, Devices(config.networks, by_mac, names), logs.writing, origin)
    log.info("found captures=%d refused=%d data_origin=%s", len(listing.captures), len(listing.refused), origin)
    with logs.opened():
        if origin == "synthetic":
            changes.mark_synthetic(target)
        report = (_joined if config.join_files else _each)(context, listing, plan, logs, name_of)
    report.notes += [] if inventory is None else inventory.notes(identifiers.column)
    return report


def _each(
    context: job.Context, listing: Listing, plan: Plan, logs: ExtractedLogs, name_of: Callable[[str], str]
) -> Report:
    """Extract each capture that has changed."""
    found = changes.changes(listing.captures, plan.config, plan.devices.names, plan.data_origin, logs, name_of)
    log.info("to extract captures=%d unchanged=%d target=%s", len(found.changed), len(found.unchanged), logs.root)
    done = []
    if found.changed:
        done = extraction.extract_captures(context.spark.sparkContext, found.changed, plan, logs)
    if not found.unchanged:
        _refuse_all(done, name_of)
    report = summary.report_of(done, listing, plan.data_origin, plan.config.date, name_of=name_of)
    if found.unchanged:
        report.notes.append(f"{len(found.unchanged):,} capture(s) have not changed since they were extracted")
    if broken := [f"{name_of(each.capture)}: {each.fault}" for each in found.unchanged if each.fault]:
        report.notes.append(f"{len(broken):,} of them cannot be read to their end: {shown(broken, _NAMES_SHOWN)}")
    dates = {date for each in done for date in each.seen} | {date for each in found.unchanged for date in each.seen}
    if plan.config.date is not None and str(plan.config.date) not in dates:
        report.notes.append(f"no capture has a packet of {plan.config.date}")
    if vanished := changes.without_repacked(found.vanished, listing.captures, logs):
        report.notes.append(
            f"{len(vanished):,} capture(s) extracted before are no longer there, their flow logs stay:"
            f" {shown([name_of(name) for name in vanished], _NAMES_SHOWN)}"
        )
    return report


def _joined(
    context: job.Context, listing: Listing, plan: Plan, logs: ExtractedLogs, name_of: Callable[[str], str]
) -> Report:
    """Extract all captures together if one of them has changed."""
    config = plan.config
    stamp = changes.joined_stamp(listing.captures, config, plan.devices.names, plan.data_origin)
    if changes.joined_is_current(stamp, config, logs):
        report = summary.report_of([], listing, plan.data_origin, config.date, {}, name_of)
        report.notes.append("no capture has changed since they were extracted")
        return report
    done = joining.extract_joined(
        context.spark.sparkContext, listing.captures, stamp, plan, logs, name_of, listing.copies
    )
    _refuse_all(done.captures, name_of)
    report = summary.report_of(done.captures, listing, plan.data_origin, config.date, done.counts, name_of)
    for note in done.kept:
        report.degrade(note)
    return report


def _refuse_all(done: Sequence[CaptureDone], name_of: Callable[[str], str]) -> None:
    if done and all(each.refused is not None for each in done):
        reasons = (f"{printable(name_of(each.capture.name))}: {each.refused}" for each in done[:_NAMES_SHOWN])
        raise InputError(f"no file can be read as a capture: {'; '.join(reasons)}")


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__, needs_spark=True))
