"""The windows of `jobs/extract.py` by a loop over the packets with dpkt, in one process.

    python -m tests.bench.baseline_dpkt CAPTURE TARGET

Devices are the addresses in `extract_work.NETWORK`; the formulas are those of `ids_spark.extract.formulas`, computed
packet by packet and window by window. Writes `windows.parquet`, and `stated.json` with rates without the start of the
program.
"""

import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import dpkt
import pyarrow as pa
import pyarrow.parquet as pq

from ids_spark.dataset.features import RELEASE_39
from tests.bench.extract_work import NETWORK, WINDOW

_INSIDE = NETWORK.network_address.packed[:2]
_FLAGS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x40, 0x80)  # FIN, SYN, RST, PSH, ACK, ECE, CWR
_PORTS = (80, 443, 23, 25, 22, 21)
Packet = tuple[float, ...]


def main(capture: str, target: str) -> None:
    """Write the windows of a capture."""
    started, cpu, count = time.monotonic(), time.process_time(), 0
    waiting: dict[bytes, list[Packet]] = defaultdict(list)
    last: dict[bytes, float] = {}
    rows: list[tuple[str, float, list[float]]] = []
    with open(capture, "rb", buffering=1 << 20) as stream:
        for seconds, frame in dpkt.pcap.Reader(stream):
            count += 1
            found = _packet(seconds, frame)
            if found is None:
                continue
            device, packet = found
            gap = seconds - last.get(device, seconds)
            last[device] = seconds
            packets = waiting[device]
            packets.append((seconds, gap, *packet))
            if len(packets) == WINDOW + 2:  # the last packet of a device never stays alone
                rows.append(_row(device, packets[:WINDOW]))
                del packets[:WINDOW]
    rows += [_row(device, packets) for device, packets in waiting.items() if len(packets) > 1]
    columns = dict(zip(RELEASE_39.features, zip(*(values for _, _, values in rows), strict=True), strict=True))
    names = {"device_id": [device for device, _, _ in rows], "seconds": [seconds for _, seconds, _ in rows]}
    pq.write_table(pa.table({**columns, **names}), Path(target, "windows.parquet"))
    rates = {
        "packets_per_s": count / (time.monotonic() - started),
        "packets_per_cpu_s": count / (time.process_time() - cpu),
    }
    Path(target, "stated.json").write_text(json.dumps(rates))


def _packet(seconds: float, frame: bytes) -> tuple[bytes, Packet] | None:
    """Return the device of a packet and what its window needs; None for packets that are in no window."""
    ethernet = dpkt.ethernet.Ethernet(frame)
    inner = ethernet.data
    protocol = ttl = header = flags = 0
    ports: tuple[int, ...] = ()
    is_tcp = is_udp = dns = dhcp = False
    is_arp = isinstance(inner, dpkt.arp.ARP)
    if is_arp:
        source, target = inner.spa, inner.tpa
    elif isinstance(inner, dpkt.ip.IP):
        source, target = inner.src, inner.dst
        protocol, ttl = inner.p, inner.ttl
        segment = inner.data
        if isinstance(segment, dpkt.tcp.TCP):
            is_tcp, header, flags = True, 4 * segment.off, segment.flags
            ports = (segment.sport, segment.dport)
        elif isinstance(segment, dpkt.udp.UDP):
            is_udp, header = True, 8
            dns = 53 in (segment.sport, segment.dport)
            dhcp = {segment.sport, segment.dport} == {67, 68}
    else:
        return None
    device = source if source[:2] == _INSIDE and target[:2] != _INSIDE else target
    return device, (
        *(len(frame), protocol, ttl, header),
        *[1 if flags & flag else 0 for flag in _FLAGS],
        *[1 if port in ports else 0 for port in _PORTS],
        *(is_tcp, is_udp, dns, dhcp, is_arp, protocol == 1, protocol == 2, not is_arp),
    )


def _row(device: bytes, packets: list[Packet]) -> tuple[str, float, list[float]]:
    """Return device, time of the first packet, and features of a window in the order of the feature schema."""
    n = len(packets)
    seconds, gaps, lengths, protocols, ttls, headers, *shares = zip(*packets, strict=True)
    fin, syn, rst, psh, ack, ece, cwr, http, https, telnet, smtp, ssh, irc, *kinds = (sum(each) / n for each in shares)
    tcp, udp, dns, dhcp, arp, icmp, igmp, ip = kinds
    span = max(seconds) - min(seconds)
    total = sum(lengths)
    variance = statistics.variance(lengths)
    values = [
        *(sum(headers) / n, min(statistics.multimode(protocols)), sum(ttls) / n, n / span if span else float("inf")),
        *(fin, syn, rst, psh, ack, ece, cwr, ack * n, syn * n, fin * n, rst * n),
        *(http, https, dns, telnet, smtp, ssh, irc, tcp, udp, dhcp, arp, icmp, igmp, ip, ip),
        *(total, min(lengths), max(lengths), total / n, variance**0.5, total / n, sum(gaps) / n, n, variance),
    ]
    return ".".join(map(str, device)), seconds[0], values


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
