"""Quality rules: violated and kept rules, and the result for the row."""

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.dataset.features import FEATURE_SCHEMAS, ORIGINAL_45, RELEASE_39
from ids_spark.ingest import quality
from ids_spark.ingest.rows import type_rows
from ids_spark.ingest.sources import RowGroup
from tests.support.flows import RunJob, synthetic_frame

ROW_GROUP = RowGroup("x", "x.csv", None, 0, 1, "Benign", "train")


def sound_flow(schema: str) -> dict[str, float]:
    """One flow that satisfies every rule: ten TCP packets of 60 bytes."""
    flow = dict.fromkeys(FEATURE_SCHEMAS[schema].features, 0.0)
    flow |= {"Protocol Type": 6.0, "TCP": 1.0, "IPv": 1.0, "LLC": 1.0, "Min": 60.0, "Max": 60.0, "AVG": 60.0}
    flow |= {"Tot size": 60.0, "Tot sum": 600.0, "Number": 10.0, "Rate": 5.0}
    return flow | ({"Srate": 5.0, "Duration": 64.0} if schema == "original45" else {"Time_To_Live": 64.0})


def broken(schema: str, **cells: float) -> dict[str, list[str]]:
    """Return the violated rules of one flow with the affected features."""
    flow = sound_flow(schema) | {name.replace("_s_", " "): value for name, value in cells.items()}
    columns = {name: np.array([value]) for name, value in flow.items()}
    return {rule.name: list(faults) for rule, faults in quality.check(columns, FEATURE_SCHEMAS[schema]).items()}


@pytest.mark.parametrize("schema", ["original45", "release39"])
@pytest.mark.parametrize(
    ("cells", "rules"),
    [
        ({}, {}),
        ({"IAT": -1e-7}, {"negative_time_between_packets": ["IAT"]}),
        ({"ack_count": -1.0}, {"negative": ["ack_count"]}),
        ({"syn_flag_number": 1.7}, {"share_out_of_range": ["syn_flag_number"]}),
        ({"HTTP": -0.1, "DNS": 2.0}, {"share_out_of_range": ["HTTP", "DNS"]}),
        ({"AVG": 61.0, "Tot_s_sum": 610.0}, {"average_length": ["AVG"]}),
        ({"ARP": 0.5, "TCP": 0.5, "Protocol_s_Type": 3.0}, {"ip_share": ["IPv"]}),
        ({"LLC": 0.5}, {"llc_share": ["LLC"]}),
        ({"UDP": 0.5}, {"transport_shares": ["TCP"]}),
    ],
)
def test_common_rules(schema: str, cells: dict[str, float], rules: dict[str, list[str]]) -> None:
    found = broken(schema, **cells)
    assert {name: faults for name, faults in found.items() if name != "protocol_mean"} == rules


def test_rules_of_the_first_release() -> None:
    assert broken("original45", Srate=4.0) == {"sending_rate": ["Srate"]}
    assert broken("original45", Drate=0.1) == {"receiving_rate": ["Drate"]}
    assert broken("original45", Duration=256.0) == {"time_to_live_out_of_range": ["Duration"]}
    assert broken("original45", Protocol_s_Type=300.0) == {
        "protocol_out_of_range": ["Protocol Type"],
        "protocol_mean": ["Protocol Type"],
    }


def test_rules_of_the_second_release() -> None:
    assert broken("release39", Std=2.0) == {"variance": ["Variance"]}
    assert broken("release39", Std=2.0, Variance=4.0) == {}
    assert broken("release39", Number=9.0) == {"total_length": ["Tot sum"]}


@pytest.mark.parametrize("schema", ["original45", "release39"])
def test_an_infinite_rate_breaks_no_rule(schema: str) -> None:
    cells = {"Rate": np.inf} | ({"Srate": np.inf} if schema == "original45" else {})
    assert broken(schema, **cells) == {}
    assert broken(schema, **(cells | {"ack_count": -np.inf})) == {"negative": ["ack_count"]}


@pytest.mark.filterwarnings("error")
def test_an_infinity_breaks_the_rules_that_hold_it_against_finite_values() -> None:
    assert broken("original45", Srate=np.inf) == {"sending_rate": ["Srate"]}
    assert broken("release39", Variance=np.inf) == {"variance": ["Variance"]}
    assert broken("release39", Variance=np.inf, Std=np.inf) == {}
    assert broken("release39", Tot_s_sum=np.inf) == {"total_length": ["Tot sum"]}
    assert broken("release39", AVG=np.inf) == {"average_length": ["AVG"], "total_length": ["Tot sum"]}
    assert broken("release39", Max=1e308, Std=1e300) == {"variance": ["Variance"]}


def test_a_rejected_row_is_quarantined_under_the_rule_and_a_warned_one_kept() -> None:
    frame = synthetic_frame(4, 1).iloc[[0, 0, 0, 0]].reset_index(drop=True)
    frame.loc[:, :] = [list(sound_flow("release39").values())] * 4
    frame.loc[1, "HTTP"], frame.loc[1, "Rate"], frame.loc[2, "LLC"], frame.loc[3, "Rate"] = 1.7, -2.0, 0.2, np.nan
    typed = type_rows(pa.Table.from_pandas(frame), ROW_GROUP, RELEASE_39, np.arange(4))
    assert typed.flows["source_row"].to_pylist() == [0, 2]
    rows = typed.quarantine.to_pylist()
    assert [(r["source_row"], r["reason"], r["features"]) for r in rows] == [
        (1, "negative", ["Rate", "HTTP"]),
        (3, "missing", ["Rate"]),
    ]
    assert typed.warnings == {("llc_share", "train", "Benign"): 1}


def test_every_rule_names_features_of_its_schema_and_is_unique() -> None:
    for schema in (ORIGINAL_45, RELEASE_39):
        rules = quality.RULES[schema.name]
        assert len({rule.name for rule in rules}) == len(rules)
        assert all(set(rule.features) <= set(schema.features) and rule.statement for rule in rules)


def test_real_flows_break_no_rejecting_rule_and_warnings_are_counted_by_class(
    real_flows: object, run_job: RunJob, tmp_path: object
) -> None:
    import pandas as pd

    assert run_job("ingest", ingest__source=f"{real_flows}/release39") == 0
    [audit] = pd.read_parquet(f"{tmp_path}/lake/audit").to_dict("records")
    assert audit["rows_quarantined"] == 0
    warned = {(c["what"], c["split"], c["class_name"]): c["rows"] for c in audit["counts"] if "warned" in c["what"]}
    assert sum(rows for (what, _, _), rows in warned.items() if what == "warned: transport_shares") == 1
    flows = pd.read_parquet(f"{tmp_path}/lake/flows")
    early = flows[flows["IAT"] < 0].groupby(["split", "class19"], observed=True).size().to_dict()
    found = {key[1:]: rows for key, rows in warned.items() if key[0] == "warned: negative_time_between_packets"}
    assert found == early
    assert early
