"""The three sentences of an incident. Every incident here is synthetic."""

import datetime as dt
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from ids_spark.alerts import narrative
from tests.support import incidents

NIGHT: list[dict[str, Any]] = [
    incidents.flood(),
    incidents.arp(),
    incidents.port_scan(),
    incidents.unknown(),
    incidents.timeless(),
    *incidents.folded(),
    *incidents.varied(incidents.hostile_names()),
]


def figures(value: Any) -> Iterator[float]:
    """Every number of a row, also those of its dates and times, and shares in per cent."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from figures(item)
    elif isinstance(value, dt.datetime):
        yield from (value.year, value.month, value.day, value.hour, value.minute)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield from (value, 100 * value)


def names(incident: dict[str, Any]) -> list[str]:
    """Names of a row as sentences write them, longest first."""
    entities = [*(incident["sources"] or ()), *(incident["devices"] or ())]
    found = [each["name"] for each in entities] + [each["class_name"] for each in incident["classes"] or ()]
    return sorted({narrative.short_name(name) for name in (*found, incident["lead_entity"])}, key=len, reverse=True)


@pytest.mark.parametrize("incident", NIGHT)
def test_every_number_is_a_figure_of_the_row(incident: dict[str, Any]) -> None:
    found = narrative.sentences(incident)
    assert len(found) == 3
    stored = list(figures(incident))
    for sentence in found:
        text = sentence
        for name in names(incident):
            text = text.replace(name, "NAME")
        assert sentence.endswith(".")
        assert sentence.isprintable()
        assert len(sentence) < 900
        for written in re.findall(r"\d[\d,]*(?:\.\d+)?", text):
            value = float(written.replace(",", ""))
            assert any(math.isclose(value, each, rel_tol=0.05) for each in stored), (written, sentence)


def test_who_against_whom_and_when() -> None:
    what = {
        name: narrative.sentences(getattr(incidents, name)())[0] for name in ("flood", "port_scan", "arp", "timeless")
    }
    assert what["port_scan"] == (
        "198.51.100.23 against 6 devices (among them infusion-pump-01, infusion-pump-02, infusion-pump-03):"
        " Recon-Port_Scan (242) and Recon-OS_Scan (49), 291 flagged flows, on 2026-07-14 from 02:14 to 02:58 UTC."
    )
    assert what["flood"].startswith("5,000 sources (among them 203.0.0.0, 203.0.0.1, 203.0.0.2) against ct-scanner-2: ")
    assert "2 devices (bedside-monitor-12, bedside-monitor-4)" in what["arp"]
    assert what["timeless"].startswith("An unknown source against ward-3-gateway: Recon-Ping_Sweep, 9 flagged flows")
    assert "unknown time" in what["timeless"]
    file = incidents.incident(1, "low", {"DoS-TCP": 1}, {}, {"a.csv": 1}, incidents.at(23, 59))
    file |= {"devices": [{"kind": "source_file", "name": "a.csv", "flows": 1}]}
    assert narrative.title(file) == "DoS-TCP: an unknown source against a.csv"
    assert "from 23:59 to 2026-07-15 00:43 UTC" in narrative.sentences(file)[0]


def test_a_source_of_nine_tenths_of_the_flows_is_named_alone() -> None:
    row = incidents.incident(1, "low", {"Recon-Port_Scan": 100}, {"198.51.100.23": 90, "10.0.0.9": 10}, {"pump": 100})
    assert narrative.title(row) == "Recon-Port_Scan: 198.51.100.23 against pump"
    what, _, harmless = narrative.sentences(row)
    assert what.startswith("198.51.100.23 (90 flows; 2 sources in all) against pump: ")
    assert "198.51.100.23 is an authorised scanner" in harmless
    row["sources"][0]["flows"] = 89
    assert narrative.main_of(row, "sources") is None
    assert narrative.title(row) == "Recon-Port_Scan: 2 sources against pump"
    assert narrative.main_of(row | {"devices": None}, "devices") is None


def test_sources_that_are_too_many_to_be_named_are_counted() -> None:
    row = incidents.flood() | {"sources": [], "sources_found": 40_000}
    assert narrative.title(row) == "DDoS-SYN: 40,000 sources against ct-scanner-2"
    what, _, harmless = narrative.sentences(row)
    assert what.startswith("40,000 sources against ct-scanner-2: ")
    assert "the 40,000 sources are known clients" in harmless


def test_how_much_against_history_and_peers() -> None:
    assert narrative.sentences(incidents.port_scan())[1] == (
        "51 of 60 flows of infusion-pump-01 in the window from 02:00 UTC were flagged, of which false alarms explain"
        " 0.62; its usual share is 0.21% (6 earlier nights), and that of all entities tonight is 1.1%."
    )
    assert "no earlier night" in narrative.sentences(incidents.unknown())[1]
    alone = narrative.sentences(incidents.timeless())[1]
    for text in ("without a time", "explain almost none", "tonight is unknown"):
        assert text in alone


def test_what_would_make_it_harmless_depends_on_category_and_on_who_is_known() -> None:
    found = [narrative.sentences(each)[2] for each in NIGHT[:5]]
    assert "the 5,000 sources are known clients" in found[0]
    assert "addresses of the 2 devices moved" in found[1]
    assert "198.51.100.23 is an authorised scanner" in found[2]
    assert "ventilator-9 got new software" in found[3]
    assert "scanner or inventory reached ward-3-gateway" in found[4]
    assert all("allow it, or give the verdict benign" in text for text in found)


def test_a_device_that_is_the_source_attacks_an_unknown_target() -> None:
    row = incidents.port_scan() | {"devices": [{"kind": "device_id", "name": "198.51.100.23", "flows": 291}]}
    for found in (1, 2):
        assert (
            narrative.title(row | {"devices_found": found})
            == "Recon-Port_Scan: 198.51.100.23 against an unknown target"
        )
        what, _, harmless = narrative.sentences(row | {"devices_found": found})
        assert what.startswith("198.51.100.23 against an unknown target: ")
        assert "198.51.100.23 is an authorised scanner" in harmless


def test_a_device_that_is_the_source_attacks_the_address_that_its_flows_go_to() -> None:
    row = incidents.port_scan() | {"devices": [{"kind": "device_id", "name": "198.51.100.23", "flows": 291}]}
    row |= {"devices_found": 1}
    assert narrative.victims(row | {"targets": ["203.0.113.9"]}) == "203.0.113.9"
    assert narrative.victims(row | {"targets": ["203.0.113.9", "203.0.113.10"]}) == "several targets"
    assert narrative.victims(incidents.port_scan() | {"targets": ["192.0.2.1"]}) == "6 devices"


def test_an_ethernet_address_and_its_pseudonym_are_called_mac() -> None:
    row = incidents.arp() | {"sources": [{"kind": "src_mac", "name": "00:00:5e:00:53:23", "flows": 96}]}
    row |= {"lead_kind": "src_mac", "lead_entity": "3f2a"}
    assert narrative.title(row) == "ARP_Spoofing: MAC 00:00:5e:00:53:23 against 2 devices"
    what, how_much, _ = narrative.sentences(row)
    assert what.startswith("MAC 00:00:5e:00:53:23 against 2 devices")
    assert "flows of MAC 3f2a in" in how_much


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "none"), (3e-9, "almost none"), (0.00012, "0.012%"), (0.0114, "1.1%"), (0.342, "34%")]
)
def test_rates_are_short(share: float, text: str) -> None:
    assert narrative.rate(share) == text


def test_the_usual_share_of_a_device_with_few_nights_is_that_of_its_type():
    assert (
        "usual share of 3 other devices of its type is 0.21%"
        in narrative.sentences(incidents.port_scan() | {"own_peers": 3, "own_nights": 0})[1]
    )


def test_an_incident_of_quarantined_flows_speaks_of_no_flag_and_no_false_alarm() -> None:
    incident = {**incidents.unknown(), "category": "Quarantined"}
    incident["classes"] = [{**incident["classes"][0], "class_name": "Quarantined"}]
    text = " ".join(narrative.sentences(incident))
    assert "31 quarantined flows" in text
    assert "were in quarantine, of which the usual share explains" in text
    assert "exporter" in text
    assert "flagged" not in text
    assert "false alarms" not in text
