"""Which end of a packet is the device, and addresses as text."""

import csv
import io
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Mask
from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.base.text import one_line, shown
from ids_spark.extract.packets import KINDS, Packets
from ids_spark.lake.filesystem import read_bytes

COLUMNS: Final = ("address", "device")
"""Columns of an inventory."""
_MAC_KEY: Final = 1 << 48
"""Set in the key of a device that is an Ethernet address; without it the key is an IPv4 address."""
_GROUP: Final = 1 << 40
"""Set in Ethernet addresses of groups, and in the broadcast address (IEEE 802)."""
_BROADCAST: Final = (1 << 32) - 1
_MULTICAST: Final = (0xF0000000, 0xE0000000)  # 224.0.0.0/4 as mask and network
_ARP: Final = KINDS.index("arp")
_MAC: Final = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}|[0-9a-f]{12}")
_MOST_BYTES: Final = 64 << 20
_EXPECTED: Final = "expected CSV in UTF-8 with the columns address (IPv4 or MAC) and device"


class InventoryRefused(InputError):
    """Raised when an inventory cannot be read, or a line of it has a fault."""


@dataclass(frozen=True)
class Devices:
    """The device of each packet.

    A device is known by its key: its IPv4 address as a number, or 2**48 + its Ethernet address.

    Attributes:
        networks: IPv4 networks of devices, such as 10.0.0.0/8.
        by_mac: Whether devices are known by their Ethernet address.
        names: Name by key, from `read_inventory`; other devices are called by their address.
    """

    networks: tuple[str, ...]
    by_mac: bool = False
    names: Mapping[int, str] = field(default_factory=dict)

    def keys(self, packets: Packets) -> NDArray[np.uint64]:
        """Return the key of the device of each packet, of shape (packets,); without meaning if it is not visible.

        The device is the end inside the networks, the target if both or neither is. An address that is no host's
        (0.0.0.0, multicast, broadcast; of IPv4 also the target of an Ethernet frame for a group) is never a device if
        the other end is a host. With `by_mac` it is the Ethernet address of that end; the other one's if that is a
        group, as in requests of ARP; the IPv4 address if the link layer has none.
        """
        source, target = packets.source, packets.target
        networks = [ipaddress.IPv4Network(network) for network in self.networks]
        to_group = (packets.target_mac & np.uint64(_GROUP) != 0) & (packets.kind != _ARP)
        source_is_host = _is_host(source, networks)
        target_is_host = _is_host(target, networks) & ~to_group
        only_source_inside = _inside(source, networks) & ~_inside(target, networks)
        at_source = np.where(source_is_host == target_is_host, only_source_inside, source_is_host)
        by_ip: NDArray[np.uint64] = np.where(at_source, source, target).astype(np.uint64)
        if not self.by_mac:
            return by_ip
        mac = np.where(at_source, packets.source_mac, packets.target_mac)
        other = np.where(at_source, packets.target_mac, packets.source_mac)
        mac = np.where((mac & np.uint64(_GROUP) != 0) & (other & np.uint64(_GROUP) == 0) & (other != 0), other, mac)
        return np.where(mac != 0, mac | np.uint64(_MAC_KEY), by_ip)

    def texts(self, keys: NDArray[np.uint64]) -> pa.Array:
        """Return the name of each device, or its address: a column of type string without nulls."""
        return _texts(keys, lambda key: self.names.get(key) or _key_text(key))

    def source_names(
        self,
        devices: NDArray[np.uint64],
        sources: NDArray[np.uint32],
        known: Mask,
        macs: NDArray[np.uint64],
    ) -> pa.Array:
        """Return the names of sources in the inventory, which are those of `texts`; null for a source without a name.

        Args:
            devices: Key of the device of each window.
            sources: IPv4 address of the source.
            known: Whether that is known; else the source goes by its Ethernet address. So it does if that is the key
                of the device: other Ethernet addresses may be those of routers.
            macs: Ethernet address of the source.
        """
        if not self.names:
            return pa.nulls(len(devices), pa.string())
        by_mac = macs | np.uint64(_MAC_KEY)
        keys = np.where(known & (by_mac != devices), sources.astype(np.uint64), by_mac)
        return _texts(keys, self.names.get)


def ipv4_texts(addresses: NDArray[np.uint32]) -> pa.Array:
    """Return IPv4 addresses as a column of type string."""
    return _texts(addresses, _ipv4_text)


def mac_texts(addresses: NDArray[np.uint64]) -> pa.Array:
    """Return Ethernet addresses such as aa:bb:cc:dd:ee:ff as a column of type string; 0 is no address: null."""
    return _texts(addresses, lambda address: _mac_text(address) if address else None)


