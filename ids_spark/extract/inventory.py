"""The inventory of a site's devices: a CSV file with addresses, names and what else is known of them.

Columns, in any order and case; only the first two are required:

- `address`: IPv4 or MAC; `device`: its name. Addresses of one name are one device;
- `type`, `department`, `owner`: text;
- `patient_connected`: yes or no;
- `criticality`: 1 to 5, or low, medium and high for 1, 3 and 5;
- `maintenance`: times in UTC, several separated by `|`: `Sun 02:00-04:00` every week, `02:00-04:00` every day,
  `2026-11-27T22:00/2026-11-28T02:00` once.
"""

import csv
import datetime as dt
import hashlib
import io
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.base.text import one_line, shown
from ids_spark.extract.devices import MAC_KEY, key_text
from ids_spark.lake.filesystem import read_bytes

REQUIRED: Final = ("address", "device")
OPTIONAL: Final = ("type", "department", "patient_connected", "criticality", "owner", "maintenance")
_MAC: Final = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}|[0-9a-f]{12}")
_MOST_BYTES: Final = 64 << 20
_LONGEST: Final = 200  # characters of a text
_EXPECTED: Final = "expected CSV in UTF-8 with the columns address (IPv4 or MAC) and device"
_YES_NO: Final = {"yes": True, "y": True, "true": True, "1": True, "no": False, "n": False, "false": False, "0": False}
_CRITICALITY: Final = {**{str(n): n for n in range(1, 6)}, "low": 1, "medium": 3, "high": 5}
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_CLOCK: Final = r"([01]\d|2[0-3]):([0-5]\d)"
_WEEKLY: Final = re.compile(rf"(?:([a-z]{{3,9}})\s+)?{_CLOCK}\s*[-–]\s*(?:{_CLOCK}|24:00)")
_DAY: Final = dt.timedelta(days=1)


class InventoryRefused(InputError):
    """Raised when an inventory cannot be read, or a line of it has a fault."""

    quotes_identifiers = True


@dataclass(frozen=True)
class Maintenance:
    """Time in which a device is maintained, in UTC.

    Attributes:
        start, end: Once: its start and end. Else of a day: `start` counts from midnight of the day of `weekday`.
        weekday: 0 is Monday; -1 every day; None once.
        length: Of a time that comes again.
    """

    start: dt.datetime
    end: dt.datetime
    weekday: int | None = None

    def contains(self, first: dt.datetime, last: dt.datetime) -> bool:
        """Return whether both times, in UTC, are in one such time; its end is not part of it."""
        if self.weekday is None:
            return self.start <= first and last < self.end
        midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
        offset, length = self.start - _MIDNIGHT, self.end - self.start
        for day in (midnight, midnight - _DAY):  # of the day before, if it lasts over midnight
            start = day + offset
            if self.weekday in (-1, day.weekday()) and start <= first and last < start + length:
                return True
        return False


