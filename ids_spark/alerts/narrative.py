"""An incident in three sentences: who against whom, what and when; how much; what would make it harmless.

Every number in them is a figure of the incident's row, rounded; names are shortened.
"""

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any, Final

from ids_spark.base.logs import printable
from ids_spark.dataset.taxonomy import QUARANTINED, UNKNOWN

Incident = Mapping[str, Any]
"""A row of `tables.INCIDENTS`."""
MAC_COLUMNS: Final = ("src_mac", "source_mac", "dst_mac", "destination_mac")
"""Kinds of entities that are Ethernet addresses."""

_NAMED: Final = 3  # entities and classes that a sentence names
_LONGEST_NAME: Final = 48
_MAIN_SHARE: Final = 0.9  # of the flows; the rest are mostly false alarms of the same devices
_FEW: Final = 0.01  # flows; fewer are written as a word
_RARE: Final = 1e-6
_LOAD: Final = (
    "{who} sent a load test, a backup or a software rollout",
    "{who} are known clients that sent a load test, backups or a software rollout",
    "a load test, a backup or a software rollout reached {whom}",
)
_CAUSES: Final[Mapping[str, tuple[str, str, str]]] = {
    "DDoS": _LOAD,
    "DoS": _LOAD,
    "MQTT": (
        "{who} is a known client that tested the broker or reconnected after an interruption",
        "{who} are known clients that tested the broker or reconnected after an interruption",
        "known clients tested the broker or reconnected after an interruption",
    ),
    "Recon": (
        "{who} is an authorised scanner or inventory",
        "{who} are authorised scanners or inventories",
        "an authorised scanner or inventory reached {whom}",
    ),
    "Spoofing": ("addresses of {whom} moved to another device, as after a replacement or a failover",) * 3,
    QUARANTINED: ("the exporter of the flow logs writes faulty values for {whom}",) * 3,
    UNKNOWN: ("{whom} got new software, settings or tasks",) * 3,
}
"""Harmless causes of each category, of one source, of several, and without a known source."""
_ANY_CAUSE: Final = (
    "{who} is meant to send this traffic",
    "{who} are meant to send it",
    "{whom} is meant to receive it",
)


def sentences(incident: Incident) -> tuple[str, str, str]:
    """Return three sentences: who against whom, what, when; how much; what would make it harmless.

    Args:
        incident: A row of `tables.INCIDENTS`; times are in UTC, any figure and list may be null.
    """
    return _what(incident), _how_much(incident), _harmless(incident)


def title(incident: Incident) -> str:
    """Return what, who and whom in a few words, such as `Recon-Port_Scan: 198.51.100.23 against 6 devices`."""
    classes = [str(each["class_name"]) for each in incident["classes"] or ()]
    return f"{classes[0] if classes else incident['category']}: {attackers(incident)} against {victims(incident)}"


def attackers(incident: Incident) -> str:
    """Return the source, see `main_of`, the number of sources, or `an unknown source`."""
    return _entities(incident, "sources", "source")


def victims(incident: Incident) -> str:
    """Return the device, the number of devices, or `an unknown device`; a source file for flows without a device.

    A device that is itself the source attacks others: the address that its flows go to, `several targets`, or `an
    unknown target`.
    """
    if attacks_others(incident):
        targets = list(incident.get("targets") or ())
        return short_name(targets[0]) if len(targets) == 1 else "several targets" if targets else "an unknown target"
    kinds = {each["kind"] for each in incident["devices"] or ()}
    noun = "source file" if kinds == {"source_file"} else "device"
    return _entities(incident, "devices", noun)


def explained(incident: Incident) -> str:
    """Return how many of the flagged flows of the most significant alert false alarms explain, as text."""
    expected = incident["lead_expected"]
    if expected is None or math.isnan(expected):
        return "an unknown number"
    return number(expected) if expected >= _FEW else "almost none"


def main_of(incident: Incident, column: str) -> Mapping[str, Any] | None:
    """Return the only entity of `sources` or `devices`, or that of at least nine tenths of the flows; else None."""
    entities = incident[column] or ()
    if not entities or (
        _count(incident, column) > 1 and (entities[0]["flows"] or 0) < _MAIN_SHARE * (incident["flows"] or math.inf)
    ):
        return None
    found: Mapping[str, Any] = entities[0]
    return found


def name_of(kind: str | None, name: object) -> str:
    """Return the `short_name` of an entity, after `MAC` if it is an Ethernet address or the pseudonym of one."""
    return f"MAC {short_name(name)}" if kind in MAC_COLUMNS else short_name(name)


def known_of(row: Mapping[str, Any]) -> str:
    """Return what the inventory says of an entity, as text; see `tables.INVENTORY`.

    Its name is part of it only if the flow logs name the entity by another one, such as its address.
    """
    parts = [
        row["device"] if row["device"] != row["name"] else None,
        row["type"],
        row["department"],
        "connected to a patient" if row["patient_connected"] else None,
        None if row["criticality"] is None else f"criticality {row['criticality']}",
        None if row["owner"] is None else f"owner {row['owner']}",
        None if row["maintenance"] is None else f"maintenance {row['maintenance']}",
    ]
    return ", ".join(printable(part) for part in parts if part)


def attacks_others(incident: Incident) -> bool:
    """Return whether the main device is the main source as well."""
    source, device = main_of(incident, "sources"), main_of(incident, "devices")
    return source is not None and device is not None and source["name"] == device["name"]


def short_name(name: object) -> str:
    """Return a name in one printable line of at most 48 characters."""
    text = printable(" ".join(str(name).split()))
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def number(value: float) -> str:
    """Return a figure with two significant digits, and all digits before the point: 1,234, 12, 0.34."""
    if not math.isfinite(value):
        return "an unknown number"
    return f"{value:,.0f}" if value == int(value) or value >= 10 else f"{value:.2g}"


