"""Order of incidents and the most lines, on incidents by hand. All of them are synthetic."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ids_spark.alerts.incidents import WEIGHTS
from ids_spark.alerts.ranking import not_shown, rank
from ids_spark.alerts.severity import SEVERITIES
from ids_spark.dataset.tables import INCIDENTS


def table(*rows: tuple[str, str, float, str]) -> pa.Table:
    """Incidents by severity, category, posterior and state."""
    made = [
        {
            "incident_id": f"{i:032x}", "severity": severity, "category": category, "posterior": posterior,
            "score": WEIGHTS[severity] * posterior, "state": state, "log10_p": -9.0, "flows": 10,
            "lead_entity": f"e{i % 3}", "shown": True,
        }
        for i, (severity, category, posterior, state) in enumerate(rows)
    ]  # fmt: skip
    return pa.Table.from_pylist(made, schema=INCIDENTS)


def test_the_order_is_the_score_and_folded_incidents_have_no_rank() -> None:
    found = rank(
        table(
            ("low", "Recon", 1.0, "open"), ("critical", "MQTT", 0.05, "open"), ("high", "DoS", 0.9, "muted"),
            ("medium", "Recon", 0.9, "open"),
        ),
        50,
    ).to_pylist()  # fmt: skip
    assert [(row["severity"], row["rank"], row["shown"]) for row in found] == [
        ("medium", 1, True), ("low", 2, True), ("critical", 3, True), ("high", None, False),
    ]  # fmt: skip


def test_lines_are_reserved_for_the_first_of_each_severity_and_category() -> None:
    many = [("critical", "MQTT", 1.0, "open")] * 60
    found = rank(table(*many, ("high", "Spoofing", 0.9, "open"), ("low", "Recon", 0.5, "open")), 10)
    shown = found.filter(found["shown"])
    assert [row["severity"] for row in shown.to_pylist()] == ["critical"] * 8 + ["high", "low"]
    assert sum(row["incidents"] for row in not_shown(found)) == 52
    assert {row["category"] for row in not_shown(found)} == {"MQTT"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SEVERITIES), st.sampled_from(["MQTT", "Recon"]), st.floats(0, 1),
            st.sampled_from(["open", "muted", "learned", "closed"]),
        ),
        max_size=30,
    ),
    st.integers(1, 12),
)  # fmt: skip
def test_nothing_is_lost_and_no_more_than_the_most_lines_are_shown(rows: list, most: int) -> None:
    found = rank(table(*rows), most)
    states = [row[3] for row in rows]
    assert len(found) == len(rows)
    shown = sum(found["shown"].to_pylist())
    assert shown == min(most, states.count("open"))
    assert sum(row["incidents"] for row in not_shown(found)) == states.count("open") - shown
    assert [r for r in found["rank"].to_pylist() if r is not None] == list(range(1, states.count("open") + 1))