_MIDNIGHT: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Device:
    """A device of the inventory; None: unknown.

    Attributes:
        name: Its name.
        keys: Its addresses, see `devices.Devices`.
        type, department, owner: Text.
        patient_connected: Whether it is connected to a patient.
        criticality: 1 to 5.
        maintenance: As in the file.
        windows: The same as times.
    """

    name: str
    keys: tuple[int, ...]
    type: str | None = None
    department: str | None = None
    patient_connected: bool | None = None
    criticality: int | None = None
    owner: str | None = None
    maintenance: str | None = None
    windows: tuple[Maintenance, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """The devices of a site.

    Attributes:
        uri: The file.
        sha256: Of its content, in hex.
        devices: In order of the file.
        ignored: Columns that are not used.
    """

    uri: str
    sha256: str
    devices: tuple[Device, ...]
    ignored: tuple[str, ...] = ()

    def notes(self, name_of: Callable[[str], str] = str) -> list[str]:
        """Return notes for the audit.

        Args:
            name_of: Returns by which name a note calls a column.
        """
        if not self.ignored:
            return []
        names = shown([name_of(name) for name in self.ignored])
        return [f"{self.uri}: column(s) not used: {names}; known are {', '.join((*REQUIRED, *OPTIONAL))}"]

    def names(self, by_mac: bool) -> dict[int, str]:
        """Return the name of each device by its key (see `devices.Devices`).

        Raises:
            InventoryRefused: no address is of the kind by which devices are known.
        """
        names = {key: device.name for device in self.devices for key in device.keys}
        if not any(bool(key & MAC_KEY) == by_mac for key in names):
            other, needed, setting = ("IPv4", "MAC", "ip") if by_mac else ("MAC", "IPv4", "mac")
            raise InventoryRefused(
                f"{self.uri} has {other} addresses only, but devices are known by their {needed} address; set"
                f" extract.device={setting}, or add {needed} addresses"
            )
        return names


def read_inventory(uri: str) -> Inventory:
    """Return the devices of a CSV file; see above.

    Cells are separated by commas, semicolons or tabs, as spreadsheets write them. An address is IPv4, or MAC with
    colons, hyphens, dots or neither.

    Raises:
        InventoryRefused: the file cannot be read, lacks a column or has one twice; lines have faults (no address, no
            name, an address with two names, a device with two types, a value that is not understood).
    """
    content = _content(uri)
    header, lines = _cells(uri, content)
    found: dict[str, Device] = {}
    named: dict[int, tuple[str, int]] = {}
    said: dict[tuple[str, str], tuple[Any, int]] = {}
    faults: list[str] = []
    for number, cells in lines:
        try:
            device = _device(cells)
            for key in device.keys:
                name, line = named.setdefault(key, (device.name, number))
                if name != device.name:
                    address = printable(cells["address"])
                    raise ValueError(f"{address} is {printable(device.name)!r}, in line {line} {printable(name)!r}")
            found[device.name] = _together(found.get(device.name), device, number, said)
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    if faults:
        raise InventoryRefused(f"{uri}: {shown(faults)}; correct or remove these lines")
    if not found:
        raise InventoryRefused(f"{uri} names no device; {_EXPECTED}, one address in each line")
    ignored = tuple(name for name in header if name and name not in (*REQUIRED, *OPTIONAL))
    return Inventory(uri, hashlib.sha256(content).hexdigest(), tuple(found.values()), ignored)


def _device(cells: Mapping[str, str]) -> Device:
    """Return the device of a line.

    Raises:
        ValueError: what was found and expected.
    """
    address, name = cells["address"], cells["device"]
    key = _key(address)
    if key is None:
        raise ValueError(f"{printable(address)!r} is no IPv4 address and no MAC address")
    if not name or not name.isprintable() or len(name) > _LONGEST:
        raise ValueError(
            f"expected the name of device {address}, found {printable(name[:_LONGEST])!r}; at most {_LONGEST} printable"
            " characters"
        )
    texts = {column: cells.get(column) or None for column in OPTIONAL}
    for column, text in texts.items():
        if text is not None and (len(text) > _LONGEST or not text.isprintable()):
            found = printable(text[:_LONGEST])
            raise ValueError(f"{column}: expected at most {_LONGEST} printable characters, found {found!r}")
    connected, criticality, maintenance = (texts[name] for name in ("patient_connected", "criticality", "maintenance"))
    return Device(
        name,
        (key,),
        texts["type"],
        texts["department"],
        _one_of("patient_connected", connected, _YES_NO, "yes or no"),
        _one_of("criticality", criticality, _CRITICALITY, "1 to 5, or low, medium, high"),
        texts["owner"],
        maintenance,
        tuple(_window(part.strip()) for part in (maintenance or "").split("|") if part.strip()),
    )


def _one_of(column: str, text: str | None, known: Mapping[str, Any], expected: str) -> Any:
    if text is None:
        return None
    if text.casefold() not in known:
        raise ValueError(f"{column}: expected {expected}, found {printable(text)!r}")
    return known[text.casefold()]


def _window(text: str) -> Maintenance:
    weekly = _WEEKLY.fullmatch(text.casefold())
    try:
        if weekly is None:
            start, end = (_moment(part) for part in text.split("/"))
            if end <= start:
                raise ValueError
            return Maintenance(start, end)
        day = -1 if weekly[1] is None else [weekly[1] in (name, name[:3]) for name in _DAYS].index(True)
        if weekly.group(2, 3) == weekly.group(4, 5):  # a minute, or a day?
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(
            f"maintenance: expected times in UTC such as Sun 02:00-04:00 or 2026-11-27T22:00/2026-11-28T02:00, several"
            f" separated by |; found {printable(text)!r}"
        ) from None
    start = _MIDNIGHT + dt.timedelta(hours=int(weekly[2]), minutes=int(weekly[3]))
    end = _MIDNIGHT + (_DAY if weekly[4] is None else dt.timedelta(hours=int(weekly[4]), minutes=int(weekly[5])))
    return Maintenance(start, end if end > start else end + _DAY, day)


def _moment(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text.strip())
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)


