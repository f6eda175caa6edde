"""Packets of one day of an invented hospital ward: benign traffic, and a SYN flood, a port scan and ARP spoofing.

The capture point is the switch of the ward: every frame that it forwards, padded. Devices of the ward have addresses in
`WARD_NETWORK`; the servers of the hospital and the internet are behind its router. Sizes, intervals, times to live and
TCP options are those of common programs (MQTT clients and HTTPS of Linux, DNS, NTP, DHCP), the attacks those of tools
with their default settings: `hping3 -S --flood`, `nmap -sS`, `ettercap -M arp`. Nothing was measured in a hospital.
Addresses are reserved for documentation (RFC 5737, 3849, 7042).
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.config.synthetic import RHYTHM
from ids_spark.extract.inventory import OPTIONAL, REQUIRED
from ids_spark.synthetic import frames
from ids_spark.synthetic.frames import ACK, FIN, PSH, RST, SYN, Packets
from ids_spark.synthetic.plan import generator

WARD_NETWORK: Final = "192.0.2.0/24"
"""Addresses of the ward; the others are `198.51.100.0/24` (servers) and `203.0.113.0/24` (internet)."""
_WARD, _SERVERS, _INTERNET = 0xC0000200, 0xC6336400, 0xCB007100
_MACS: Final = 0x00005E005300  # RFC 7042
_BROADCAST: Final = (1 << 48) - 1
_EVERYONE: Final = 0xFFFFFFFF
_DAY: Final = 86_400.0  # seconds
_SEGMENT: Final = 1_448  # bytes of TCP payload in a full frame with timestamps
_WIRE: Final = 0.00013  # seconds of a full frame at 100 Mbit/s
_ROUND_TRIP: Final = 0.002  # seconds, median
_WAVEFORM: Final = 0.2  # seconds between the messages of a device that measures
_PORTS: Final = 1_000  # of a port scan by nmap
_AT_ONCE: Final = 0.0003  # seconds until a device in the ward answers
_ANSWERED: Final = 0.3  # of the packets of a flood
_FORWARDED: Final = 150_000  # nanoseconds until the attacker of ARP spoofing has sent a packet on


@dataclass(frozen=True)
class Host:
    """A host of the ward, or behind its router.

    Attributes:
        name: For the inventory and the truth.
        address: IPv4 as a number.
        mac: As seen in the ward; that of the router for a host behind it.
        ttl: Time to live of its packets in the ward.
    """

    name: str
    address: int
    mac: int
    ttl: int = 64


def _inside(name: str, last: int) -> Host:
    return Host(name, _WARD + last, _MACS + last)


ROUTER: Final = _inside("router", 1)
PUMPS: Final = tuple(_inside(f"infusion-pump-{i:02d}", 10 + i) for i in range(1, 5))
MONITORS: Final = tuple(_inside(f"patient-monitor-{i:02d}", 20 + i) for i in range(1, 5))
GATEWAY: Final = _inside("imaging-gateway-01", 31)
WORKSTATION: Final = _inside("workstation-01", 41)
TABLET: Final = _inside("tablet-01", 42)
DEVICES: Final = (ROUTER, *PUMPS, *MONITORS, GATEWAY, WORKSTATION, TABLET)
"""In the inventory."""
BROKER: Final = Host("mqtt-broker", _SERVERS + 10, ROUTER.mac, 63)
RECORDS: Final = Host("patient-records", _SERVERS + 20, ROUTER.mac, 63)
NAMES: Final = Host("name-server", _SERVERS + 53, ROUTER.mac, 63)
TIME: Final = Host("time-server", _SERVERS + 123, ROUTER.mac, 63)
SUPERVISION: Final = Host("supervision", _SERVERS + 5, ROUTER.mac, 63)
CLOUD: Final = Host("cloud", _INTERNET + 80, ROUTER.mac, 54)
FLOODER: Final = Host("flood", _SERVERS + 66, ROUTER.mac, 63)
SCANNER: Final = Host("scan", _SERVERS + 23, ROUTER.mac, 0)
SPOOFER: Final = _inside("spoofing", 66)


@dataclass(frozen=True)
class Attack:
    """What a page should show.

    Attributes:
        name, class19: Of the attack.
        attacker: IPv4 address, of ARP spoofing the Ethernet address.
        victims: Names of devices in the inventory.
        start, end: Seconds after midnight.
    """

    name: str
    class19: str
    attacker: str
    victims: tuple[str, ...]
    start: float
    end: float


_FLOOD: Final = (18.75 * 3600, 4.0, 20_000.0)  # start, seconds, packets per second
_SCAN: Final = 3.5 * 3600
_SPOOF: Final = (10.6 * 3600, 900.0)  # start, seconds
_SCANNED: Final = (*PUMPS, GATEWAY)
ATTACKS: Final = (
    Attack("flood", "DDoS-SYN", "198.51.100.66", (GATEWAY.name,), _FLOOD[0], _FLOOD[0] + _FLOOD[1]),
    Attack("scan", "Recon-Port_Scan", "198.51.100.23", tuple(h.name for h in _SCANNED), _SCAN, _SCAN + 60.0),
    Attack("spoofing", "ARP_Spoofing", "00:00:5e:00:53:42", (TABLET.name,), _SPOOF[0], sum(_SPOOF)),
)


def text_of(address: int) -> str:
    """Return an IPv4 address as text."""
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def mac_text(mac: int) -> str:
    """Return an Ethernet address as text."""
    return ":".join(f"{mac >> shift & 255:02x}" for shift in range(40, -1, -8))


def packets_of(date: dt.date, seed: int, attacks: bool) -> Packets:
    """Return all packets of a day in order of time.

    Args:
        date: The day, in UTC.
        seed: Equal seeds and dates give equal packets.
        attacks: Whether the attacks are part of them; the benign packets are the same without.
    """
    day = _Day(int(dt.datetime.combine(date, dt.time(), dt.UTC).timestamp()) * 1_000_000_000)
    for i, device in enumerate((*MONITORS, *PUMPS)):
        _measuring(day, device, generator(seed, str(date), "measuring", i), 10 if device in MONITORS else 5)
    _gateway(day, generator(seed, str(date), "gateway"))
    for i, device in enumerate((WORKSTATION, TABLET)):
        _display(day, device, generator(seed, str(date), "display", i))
    _echoes(day, generator(seed, str(date), "echoes"))
    if attacks:
        _flood(day, generator(seed, str(date), "flood"))
        _scan(day, generator(seed, str(date), "scan"))
        _spoofing(day, generator(seed, str(date), "spoofing"))
    whole = frames.joined(day.parts)
    return whole.take((whole.nanos >= day.midnight) & (whole.nanos < day.midnight + int(_DAY) * 1_000_000_000))


class _Day:
    """Packets while they are made; `midnight` in nanoseconds since 1970."""

    def __init__(self, midnight: int) -> None:
        self.midnight = midnight
        self.parts: list[Packets] = []

    def add(
        self,
        rng: np.random.Generator,
        seconds: Floats,
        a: Host,
        b: Host,
        from_a: Mask | bool = True,
        **columns: Ints | int,
    ) -> Packets:
        """Add packets between two hosts and return them; `from_a`: which are sent by `a`; columns as in `Packets`.

        `a_port` and `b_port` become source and target port, depending on the direction.
        """
        n = len(seconds)
        forth = np.broadcast_to(np.asarray(from_a), (n,))
        a_port, b_port = columns.pop("a_port", 0), columns.pop("b_port", 0)
        found: dict[str, Ints | int] = {
            "nanos": self.midnight + np.rint(seconds * 1e6).astype(np.int64) * 1_000,
            "source": np.where(forth, a.address, b.address),
            "target": np.where(forth, b.address, a.address),
            "source_mac": np.where(forth, a.mac, b.mac),
            "target_mac": np.where(forth, b.mac, a.mac),
            "source_port": np.where(forth, a_port, b_port),
            "target_port": np.where(forth, b_port, a_port),
            "ttl": np.where(forth, a.ttl, b.ttl),
            "identification": rng.integers(0, 65_536, n),
            "tag": 20 if GATEWAY in (a, b) else frames.NO_TAG,
            **dict.fromkeys(("flags", "options", "sequence", "acknowledged", "window", "payload"), 0),
            **columns,
        }
        part = Packets(**{name: np.broadcast_to(np.asarray(value, np.int64), (n,)) for name, value in found.items()})
        self.parts.append(part)
        return part

    def ask(
        self, rng: np.random.Generator, seconds: Floats, a: Host, b: Host, sizes: tuple[int, int], **columns: int
    ) -> None:
        """Add requests of `a`, each answered by `b`; `sizes`: bytes of payload of the two."""
        n, wait = len(seconds), _ROUND_TRIP * rng.lognormal(0.0, 0.3, len(seconds))
        forth = np.repeat([True, False], n)
        payload = np.repeat(sizes, n)
        self.add(rng, np.concatenate([seconds, seconds + wait]), a, b, forth, payload=payload, **columns)


def _tcp(
    day: _Day,
    rng: np.random.Generator,
    client: Host,
    server: Host,
    port: int,
    start: float,
    moments: Floats,
    from_client: Mask,
    payload: Ints,
) -> Packets:
    """Add a TCP connection as Linux makes it: handshake, messages with their acknowledgements, and its end.

    Args:
        start: Seconds after midnight of the first packet.
        moments: Of each message, ascending, after the handshake.
        from_client: Direction of each message.
        payload: Bytes of each message; more than `_SEGMENT` become full frames.
    """
    trip = _ROUND_TRIP * (10 if server is CLOUD else 1) * float(rng.lognormal(0.0, 0.3))
    segments = -(-payload // _SEGMENT)
    of = np.repeat(np.arange(len(payload)), segments)
    number = np.arange(len(of)) - np.repeat(np.cumsum(segments) - segments, segments)
    last = number == segments[of] - 1
    size = np.where(last, payload[of] - _SEGMENT * number, _SEGMENT)
    sent = moments[of] + number * _WIRE
    answered = last | (number % 2 == 1)  # every second segment is acknowledged
    wait = trip * rng.uniform(0.9, 1.3, len(of))
    end = float(max(moments[-1] + segments[-1] * _WIRE if len(moments) else start, start)) + 4 * trip
    seconds = np.concatenate(
        [start + trip * np.array([0.0, 1.0, 1.1]), sent, sent[answered] + wait[answered], end + trip * np.arange(3)]
    )
    forth = np.concatenate([[True, False, True], from_client[of], ~from_client[of][answered], [True, False, True]])
    flags = np.concatenate(
        [[SYN, SYN | ACK, ACK], np.where(last, PSH | ACK, ACK), np.full(int(answered.sum()), ACK),
         [FIN | ACK, FIN | ACK, ACK]]
    )  # fmt: skip
    amount = np.concatenate([np.zeros(3), size, np.zeros(int(answered.sum()) + 3)]).astype(np.int64)
    order = np.argsort(seconds, kind="stable")
    seconds, forth, flags, amount = seconds[order], forth[order], flags[order], amount[order]
    begin = rng.integers(0, 1 << 31, 2)
    moved = amount + ((flags & (SYN | FIN)) > 0)
    sides = [begin[i] + np.cumsum(np.where(forth == (i == 0), moved, 0)) for i in (0, 1)]
    own, other = np.where(forth, sides[0], sides[1]), np.where(forth, sides[1], sides[0])
    opening = (flags & SYN) > 0
    return day.add(
        rng, seconds, client, server, forth,
        protocol=frames.TCP, a_port=int(rng.integers(32_768, 61_000)), b_port=port,
        flags=flags, payload=amount,
        options=np.where(opening, frames.OF_CONNECTION, frames.TIMESTAMPS),
        sequence=(own - moved) % (1 << 32), acknowledged=np.where(flags & ACK, other, 0) % (1 << 32),
        window=np.where(opening, 64_240, 501),
    )  # fmt: skip


def _moments(rng: np.random.Generator, start: float, end: float, every: float) -> Floats:
    """Return times from start to end, about `every` so many seconds."""
    n = max(int((end - start) / every), 1)
    return start + every * (np.arange(n) + rng.uniform(-0.05, 0.05, n)) + every


def _mqtt(day: _Day, rng: np.random.Generator, client: Host, start: float, end: float, every: float) -> None:
    """Add a session of an MQTT client: CONNECT, CONNACK, then PUBLISH with quality of service 0."""
    moments = np.concatenate([[start + 0.02, start + 0.04], _moments(rng, start + 0.1, end, every)])
    n = len(moments)
    topic = np.array([13, 21, 29])[np.arange(n) % 3]
    payload = topic + rng.integers(2, 12, n)
    payload[:2] = 34, 4
    _tcp(day, rng, client, BROKER, 1883, start, moments, np.arange(n) != 1, payload)


def _sessions(day: _Day, rng: np.random.Generator, host: Host, wanted: int) -> list[tuple[float, float]]:
    """Return begins and ends of sessions in so many different hours, more by day than by night; add their start-up.

    Between sessions the device is off; when it starts, it gets an address, and asks for the router, a name, the time.
    """
    hours = rng.choice(24, wanted, replace=False, p=np.array(RHYTHM) / sum(RHYTHM))
    found = []
    for hour in np.sort(hours):
        length = float(rng.uniform(300.0, 1_200.0))
        start = 3600.0 * hour + float(rng.uniform(30.0, 3_500.0 - length))
        _start_up(day, rng, host, start)
        found.append((start, start + length))
    return found


def _start_up(day: _Day, rng: np.random.Generator, host: Host, start: float) -> None:
    times = start - np.array([0.9, 0.7])
    nobody, everyone = Host("", 0, host.mac), Host("", _EVERYONE, _BROADCAST)
    day.add(rng, times, nobody, everyone, protocol=frames.UDP, a_port=68, b_port=67, payload=300)
    day.add(rng, times + 0.002, NAMES, host, protocol=frames.UDP, a_port=67, b_port=68, payload=300)
    sender, nodes = Host("", host.address, host.mac, 255), Host("", 1, 0x333300000001)
    day.add(rng, times, sender, nodes, protocol=frames.ICMPV6, a_port=133 * 256, payload=8)
    _arp(day, rng, times[1:] + 0.1, host, ROUTER)
    port = int(rng.integers(32_768, 61_000))
    day.ask(rng, times[1:] + 0.3, host, NAMES, (34, 50), protocol=frames.UDP, a_port=port, b_port=53)
    day.ask(rng, times[1:] + 0.5, host, TIME, (48, 48), protocol=frames.UDP, a_port=123, b_port=123)


def _measuring(day: _Day, host: Host, rng: np.random.Generator, sessions: int) -> None:
    for start, end in _sessions(day, rng, host, sessions):
        _mqtt(day, rng, host, start, end, _WAVEFORM)


def _gateway(day: _Day, rng: np.random.Generator) -> None:
    """Results of laboratory devices, posted over HTTP, those of a session on one connection."""
    for start, end in _sessions(day, rng, GATEWAY, 8):
        asked = _moments(rng, start + 0.1, end, 2 * _WAVEFORM)
        moments = np.repeat(asked, 2) + np.tile([0.0, 0.02], len(asked))
        payload = np.column_stack([rng.integers(180, 420, len(asked)), np.full(len(asked), 120)]).ravel()
        _tcp(day, rng, GATEWAY, RECORDS, 80, start, moments, np.arange(len(moments)) % 2 == 0, payload)


def _display(day: _Day, host: Host, rng: np.random.Generator) -> None:
    """A view of the patient monitors, which gets small updates over a lasting HTTPS connection."""
    for start, end in _sessions(day, rng, host, 6):
        moments = np.concatenate([[start + 0.02, start + 0.03], _moments(rng, start + 0.2, end, _WAVEFORM)])
        payload = 39 + rng.integers(0, 24, len(moments))
        payload[:2] = 180, 140
        _tcp(day, rng, host, RECORDS, 443, start, moments, np.arange(len(moments)) == 0, payload)


def _echoes(day: _Day, rng: np.random.Generator) -> None:
    """The supervision of the hospital asks the router for an echo, now and then."""
    kind = np.array([8 * 256, 0])
    for moment in np.sort(rng.uniform(0, _DAY - 1, 6)):
        day.add(rng, moment + np.array([0, _AT_ONCE]), SUPERVISION, ROUTER, np.array([True, False]),
                protocol=frames.ICMP, a_port=kind, b_port=kind, sequence=1, payload=56)  # fmt: skip


def _arp(day: _Day, rng: np.random.Generator, seconds: Floats, asker: Host, asked: Host) -> None:
    """Add ARP requests to everyone, and the answers."""
    everyone = Host(asked.name, asked.address, _BROADCAST)
    day.add(rng, seconds, asker, everyone, protocol=frames.ARP, a_port=1)
    day.add(rng, seconds + _AT_ONCE, asked, asker, protocol=frames.ARP, a_port=2)


def _flood(day: _Day, rng: np.random.Generator) -> None:
    """SYN packets to port 0 as fast as the network allows (hping3 -S --flood); the device answers as many as it can."""
    start, length, rate = _FLOOD
    n = int(length * rate)
    seconds = start + np.cumsum(rng.exponential(1 / rate, n))
    ports = (int(rng.integers(1_024, 20_000)) + np.arange(n)) % 65_536
    numbers = rng.integers(0, 1 << 32, n)
    day.add(
        rng, seconds, FLOODER, GATEWAY, protocol=frames.TCP, a_port=ports, flags=SYN, sequence=numbers, window=512
    )  # fmt: skip
    some = rng.random(n) < _ANSWERED
    day.add(
        rng, seconds[some] + _AT_ONCE, FLOODER, GATEWAY, False, protocol=frames.TCP, a_port=ports[some],
        flags=RST | ACK, acknowledged=(numbers[some] + 1) % (1 << 32),
    )  # fmt: skip


def _scan(day: _Day, rng: np.random.Generator) -> None:
    """SYN packets to a thousand ports, as nmap sends by default, device after device; closed ports answer RST."""
    for i, host in enumerate(_SCANNED):
        low = np.arange(1, 701)
        high = np.sort(rng.choice(np.arange(701, 65_536), _PORTS - len(low), replace=False))
        ports = rng.permutation(np.concatenate([low, high]))
        pace = np.repeat(rng.lognormal(0.0, 1.0, _PORTS // 20), 20)
        seconds = _SCAN + 9.0 * i + np.cumsum(rng.exponential(0.004, _PORTS) * pace)
        own, number = int(rng.integers(33_000, 64_000)), int(rng.integers(0, 1 << 32))
        day.add(
            rng, seconds, SCANNER, host, protocol=frames.TCP, a_port=own, b_port=ports, flags=SYN,
            options=frames.MAXIMUM_SEGMENT, sequence=number, window=1_024, ttl=rng.integers(37, 60, _PORTS),
        )  # fmt: skip
        day.add(
            rng, seconds + _AT_ONCE, SCANNER, host, False, protocol=frames.TCP, a_port=own, b_port=ports,
            flags=RST | ACK, acknowledged=(number + 1) % (1 << 32),
        )  # fmt: skip


def _spoofing(day: _Day, rng: np.random.Generator) -> None:
    """The victim's HTTPS passes the attacker: every packet is seen twice (ettercap -T -M arp, which keeps the TTL)."""
    start, length = _SPOOF
    poison = np.concatenate([start + np.arange(1.0, 6.0), np.arange(start + 10.0, start + length, 10.0)])
    for i, victim in enumerate((TABLET, ROUTER)):
        _arp(day, rng, np.array([start + 0.1 * i]), SPOOFER, victim)
    for victim, claimed in ((TABLET, ROUTER), (ROUTER, TABLET)):
        day.add(rng, poison, Host("", claimed.address, SPOOFER.mac), victim, protocol=frames.ARP, a_port=2)
    begin = len(day.parts)
    for page in np.sort(rng.uniform(start + 8, start + length - 10, 40)):
        _page(day, rng, float(page))
    for i in range(begin, len(day.parts)):
        direct = day.parts[i]
        copied = {each.name: getattr(direct, each.name) for each in fields(direct)}
        day.parts[i] = Packets(**copied | {"target_mac": np.full(len(direct), SPOOFER.mac)})
        again = {"nanos": direct.nanos + _FORWARDED, "source_mac": np.full(len(direct), SPOOFER.mac)}
        day.parts.append(Packets(**copied | again))


