"""The page of an adaptation: both models, the decision, what was left out."""

from dataclasses import replace

from ids_spark.report.adaptation_page import Adaptation, Flagged, Learned, LeftOut, ModelFigures, render_page, summary
from tests.support.browser import Page

NIGHTS = ("2026-11-26", "2026-11-27")


def _adaptation(**changes: object) -> Adaptation:
    before = {(date, f"pump-{i}"): Flagged(1_000, 10 + 100 * i) for date in NIGHTS for i in range(3)}
    after = {key: Flagged(1_000, 5) for key in before}
    recall = {"Recon-Port_Scan": Flagged(400, 396), "ARP_Spoofing": Flagged(200, 100)}
    content: dict[str, object] = {
        "model": "gru_dnn-19-operational",
        "run_id": "20261128T120000Z-12345678",
        "data_origin": "measured",
        "champion": ModelFigures(
            "v1",
            "The threshold is the laboratory's.",
            before,
            recall,
            {**recall, "ARP_Spoofing": Flagged(200, 120)},
            0.777,
        ),
        "challenger": ModelFigures("v2", "The threshold rests on local flows.", after, recall, recall, 0.775),
        "budget": "at one threshold",
        "learned": Learned(12_000, 9_000, 2_000, ["2026-11-20", "2026-11-25"], NIGHTS, "date", 3, {"duplicates": 990}),
        "left_out": [LeftOut("incident", "2026-11-25", "pump-<1>", "Recon-Port_Scan", 10)],
        "refusals": [],
        "seconds": {"training": 12.0},
    }
    return Adaptation(**(content | changes))  # type: ignore[arg-type]


def test_shares_are_summed_over_nights_and_devices() -> None:
    adaptation = _adaptation()
    assert adaptation.champion.total == Flagged(6_000, 2 * (10 + 110 + 210))
    assert adaptation.dates[0] == (NIGHTS[0], Flagged(3_000, 330), Flagged(3_000, 15))
    assert [name for name, *_ in adaptation.devices] == ["pump-2", "pump-1", "pump-0"]  # most flags saved first


def test_the_page_states_decision_shares_and_what_was_left_out() -> None:
    page = Page(render_page(_adaptation()))
    assert "may replace the champion" in page.text("decision")
    assert "make promote NIGHT=gru_dnn-19-operational VERSION=v2" in page.text("decision")
    assert "11.0% before, 0.5% after" in page.text("false-alarms")
    assert ["incident", "2026-11-25", "pump-<1>", "Recon-Port_Scan", "10"] in page.rows  # names are escaped
    assert ["ARP_Spoofing", "200", "50.0%", "50.0%"] in page.rows
    assert ["ARP_Spoofing", "200", "60.0%", "50.0%"] in page.rows  # at the own thresholds
    refused = Page(render_page(_adaptation(refusals=["ARP_Spoofing fell from 50% to 30%."]))).text("decision")
    assert "the challenger is refused" in refused
    assert "ARP_Spoofing fell from 50% to 30%." in refused
    assert "make promote" not in refused


def test_the_lines_for_a_terminal_name_the_page_and_the_command() -> None:
    lines = summary(_adaptation(), "file:///lake/adaptation.html")
    assert lines[-1] == "page: file:///lake/adaptation.html"
    assert "make promote NIGHT=gru_dnn-19-operational VERSION=v2" in lines[-2]
    assert any("ARP_Spoofing" in line and line.count("50.0%") == 2 for line in lines)
    assert "refused: it fell" in summary(_adaptation(refusals=["it fell"]), "")[-2]


def test_names_from_data_are_text_and_nothing_else() -> None:
    name = "$\\frac{$ [red]\x1b[31m\u202e\n2026-11-28 INFO forged"
    figures = replace(_adaptation().champion, version=name, benign={(NIGHTS[0], name): Flagged(10, 1)})
    adaptation = _adaptation(champion=figures, challenger=figures, model=name)
    assert not {c for c in render_page(adaptation) if not c.isprintable()} - {"\n"}
    table = summary(adaptation, "")[:-3]  # the job escapes what it prints
    assert all(line.isprintable() for line in table)
    assert any("[red]\\x1b[31m\\u202e\\n2026" in line for line in table)