def _texts(values: NDArray[Any], text: Callable[[int], str | None]) -> pa.Array:
    encoded = pa.array(values).dictionary_encode()  # the text of each distinct value is made once
    return pa.array([text(value) for value in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def _key_text(key: int) -> str:
    return _mac_text(key ^ _MAC_KEY) if key & _MAC_KEY else _ipv4_text(key)


def _ipv4_text(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _mac_text(number: int) -> str:
    digits = f"{number:012x}"
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _inside(addresses: NDArray[np.uint32], networks: Iterable[ipaddress.IPv4Network]) -> Mask:
    inside: Mask = np.zeros(len(addresses), dtype=np.bool_)
    for network in ipaddress.collapse_addresses(networks):
        inside |= addresses & np.uint32(int(network.netmask)) == np.uint32(int(network.network_address))
    return inside


def _is_host(addresses: NDArray[np.uint32], networks: Iterable[ipaddress.IPv4Network]) -> Mask:
    host: Mask = (addresses != 0) & (addresses != _BROADCAST) & (addresses & _MULTICAST[0] != _MULTICAST[1])
    for network in networks:
        if network.prefixlen <= _LONGEST_WITH_BROADCAST:
            host &= addresses != np.uint32(int(network.broadcast_address))
    return host


_LONGEST_WITH_BROADCAST: Final = 30  # RFC 3021: /31 has no broadcast address


def read_inventory(uri: str, by_mac: bool) -> dict[int, str]:
    """Return the name of each device by its key (see `Devices`) from a CSV file with the columns address and device.

    Columns may be in any order and case, and separated by commas, semicolons or tabs, as spreadsheets write them. An
    address is IPv4, or MAC with colons, hyphens, dots or neither. Addresses of one name are devices each.

    Raises:
        InventoryRefused: the file cannot be read, lacks a column or has others; lines have faults (no address, no name,
            an address with two names); no address is of the kind by which devices are known.
    """
    names: dict[int, str] = {}
    lines: dict[int, int] = {}
    faults = []
    for number, address, name in _cells(uri):
        key = _key(address)
        if key is None:
            faults.append(f"line {number}: {printable(address)!r} is no IPv4 address and no MAC address")
        elif not name or not name.isprintable():
            faults.append(f"line {number}: expected the name of device {address}, found {printable(name)!r}")
        elif names.setdefault(key, name) != name:
            faults.append(
                f"line {number}: {address} is {printable(name)!r}, in line {lines[key]} {printable(names[key])!r}"
            )
        else:
            lines.setdefault(key, number)
    if faults:
        raise InventoryRefused(f"{uri}: {shown(faults)}; correct or remove these lines")
    if not names:
        raise InventoryRefused(f"{uri} names no device; {_EXPECTED}, one address in each line")
    if not any(bool(key & _MAC_KEY) == by_mac for key in names):
        other, needed, setting = ("IPv4", "MAC", "ip") if by_mac else ("MAC", "IPv4", "mac")
        raise InventoryRefused(
            f"{uri} has {other} addresses only, but devices are known by their {needed} address; set"
            f" extract.device={setting}, or add {needed} addresses"
        )
    return names


def _key(address: str) -> int | None:
    lower = address.lower()
    if _MAC.fullmatch(lower):
        return int(re.sub("[:.-]", "", lower), 16) | _MAC_KEY
    try:
        return int(ipaddress.IPv4Address(address))
    except ValueError:
        return None


def _cells(uri: str) -> Iterable[tuple[int, str, str]]:
    """Return number, address and name of each line below the header that is not blank."""
    text = _text(uri)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise InventoryRefused(f"{uri} line {reader.line_num}: not CSV ({error}); {_EXPECTED}") from error
    header = [name.casefold() for name in rows[0][1]] if rows else []
    while header and not header[-1]:  # separators at the end of each line
        header.pop()
    if sorted(header) != sorted(COLUMNS):
        found = f"has the columns {shown(header)}" if header else "is empty"
        raise InventoryRefused(f"{uri} {found}; {_EXPECTED}, and no others")
    places = [header.index(name) for name in COLUMNS]
    for number, row in rows[1:]:
        if any(row[len(header) :]):
            raise InventoryRefused(
                f"{uri} line {number}: found {len(row)} cells, expected 2; put a name with a {separator!r} in quotes"
            )
        address, name = ((row[place] if place < len(row) else "") for place in places)
        yield number, address, name


def _text(uri: str) -> str:
    try:
        content = read_bytes(uri)
    except OSError as error:
        raise InventoryRefused(f"{uri}: {error.strerror or one_line(error)}; {_EXPECTED}") from error
    if len(content) > _MOST_BYTES:
        raise InventoryRefused(f"{uri}: found {len(content):,} bytes, expected at most {_MOST_BYTES:,}; {_EXPECTED}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InventoryRefused(f"{uri} line {line}: no UTF-8; {_EXPECTED}; save it as UTF-8") from error
