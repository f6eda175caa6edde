"""Formats of capture files, recognised by their first bytes, and the link types whose packets can be read.

pcap: draft-ietf-opsawg-pcap. pcapng: draft-ietf-opsawg-pcapng. Link types: https://www.tcpdump.org/linktypes.html.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ids_spark.ingest.files import content_of
from ids_spark.ingest.other_logs import by_content

Order = Literal["<", ">"]
"""Byte order as in `struct`: least or most significant byte first."""

HEAD_BYTES: Final = 4096
"""First bytes of a file that `format_of` needs at most."""
PCAP_HEADER: Final = 24
ETHERNET: Final = 1
COOKED: Final = 113
COOKED_2: Final = 276
RAW_IP: Final = (12, 14, 101, 228, 229)
BSD_LOOPBACK: Final = (0, 108)
READABLE_LINKS: Final = frozenset((ETHERNET, COOKED, COOKED_2, *RAW_IP, *BSD_LOOPBACK))
GZIP: Final = b"\x1f\x8b"
_SECTION: Final = b"\x0a\x0d\x0d\x0a"
PCAP_MAGIC: Final[Mapping[bytes, tuple[Order, bool]]] = {
    b"\xd4\xc3\xb2\xa1": ("<", False),
    b"\xa1\xb2\xc3\xd4": (">", False),
    b"\x4d\x3c\xb2\xa1": ("<", True),
    b"\xa1\xb2\x3c\x4d": (">", True),
}
"""First bytes of a pcap file: its byte order, and whether fractions of a second are nanoseconds."""
_OTHER_CAPTURES: Final[Sequence[tuple[bytes, str]]] = (
    (b"\x34\xcd\xb2\xa1", "a pcap file with the longer record headers of a patched libpcap"),
    (b"\xa1\xb2\xcd\x34", "a pcap file with the longer record headers of a patched libpcap"),
    (b"\x4d\xed\x1a\xa1", "a pcap file of another vendor"),
    (b"snoop\0\0\0", "a capture of Solaris snoop"),
    (b"GMBU", "a capture of Microsoft Network Monitor"),
    (b"RTSS", "a capture of Microsoft Network Monitor"),
    (b"TRSNIFF data", "a capture of Sniffer"),
    (b"XCP\0", "a capture of Sniffer"),
    (b"iptrace ", "a capture of AIX iptrace"),
    (b"\x13\0\0\0\x02\0\0\0", "an event trace of Windows"),
    (b"btsnoop\0", "a Bluetooth capture"),
)
_LINKS: Final[Mapping[int, str]] = {
    6: "token ring",
    8: "SLIP",
    9: "PPP",
    10: "FDDI",
    50: "PPP",
    51: "PPPoE",
    100: "ATM",
    104: "Cisco HDLC",
    105: "802.11 wireless",
    107: "frame relay",
    117: "OpenBSD packet filter log",
    119: "802.11 wireless with Prism header",
    127: "802.11 wireless with radiotap header",
    138: "IP over FireWire",
    143: "DOCSIS",
    147: "private use 0",
    163: "802.11 wireless with AVS header",
    166: "PPP",
    187: "Bluetooth",
    189: "USB",
    192: "per-packet information",
    195: "802.15.4",
    201: "Bluetooth",
    215: "802.15.4",
    220: "USB",
    227: "CAN bus",
    230: "802.15.4",
    231: "D-Bus",
    239: "netfilter log",
    247: "InfiniBand",
    249: "USB",
    251: "Bluetooth Low Energy",
    252: "Wireshark upper PDU",
    253: "netlink",
    256: "Bluetooth Low Energy",
    272: "Bluetooth Low Energy",
    283: "802.15.4",
}
_CONTENTS: Final[Mapping[str, str]] = {
    "parquet": "a parquet file",
    "encrypted_parquet": "an encrypted parquet file",
    "git_lfs_pointer": "a git-lfs pointer, not the file itself",
    "zip_archive": "a zip archive or a spreadsheet",
    "gzip": "gzip in gzip",
    "other_compression": "compressed in a way other than gzip",
    "spreadsheet": "a spreadsheet",
    "other_format": "a table or an archive of another format",
    "utf16": "text in UTF-16",
    "html_page": "an HTML or XML page",
    "json_lines": "JSON",
}
_EXPECTED: Final = "expected pcap or pcapng, or gzip of one of them"


class Refused(Exception):
    """Raised for a file that cannot be read as a capture; its message states what the file is. Others can be read."""


@dataclass(frozen=True)
class Format:
    """Format of a capture file.

    Attributes:
        kind: `pcap` or `pcapng`.
        order: Byte order; of a pcapng file that of its first section.
        nanoseconds: Whether fractions of a second are nanoseconds, not microseconds; pcap only.
        link: Link type of all packets; -1 for pcapng, whose interfaces have their own.
        checksum: Bytes of the frame check sequence at the end of each frame, as far as the header states it.
        swapped: Whether records state the original length before the captured one, as versions before 2.3 do.
    """

    kind: Literal["pcap", "pcapng"]
    order: Order
    nanoseconds: bool = False
    link: int = -1
    checksum: int = 0
    swapped: bool = False


def format_of(head: bytes) -> Format:
    """Return the format of a capture by its first bytes, after unpacking of gzip.

    Args:
        head: `HEAD_BYTES` bytes, or the whole file if it is shorter.

    Raises:
        Refused: it is no capture, of another format, or of a link type that cannot be read.
    """
    if head[:4] in PCAP_MAGIC:
        return _pcap(head)
    if head[:4] == _SECTION:
        return _pcapng(head)
    raise Refused(f"{_what_it_is(head)}; {_EXPECTED}")


def link_name(link: int) -> str:
    """Return a link type in words, with its number."""
    return f"link type {link} ({_LINKS[link]})" if link in _LINKS else f"link type {link}"


def _pcap(head: bytes) -> Format:
    order, nanoseconds = PCAP_MAGIC[head[:4]]
    if len(head) < PCAP_HEADER:
        raise Refused(
            f"a pcap file that ends within its header, after {len(head)} of {PCAP_HEADER} bytes; fetch it again"
        )
    major, minor, field = struct.unpack_from(f"{order}HH12xI", head, 4)
    if major != 2:
        raise Refused(f"a pcap file of version {major}.{minor}; expected 2.4; convert it with editcap -F pcap")
    link = field & 0xFFFF  # above: whether frames end with a check sequence (bit 26), and its length in 16-bit words
    if link not in READABLE_LINKS:
        raise Refused(f"a pcap file of {link_name(link)}; expected Ethernet, Linux cooked, raw IP or BSD loopback")
    checksum = (field >> 28) * 2 if field >> 26 & 1 else 0
    return Format("pcap", order, nanoseconds, link, checksum, swapped=minor < 3)


def _pcapng(head: bytes) -> Format:
    for order in ("<", ">"):
        if head[8:12] == struct.pack(f"{order}I", 0x1A2B3C4D):
            return Format("pcapng", order)
    if len(head) < 12:
        raise Refused(f"a pcapng file that ends within its header, after {len(head)} bytes; fetch it again")
    raise Refused(f"a pcapng file without byte-order magic (bytes 8 to 11 are {head[8:12].hex(' ')}); fetch it again")


def _what_it_is(head: bytes) -> str:
    if not head:
        return "it has no byte"
    for start, name in _OTHER_CAPTURES:
        if head.startswith(start):
            return f"{name}; convert it with editcap -F pcap" if "capture" in name or "pcap" in name else name
    if not head.strip(b"\0"):
        return "not a packet capture: its first bytes are all 0"
    other = by_content(head)
    if other is not None:
        return f"not a packet capture but {other.reason}"
    content = content_of(head)
    if content is not None and content in _CONTENTS:
        return f"not a packet capture but {_CONTENTS[content]}"
    line = head.split(b"\n", 1)[0][:60]
    if line.strip() and all(32 <= byte < 127 or byte in b"\t\r" for byte in line):
        return "not a packet capture but text"  # which may name devices, and the audit keeps this message
    return f"not a packet capture: its first bytes are {head[:4].hex(' ')}"