def rate(value: float) -> str:
    """Return a share of flows: none, almost none, 0.012%, 34%."""
    if not value > _RARE:
        return "almost none" if value else "none"
    return f"{100 * value:.2g}%" if value < 0.1 else f"{100 * value:.0f}%"


def _is_refused(incident: Incident) -> bool:
    return bool(incident["category"] == QUARANTINED)


def _what(incident: Incident) -> str:
    who = attackers(incident) + _more(incident, "sources")
    whom = victims(incident) + ("" if attacks_others(incident) else _more(incident, "devices"))
    flows = _counted(incident["flows"], "quarantined flow" if _is_refused(incident) else "flagged flow")
    return f"{_capital(who)} against {whom}: {_classes(incident)}, {flows}, {_when(incident)}."


def _more(incident: Incident, column: str) -> str:
    """Return, of several sources or devices, some in parentheses."""
    main, count = main_of(incident, column), _count(incident, column)
    if count <= 1:
        return ""
    if main is not None:
        return f" ({main['flows']:,} flows; {count:,} {column} in all)"
    listed = ", ".join(name_of(each["kind"], each["name"]) for each in (incident[column] or ())[:_NAMED])
    if not listed:  # so many that their names are not stored
        return ""
    return f" ({listed})" if count <= _NAMED else f" (among them {listed})"


def _how_much(incident: Incident) -> str:
    window = incident["lead_window"]
    entity = incident["lead_entity"]
    name = "an unknown entity" if entity is None else name_of(incident["lead_kind"], entity)
    when = "without a time" if window is None else f"in the window from {window:%H:%M} UTC"
    flagged = "an unknown number" if incident["lead_flagged"] is None else f"{incident['lead_flagged']:,}"
    where = "in quarantine" if _is_refused(incident) else "flagged"
    were = f"{flagged} of {_counted(incident['lead_flows'], 'flow')} of {name} {when} were {where}"
    usual = "the usual share explains" if _is_refused(incident) else "false alarms explain"
    of_which = f"of which {usual} {explained(incident)}"
    return _capital(f"{were}, {of_which}; {_own(incident)}, {_peers(incident)}.")


def _own(incident: Incident) -> str:
    nights, own = incident["own_nights"], incident["own_rate"]
    if not (nights or incident.get("own_peers")) or own is None or math.isnan(own):
        return "no earlier night shows what share is usual for it"
    if peers := incident.get("own_peers"):
        own_nights = f", its own {_counted(nights, 'earlier night')} included" if nights else ""
        return f"the usual share of {_counted(peers, 'other device')} of its type is {rate(own)}{own_nights}"
    return f"its usual share is {rate(own)} ({_counted(nights, 'earlier night')})"


def _peers(incident: Incident) -> str:
    peers = incident["peer_rate"]
    if peers is None or math.isnan(peers):
        return "and that of all entities tonight is unknown"
    return f"and that of all entities tonight is {rate(peers)}"


def _harmless(incident: Incident) -> str:
    who, whom = _the(incident, "sources", attackers(incident)), _the(incident, "devices", victims(incident))
    one, several, none = _CAUSES.get(incident["category"], _ANY_CAUSE)
    cause = none
    if _count(incident, "sources"):
        cause = several if main_of(incident, "sources") is None else one
    return f"Harmless if {cause.format(who=who, whom=whom)}: then allow it, or give the verdict benign."


def _the(incident: Incident, column: str, text: str) -> str:
    """Return a number of entities with an article."""
    return f"the {text}" if _count(incident, column) and main_of(incident, column) is None else text


def _classes(incident: Incident) -> str:
    classes = incident["classes"] or ()
    if _is_refused(incident):
        return "flows with faulty values, which the model could not see as they are"
    if incident["category"] == UNKNOWN:
        return "traffic unlike benign training data and unlike every known attack"
    if len(classes) <= 1:  # it has all flows, which are stated anyway
        return str(classes[0]["class_name"] if classes else incident["category"])
    named = [f"{each['class_name']} ({number(each['flows'])})" for each in classes[:_NAMED]]
    return " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def _when(incident: Incident) -> str:
    first, last = incident["first_seen"], incident["last_seen"]
    if first is None or last is None:
        return "at an unknown time"
    begin, end = _minute(first), _minute(last)
    if begin == end:
        return f"on {begin:%Y-%m-%d} at {begin:%H:%M} UTC"
    until = f"{end:%H:%M}" if begin.date() == end.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"on {begin:%Y-%m-%d} from {begin:%H:%M} to {until} UTC"


def _minute(time: dt.datetime) -> dt.datetime:
    return time.replace(second=0, microsecond=0)


def _entities(incident: Incident, column: str, noun: str) -> str:
    """Return the name of the main entity, the number of several, or that there is none."""
    main = main_of(incident, column)
    if main is not None:
        return name_of(main["kind"], main["name"])
    count = _count(incident, column)
    return f"{count:,} {noun}s" if count else f"an unknown {noun}"


def _count(incident: Incident, column: str) -> int:
    return int(incident[f"{column}_found"] or len(incident[column] or ()))


def _counted(n: int | None, noun: str) -> str:
    return f"an unknown number of {noun}s" if n is None else f"{n:,} {noun}{'' if n == 1 else 's'}"


def _capital(text: str) -> str:
    """Return a text that begins with a word of ours with a capital letter; names are left as they are."""
    return text[:1].upper() + text[1:] if text.startswith("an ") else text
