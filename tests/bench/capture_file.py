"""A synthetic capture of mixed traffic of a ward, of any size, written in blocks of whole arrays.

Devices send small TCP segments (MQTT), receive acknowledgements, upload images in segments of 1,514 bytes, stream UDP,
ask DNS, ARP and ICMP; one packet in twenty is IPv6. Payload is the same random bytes again and again.
"""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

DEVICES: Final = 200
SERVERS: Final = 20
_BLOCK: Final = 50_000  # packets
_AVERAGE: Final = 275  # bytes of a packet and its record header; of the frame 259, in benign rows of the data set 253
_HEADER: Final = b"\xd4\xc3\xb2\xa1\x02\0\x04\0" + bytes(8) + b"\0\0\x04\0\x01\0\0\0"
_START_S: Final = 1_704_153_600  # 2024-01-02
_PER_S: Final = 4_000
_KINDS: Final = ("mqtt", "ack", "image", "stream", "dns", "arp", "icmp", "ipv6")
_SHARES: Final = (0.33, 0.29, 0.09, 0.08, 0.06, 0.05, 0.05, 0.05)
_SHORTEST: Final = (66, 54, 1514, 200, 70, 42, 98, 90)
_LONGEST: Final = (240, 54, 1514, 500, 180, 42, 98, 400)
_PROTOCOLS: Final = (6, 6, 6, 17, 17, 0, 1, 0)
_ETHERTYPES: Final = (0x0800, 0x0800, 0x0800, 0x0800, 0x0800, 0x0806, 0x0800, 0x86DD)
_SERVER_PORTS: Final = (1883, 443, 443, 5004, 53, 0, 0, 0)
_FLAGS: Final = (0x18, 0x10, 0x10, 0, 0, 0, 0, 0)


class Written(NamedTuple):
    """Facts of a capture: bytes, packets, and packets of IPv4 and ARP."""

    size: int
    packets: int
    visible: int


def write(path: Path, size: int, seed: int) -> Written:
    """Write a pcap file of about `size` bytes."""
    rng = np.random.default_rng(seed)
    payload = rng.integers(0, 256, 1 << 20, dtype=np.uint8)
    count = visible = 0
    with path.open("wb") as stream:
        stream.write(_HEADER)
        while stream.tell() < size:
            packets = max(1, min(_BLOCK, (size - stream.tell()) // _AVERAGE))
            block, seen = _block(rng, payload, count, packets)
            stream.write(block.tobytes())
            count, visible = count + packets, visible + seen
        return Written(stream.tell(), count, visible)


def _block(
    rng: np.random.Generator, payload: NDArray[np.uint8], first: int, packets: int
) -> tuple[NDArray[np.uint8], int]:
    """Return a block of packets, and how many of them are IPv4 or ARP."""
    kind = rng.choice(len(_KINDS), packets, p=_SHARES)
    length = rng.integers(np.take(_SHORTEST, kind), np.take(_LONGEST, kind) + 1)
    at = np.cumsum(length + 16) - length  # of the frames
    block = np.resize(payload, int(at[-1] + length[-1]))
    micros = np.arange(first, first + packets) * (10**6 // _PER_S) + rng.integers(0, 10**6 // _PER_S, packets)
    for i, field in enumerate((_START_S + micros // 10**6, micros % 10**6, length, length)):
        _put(block, at - 16 + 4 * i, field, "<u4")
    device, server = rng.integers(1, DEVICES + 1, packets), rng.integers(1, SERVERS + 1, packets)
    port, server_port = 40_000 + device, np.take(_SERVER_PORTS, kind)
    reply = rng.random(packets) < 0.4
    inside, outside = 0x0A140000 + device, np.where(kind == 4, 0x0A1E0001, 0x0A1E0000 + server)
    _put(block, at, np.where(reply, device, server + 1000), ">u8", 2, 6)
    _put(block, at + 6, np.where(reply, server + 1000, device), ">u8", 2, 6)
    _put(block, at + 12, np.take(_ETHERTYPES, kind), ">u2")
    source, target = np.where(reply, outside, inside), np.where(reply, inside, outside)
    ip = _is(kind, "mqtt", "ack", "image", "stream", "dns", "icmp")
    _put(block, at[ip] + 14, np.full(ip.sum(), 0x4500), ">u2")
    _put(block, at[ip] + 16, length[ip] - 14, ">u2")
    _put(block, at[ip] + 20, np.full(ip.sum(), 0x4000), ">u2")
    _put(block, at[ip] + 22, 64 * 256 + np.take(_PROTOCOLS, kind[ip]), ">u2")
    _put(block, at[ip] + 26, source[ip], ">u4")
    _put(block, at[ip] + 30, target[ip], ">u4")
    ports = _is(kind, "mqtt", "ack", "image", "stream", "dns")
    _put(block, at[ports] + 34, np.where(reply, server_port, port)[ports], ">u2")
    _put(block, at[ports] + 36, np.where(reply, port, server_port)[ports], ">u2")
    tcp = _is(kind, "mqtt", "ack", "image")
    _put(block, at[tcp] + 46, 0x5000 + np.take(_FLAGS, kind[tcp]), ">u2")
    arp = _is(kind, "arp")
    for place, value in ((14, 1), (16, 0x0800), (18, 0x0604), (20, 1)):
        _put(block, at[arp] + place, np.full(arp.sum(), value), ">u2")
    _put(block, at[arp] + 28, source[arp], ">u4")
    _put(block, at[arp] + 38, target[arp], ">u4")
    six, ping = _is(kind, "ipv6"), _is(kind, "icmp")
    for place, values in ((14, 0x6000), (18, length[six] - 54), (20, 17 << 8 | 255)):
        _put(block, at[six] + place, np.broadcast_to(values, six.sum()), ">u2")
    _put(block, at[ping] + 34, np.where(reply[ping], 0, 0x0800), ">u2")
    return block, packets - int(six.sum())


def _is(kind: NDArray[np.int64], *names: str) -> NDArray[np.bool_]:
    return np.isin(kind, [_KINDS.index(name) for name in names])


def _put(
    block: NDArray[np.uint8], at: NDArray[np.int64], values: NDArray[np.int64], form: str, skip: int = 0, width: int = 0
) -> None:
    """Write a number at each index; of a wider form only `width` bytes after the first `skip`."""
    digits = values.astype(form).view(np.uint8).reshape(len(values), np.dtype(form).itemsize)[:, skip:]
    for i in range(width or digits.shape[1]):
        block[at + i] = digits[:, i]
