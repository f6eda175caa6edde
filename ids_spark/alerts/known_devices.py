"""What the inventory says of the devices and sources of a night.

An entity is looked up by name or address; where its column is pseudonymised, by the pseudonyms of these, which the
driver computes. The name of such a device, its owner and its addresses are not stored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts.evidence import FILE_KIND, Entities, entity_keys
from ids_spark.alerts.pseudonyms import Pseudonyms
from ids_spark.base.arrays import Mask
from ids_spark.extract.inventory import Device, Inventory, spellings

USUAL_CRITICALITY: Final = 3
HIGHEST_CRITICALITY: Final = 5
Row = Mapping[str, Any]


@dataclass(frozen=True)
class KnownDevices:
    """The devices of the inventory by the names that entities may have.

    Attributes:
        devices: Of the inventory.
        plain: Index of the device by name and address.
        hashed: By the pseudonyms of these.
        pseudonymised: Kinds of entities whose names are pseudonyms.
    """

    devices: tuple[Device, ...] = ()
    plain: Mapping[str, int] = field(default_factory=dict)
    hashed: Mapping[str, int] = field(default_factory=dict)
    pseudonymised: frozenset[str] = frozenset()

    def find(self, kind: str | None, name: str | None) -> Device | None:
        """Return the device of an entity; None if the inventory lacks it."""
        at = (self.hashed if kind in self.pseudonymised else self.plain).get(name or "")
        return None if at is None else self.devices[at]

    def row(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return what the tables say of an entity, as `tables.INVENTORY`; None if the inventory lacks it."""
        device = self.find(kind, name)
        if device is None:
            return None
        hidden = kind in self.pseudonymised
        return {
            "kind": kind,
            "name": name,
            "device": None if hidden else device.name,
            "type": device.type,
            "department": device.department,
            "patient_connected": device.patient_connected,
            "criticality": device.criticality,
            "owner": None if hidden else device.owner,
            "maintenance": device.maintenance,
        }

    def rows(self, entities: Iterable[Row]) -> list[dict[str, Any]]:
        """Return `row` of each entity that the inventory has, each once."""
        found = {(each["kind"], each["name"]): self.row(each["kind"], each["name"]) for each in entities}
        return [row for row in found.values() if row is not None]

    def factor(self, devices: Iterable[Row], sources: Iterable[Row]) -> float:
        """Return the factor of the score of an incident: that of its most critical device or source.

        A device that the inventory lacks has the factor 1, a source that it lacks has none.
        """
        factors = [1.0 if device is None else factor_of(device) for device in self._found(devices)]
        factors += [factor_of(source) for source in self._found(sources) if source is not None]
        return max(factors, default=1.0)

    def in_maintenance(self, evidence: pa.Table) -> Mask:
        """Return which rows of the evidence are in a time of maintenance of their device or source, from first to last.

        Args:
            evidence: As `tables.EVIDENCE`; rows without a time are in none.
        """
        found = np.zeros(len(evidence), dtype=np.bool_)
        if not any(device.windows for device in self.devices):
            return found
        names = ("device_kind", "device", "source_kind", "source", "first_seen", "last_seen")
        for i, (*entities, first, last) in enumerate(zip(*(evidence[n].to_pylist() for n in names), strict=True)):
            for device in (self.find(*entities[:2]), self.find(*entities[2:])):
                if device is not None and first is not None and last is not None:
                    found[i] |= any(window.contains(first, last) for window in device.windows)
        return found

    def types(self, kinds: Sequence[str]) -> dict[int, str]:
        """Return the type of each device that has one, by its key `evidence.entity_keys` as each of some kinds."""
        found: dict[int, str] = {}
        for kind in kinds:
            names = self.hashed if kind in self.pseudonymised else self.plain
            keys = entity_keys([kind] * len(names), list(names)).tolist()
            of = ((key, self.devices[at].type) for key, at in zip(keys, names.values(), strict=True))
            found |= {key: kind_of_device for key, kind_of_device in of if kind_of_device is not None}
        return found

    def unknown(self, entities: Entities) -> dict[tuple[str, str], int]:
        """Return the flows of each device that the inventory lacks, by kind and name; files are no devices."""
        counts = np.bincount(entities.codes[entities.codes >= 0], minlength=len(entities.names))
        at = np.flatnonzero(counts)
        kinds, names = (column.take(pa.array(at)).to_pylist() for column in (entities.kinds, entities.names))
        found: dict[tuple[str, str], int] = {}
        for kind, name, flows in zip(kinds, names, counts[at].tolist(), strict=True):
            if kind != FILE_KIND and self.find(kind, name) is None:
                found[kind, name] = found.get((kind, name), 0) + flows
        return found

    def _found(self, entities: Iterable[Row]) -> list[Device | None]:
        return [self.find(each["kind"], each["name"]) for each in entities if each["kind"] != FILE_KIND]


def known_devices(
    inventory: Inventory | None, pseudonymised: Iterable[str] = (), pseudonyms: Pseudonyms | None = None
) -> KnownDevices:
    """Return the devices of an inventory by every name and spelling of an address that flow logs may have.

    Args:
        inventory: The inventory; None: no device is known.
        pseudonymised: Columns whose values are pseudonyms.
        pseudonyms: Their key.
    """
    if inventory is None:
        return KnownDevices()
    plain: dict[str, int] = {}
    for i, device in enumerate(inventory.devices):
        plain[device.name] = i
    for i, device in enumerate(inventory.devices):  # a name of one device may be the address of another: names first
        for key in device.keys:
            for text in spellings(key):
                plain.setdefault(text, i)
    hashed: dict[str, int] = {}
    if pseudonyms is not None:
        texts = pseudonyms.pseudonymised(pa.array(list(plain), pa.string())).to_pylist()
        hashed = dict(zip(texts, plain.values(), strict=True))
    return KnownDevices(inventory.devices, plain, hashed, frozenset(pseudonymised if pseudonyms is not None else ()))


def factor_of(device: Device) -> float:
    """Return the factor of the score of incidents of a device: from 0.5 for criticality 1 by √2 each to 2 for 5.

    Without a criticality it is 3; a device that is connected to a patient counts as one more, at most 5.
    """
    criticality = USUAL_CRITICALITY if device.criticality is None else device.criticality
    if device.patient_connected:
        criticality = min(criticality + 1, HIGHEST_CRITICALITY)
    return float(2.0 ** ((criticality - USUAL_CRITICALITY) / 2))