def _together(known: Device | None, device: Device, line: int, said: dict[tuple[str, str], tuple[Any, int]]) -> Device:
    """Return a device with what another line says of it.

    Args:
        known: From earlier lines.
        device: From this line.
        line: Its number.
        said: Value and line by device and column, of all lines so far; this line's are added.

    Raises:
        ValueError: the lines contradict each other.
    """
    for column in OPTIONAL:
        value = getattr(device, column)
        if value is None:
            continue
        first, where = said.setdefault((device.name, column), (value, line))
        if first != value:
            raise ValueError(f"{column} of {device.name} is {value}, in line {where} {first}; expected one")
    if known is None:
        return device
    changes = {name: getattr(device, name) for name in OPTIONAL if getattr(device, name) is not None}
    keys = tuple(dict.fromkeys((*known.keys, *device.keys)))
    return replace(known, keys=keys, windows=known.windows or device.windows, **changes)


def spellings(key: int) -> list[str]:
    """Return the ways to write the address with this key: one of IPv4; of MAC with any separator, in either case."""
    text = key_text(key)
    if not key & MAC_KEY:
        return [text]
    digits = text.replace(":", "")
    lower = [text, text.replace(":", "-"), digits, ".".join(digits[i : i + 4] for i in (0, 4, 8))]
    return [*lower, *(each.upper() for each in lower)]


def _key(address: str) -> int | None:
    lower = address.lower()
    if _MAC.fullmatch(lower):
        return int(re.sub("[:.-]", "", lower), 16) | MAC_KEY
    try:
        return int(ipaddress.IPv4Address(address))
    except ValueError:
        return None


def _cells(uri: str, content: bytes) -> tuple[list[str], Iterable[tuple[int, dict[str, str]]]]:
    """Return the header, and number and cells by column of each line below it that is not blank."""
    text = _text(uri, content)
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
    twice = {name for name in header if name and header.count(name) > 1}
    if twice or not set(REQUIRED) <= set(header):
        found = f"has the columns {shown(header)}" if header else "is empty"
        raise InventoryRefused(f"{uri} {found}; {_EXPECTED}, each once")
    for number, row in rows[1:]:
        if any(row[len(header) :]):
            raise InventoryRefused(
                f"{uri} line {number}: found {len(row)} cells, expected {len(header)}; put a name with a {separator!r}"
                " in quotes"
            )
    return header, [(number, dict(zip(header, [*row, *[""] * len(header)], strict=False))) for number, row in rows[1:]]


def _content(uri: str) -> bytes:
    try:
        return read_bytes(uri, _MOST_BYTES)
    except OSError as error:
        raise InventoryRefused(f"{uri}: {error.strerror or one_line(error)}; {_EXPECTED}") from error


def _text(uri: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InventoryRefused(f"{uri} line {line}: no UTF-8; {_EXPECTED}; save it as UTF-8") from error