def _page(day: _Day, rng: np.random.Generator, start: float) -> None:
    """Add a page of the tablet, over HTTPS from the internet: keys, then some requests with answers."""
    n = int(rng.integers(4, 12))
    moments = np.concatenate([[0.06, 0.12, 0.18], 0.3 + np.cumsum(rng.exponential(0.08, 2 * n))])
    answers = np.rint(rng.lognormal(7.2, 0.8, n)).astype(np.int64) + 200
    payload = np.concatenate([[517, 3_200, 80], np.column_stack([rng.integers(120, 700, n), answers]).ravel()])
    from_client = np.concatenate([[True, False, True], np.tile([True, False], n)])
    _tcp(day, rng, TABLET, CLOUD, 443, start, start + moments, from_client, payload)


_KINDS: Final = {  # type, department, connected to a patient, criticality, owner, maintenance
    "router": "router,IT,no,4,Network team,Sun 02:00-04:00",
    "infusion-pump": "infusion pump,Ward 3,yes,5,Medical technology,",
    "patient-monitor": "patient monitor,Ward 3,yes,5,Medical technology,",
    "imaging-gateway": "imaging gateway,Radiology,no,4,Medical technology,Sun 18:00-20:00",
    "workstation": "workstation,Ward 3,no,2,IT,20:00-22:00",
    "tablet": "tablet,Ward 3,no,1,IT,",
}
"""What the inventory says of devices, by the name without its number."""


def inventory(devices: Sequence[Host] = DEVICES) -> str:
    """Return the CSV text of the devices, see `extract.inventory`."""
    header = ",".join((*REQUIRED, *OPTIONAL))
    lines = (f"{text_of(host.address)},{host.name},{_KINDS[host.name.rstrip('-0123456789')]}" for host in devices)
    return "".join(f"{line}\n" for line in (header, *lines))
