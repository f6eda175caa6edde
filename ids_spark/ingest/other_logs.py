"""Flow logs of other programs (Zeek, Suricata, NetFlow, …), recognised by first bytes or column names to be refused.

Their rows describe connections, the features windows of packets. Renaming columns would make a model score values that
it has never seen, so each is refused by name, with the reason.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ids_spark.dataset.columns import ColumnNames, plain
from ids_spark.dataset.features import FEATURE_SCHEMAS

_NO_LENGTHS: Final = (
    "shortest and longest packet, deviation of lengths, time to live, header lengths and shares of flags"
)
_FEWEST_COLUMNS: Final = 3
_MOST_UNPACKED: Final = 1 << 16
_LONGEST_HEADER: Final = 1 << 14
_FIRST_TIME: Final = 946_684_800  # seconds since 1970 of the year 2000
_V5_MOST_FLOWS: Final = 30  # of a NetFlow v5 datagram


@dataclass(frozen=True)
class OtherLog:
    """A kind of flow log that cannot be used.

    Attributes:
        key: Name of the reason in tables.
        name: For people, with the article.
        columns: Columns by which a table is recognised; only lower-case letters and digits.
        lacks: Features that cannot be computed from it.
    """

    key: str
    name: str
    columns: frozenset[str] = frozenset()
    lacks: str = _NO_LENGTHS

    @property
    def reason(self) -> str:
        """What it is and why it cannot be used, in one sentence without an end."""
        return (
            f"{self.name}: its rows describe connections, the features describe windows of packets of any kind, and"
            f" {self.lacks} are missing"
        )


def _columns(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(","))


_ZEEK: Final = OtherLog(
    "zeek_log",
    "a log of Zeek",
    _columns("ts, idorigh, idorigp, idresph, idrespp, origbytes, respbytes, connstate, origpkts, resppkts, history"),
)
_SURICATA: Final = OtherLog(
    "suricata_log",
    "a log of Suricata (EVE)",
    _columns(
        """eventtype, iniface, destip, destport, appproto, flowpktstoserver, flowpktstoclient, flowbytestoserver,
        flowbytestoclient, pktstoserver, pktstoclient, bytestoserver, bytestoclient"""
    ),
)
_NETFLOW: Final = OtherLog(
    "netflow",
    "NetFlow or IPFIX",
    _columns(
        """ipv4srcaddr, ipv4dstaddr, l4srcport, l4dstport, inbytes, outbytes, inpkts, outpkts, l7proto, tcpflags,
        flowdurationmilliseconds, sourceipv4address, destinationipv4address, octetdeltacount, packetdeltacount,
        protocolidentifier, te, td, sa, da, sp, dp, pr, flg, fwd, stos, ipkt, ibyt, opkt, obyt, firstseen, srcaddr,
        dstaddr, srcport, dstport, srcas, dstas, nexthop"""
    ),
)
_SILK: Final = OtherLog("silk", "flow records of SiLK")
_AWS: Final = OtherLog(
    "vpc_flow_log",
    "a VPC flow log of Amazon",
    _columns(
        """accountid, interfaceid, srcaddr, dstaddr, srcport, dstport, action, logstatus,
        vpcid, subnetid, instanceid, pktsrcaddr, pktdstaddr,
        flowdirection, trafficpath, azid, pktsrcawsservice, pktdstawsservice"""
    ),
)
_GOOGLE: Final = OtherLog(
    "google_flow_log",
    "a VPC flow log of Google",
    _columns(
        """jsonpayloadconnectionsrcip, jsonpayloadconnectiondestip, jsonpayloadbytessent, jsonpayloadpacketssent,
        jsonpayloadreporter, jsonpayload"""
    ),
)
_AZURE: Final = OtherLog("azure_flow_log", "a flow log of Azure")
_CICFLOWMETER: Final = OtherLog(
    "cicflowmeter",
    "a table of CICFlowMeter",
    _columns(
        """flowduration, totalfwdpacket, totalfwdpackets, totfwdpkts, totalbwdpackets, totalbackwardpackets, totbwdpkts,
        flowbytess, flowbytss, flowpacketss, flowpktss, fwdpacketlengthmax, fwdpktlenmax, flowiatmean, fwdiattotal,
        initfwdwinbytes, initwinbytesforward, downupratio, subflowfwdpackets"""
    ),
    "time to live and all packets without TCP or UDP",
)
_ARGUS: Final = OtherLog(
    "argus",
    "a table of Argus",
    _columns(
        """srcid, stime, ltime, saddr, daddr, sport, dport, spkts, dpkts, sbytes, dbytes, sload, flgs, dir, totpkts,
        totbytes, srcbytes, srcpkts, dstpkts"""
    ),
)
OTHER_LOGS: Final[Sequence[OtherLog]] = (
    *(_ZEEK, _SURICATA, _NETFLOW, _SILK, _AWS, _GOOGLE, _AZURE, _CICFLOWMETER, _ARGUS),
)
"""Every kind that is recognised."""
EXTRACT: Final = "extract packet captures instead: jobs/extract.py"

_STARTS: Final[Sequence[tuple[bytes, OtherLog]]] = (
    (b"#separator ", _ZEEK),
    (b"\x0c\xa5\x01\x00", _NETFLOW),  # files of nfdump: layout 1 and 2, little and big endian
    (b"\x0c\xa5\x02\x00", _NETFLOW),
    (b"\xa5\x0c\x00\x01", _NETFLOW),
    (b"\xa5\x0c\x00\x02", _NETFLOW),
    (b"Date first seen", _NETFLOW),  # text of nfdump
    (b"\xde\xad\xbe\xef", _SILK),
)
_AWS_LINE: Final = re.compile(rb"\d+ (\d{12}|unknown) eni-[0-9a-f]+ ")  # as CloudWatch exports it, without a header
_ZEEK_FIELDS: Final = re.compile(rb"^#fields\t", re.MULTILINE)
_JSON_KEYS: Final[Sequence[tuple[re.Pattern[bytes], OtherLog]]] = (
    (re.compile(rb'"id[._](orig|resp)_h"\s*:'), _ZEEK),
    (re.compile(rb'"event_type"\s*:\s*"[a-z0-9_]+"'), _SURICATA),
    (re.compile(rb"(NetworkSecurityGroupFlowEvent|FlowLogFlowEvent)"), _AZURE),
    (re.compile(rb'(vpc_flows"|"jsonPayload"\s*:\s*\{[^{}]*"connection"\s*:)'), _GOOGLE),
    (re.compile(rb'"(sourceIPv4Address|IPV4_SRC_ADDR|src4_addr|octetDeltaCount)"\s*:'), _NETFLOW),
)


def by_format(head: bytes) -> OtherLog | None:
    """Return what the first bytes of a file are if its format, and not only its column names, tells; else None.

    Args:
        head: The first bytes, some thousand of them, also of a gzip file.
    """
    head = _unpacked(head)
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if _AWS_LINE.match(head):
        return _AWS
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n[")  # also a list of documents
    if text.startswith(b"{"):
        return next((kind for pattern, kind in _JSON_KEYS if pattern.search(text)), None)
    if head.startswith(b"#") and _ZEEK_FIELDS.search(head):
        return _ZEEK
    return _NETFLOW if _is_export(head) else None


def by_content(head: bytes) -> OtherLog | None:
    """Return what the first bytes of a file are, by format or by the column names in its first line; None if unknown.

    Args:
        head: The first bytes, some thousand of them, also of a gzip file.
    """
    return by_format(head) or _by_header(_unpacked(head))


def by_columns(columns: ColumnNames) -> OtherLog | None:
    """Return whose columns these are; None if unknown, or if half of the features of a release are among them."""
    found = {plain(name) for name in columns.names}
    best = max(OTHER_LOGS, key=lambda kind: len(found & kind.columns))
    if len(found & best.columns) < _FEWEST_COLUMNS:
        return None
    if any(2 * len(columns.of(schema)) >= len(schema.features) for schema in FEATURE_SCHEMAS.values()):
        return None
    return best


def _by_header(head: bytes) -> OtherLog | None:
    line = head.lstrip(b"\xef\xbb\xbf\r\n")[:_LONGEST_HEADER].split(b"\n", 1)[0].decode(errors="replace").strip("\r# ")
    separators = [each for each in (",", "\t", ";", "|", " ") if each in line]
    if not separators or not line.replace("\t", " ").isprintable():
        return None
    return by_columns(ColumnNames(name.strip(' "') for name in line.split(separators[0])))


def _unpacked(head: bytes) -> bytes:
    """Return the first bytes of the content of a gzip file; other bytes as they are."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _MOST_UNPACKED)
    except zlib.error:
        return head


def _is_export(head: bytes) -> bool:
    """Return whether these are datagrams of an exporter, one after the other: NetFlow v5 or v9 or IPFIX (RFC 7011)."""
    version, count = int.from_bytes(head[:2]), int.from_bytes(head[2:4])
    if len(head) < 24:
        return False
    if version == 10:
        return int.from_bytes(head[4:8]) >= _FIRST_TIME and _is_set(head[16:20], (2, 3)) and count >= 20
    known_time = int.from_bytes(head[8:12]) >= _FIRST_TIME
    if version == 9:
        return known_time and count > 0 and _is_set(head[20:24], (0, 1))
    return version == 5 and known_time and 1 <= count <= _V5_MOST_FLOWS


def _is_set(head: bytes, templates: tuple[int, int]) -> bool:
    """Return whether a header of a set or flow set begins here: id of templates or of data, and a length."""
    number, length = int.from_bytes(head[:2]), int.from_bytes(head[2:4])
    return (number in templates or number >= 256) and length >= 4
