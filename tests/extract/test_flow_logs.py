"""Files of flow logs: by date, in parts, with counts in their footers; ids of flows."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.extract import flow_logs
from ids_spark.extract.counts import PacketCounts, total
from ids_spark.extract.devices import Devices
from ids_spark.extract.flow_logs import COLUMNS, FlowLogWriter, Origin, flow_ids
from ids_spark.extract.footer import of_metadata
from ids_spark.extract.packets import KINDS, VISIBLE
from ids_spark.extract.windows import Windower
from tests.support import random_captures
from tests.support.packet_reference import as_packets, seen

DEVICES = Devices(("10.0.0.0/8",))


def written(tmp_path, packets, **settings):
    """Write the windows of packets; returns the writer and, of each file in order, its rows and footer."""
    origin = Origin(f"{tmp_path}/writing-run", ("a.pcap",), "0" * 16, 3, 10, "device", "measured", "stamp", **settings)
    writer, windower = FlowLogWriter(origin, DEVICES), Windower(10, batch=50)
    for begin in range(0, len(packets), 40):
        some = as_packets(packets[begin : begin + 40], begin)
        writer.count(some)
        for windows in windower.add(some, DEVICES.keys(some)):
            writer.add(windows)
    for windows in windower.close():
        writer.add(windows)
    writer.close(windower.single, windower.single_capture)
    files = {}
    for file in (each for date in sorted(writer.files) for each in writer.files[date]):
        table = pq.read_table(tmp_path / file.staged)
        files[file.path] = table, of_metadata(table.schema.metadata, file.path)
    return writer, files


@pytest.fixture(scope="module")
def packets():
    return [seen(packet) for i in range(4) for packet in random_captures.capture(random.Random(i), 300)]


def test_a_task_with_many_rows_writes_several_files_that_hold_and_count_everything_once(tmp_path, monkeypatch, packets):
    _, at_once = written(tmp_path / "once", packets)
    monkeypatch.setattr(flow_logs, "_MOST_WAITING", 20)
    writer, parts = written(tmp_path / "parts", packets)
    assert len(parts) > len(at_once)

    def rows(files):
        return pa.concat_tables(table for table, _ in files.values()).sort_by("flow_id").to_pydict()

    assert rows(parts) == rows(at_once)
    for files in (parts, at_once):
        for path, (table, footer) in files.items():
            assert table.schema.equals(COLUMNS)
            assert footer.windows == len(table)
            assert footer.piece == 3
            dates = table["event_time"].cast(pa.date32()).unique().to_pylist()
            assert [str(date) for date in dates] in ([], [path[11:21]])
        of_kind = {kind: sum(footer.packets.get(kind, 0) for _, footer in files.values()) for kind in KINDS}
        assert sum(of_kind.values()) == len(packets)
        visible = sum(of_kind[kind] for kind in KINDS[:VISIBLE])
        alone = sum(footer.single for _, footer in files.values())
        assert visible == sum(sum(table["packets"].to_pylist()) for table, _ in files.values()) + alone
    counts = total(writer.counts)
    counts.reconcile("all")
    assert counts.records == len(packets)


def test_rows_of_other_dates_are_counted_and_not_written(tmp_path, packets):
    writer, files = written(tmp_path / "all", packets)
    dates = sorted(writer.counts)
    assert len(dates) > 1
    date = max(dates, key=lambda each: writer.counts[each].windows)
    only, some = written(tmp_path / "some", packets, only=np.datetime64(date).item())
    assert {path for path in files if path[11:21] == date} == set(some)
    assert only.counts == writer.counts


def test_counts_are_compared_with_all_packets():
    counts = PacketCounts(windows=1, in_windows=10, single=1)
    counts.packets.update(ipv4=9, arp=2, ipv6=4)
    counts.reconcile("a.pcap")
    counts.in_windows = 9
    with pytest.raises(Exception, match=r"a\.pcap: 15 packets, but 14 accounted for"):
        counts.reconcile("a.pcap")


def test_ids_of_flows_differ_by_capture_place_and_device(packets):
    some = as_packets(packets)
    windower = Windower(10)
    [windows, *_] = [*windower.add(some, DEVICES.keys(some)), *windower.close()]
    ids = flow_ids(windows, ("a.pcap",)).to_pylist()
    assert len(set(ids)) == len(windows)
    assert ids == flow_ids(windows, ("a.pcap",)).to_pylist()
    assert not set(ids) & set(flow_ids(windows, ("b.pcap",)).to_pylist())
