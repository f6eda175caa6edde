"""Which end of a packet is the device, and addresses as text."""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Mask
from ids_spark.extract.packets import KINDS, Packets

MAC_KEY: Final = 1 << 48
"""Set in the key of a device that is an Ethernet address; without it the key is an IPv4 address."""
_GROUP: Final = 1 << 40
"""Set in Ethernet addresses of groups, and in the broadcast address (IEEE 802)."""
_BROADCAST: Final = (1 << 32) - 1
_MULTICAST: Final = (0xF0000000, 0xE0000000)  # 224.0.0.0/4 as mask and network
_ARP: Final = KINDS.index("arp")


@dataclass(frozen=True)
class Devices:
    """The device of each packet.

    A device is known by its key: its IPv4 address as a number, or 2**48 + its Ethernet address.

    Attributes:
        networks: IPv4 networks of devices, such as 10.0.0.0/8.
        by_mac: Whether devices are known by their Ethernet address.
        names: Name by key, from `inventory.Inventory.names`; other devices are called by their address.
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
        return np.where(mac != 0, mac | np.uint64(MAC_KEY), by_ip)

    def texts(self, keys: NDArray[np.uint64]) -> pa.Array:
        """Return the name of each device, or its address: a column of type string without nulls."""
        return _texts(keys, lambda key: self.names.get(key) or key_text(key))

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
        by_mac = macs | np.uint64(MAC_KEY)
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


def key_text(key: int) -> str:
    """Return the address of a device by its key, such as 10.20.0.5 or aa:bb:cc:dd:ee:ff."""
    return _mac_text(key ^ MAC_KEY) if key & MAC_KEY else _ipv4_text(key)


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
