"""The demo of `make nightly`: a synthetic model finds the attacks in the captures of the synthetic ward."""

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from ids_spark.alerts.narrative import main_of
from ids_spark.lake.store import Lake
from tests.support.in_process import run

MODEL = (
    "synthesize.feature_schema=release39",
    "synthesize.scale=0.1",
    "synthesize.target={}/flows",
    "ingest.source={}/flows",
    "train.models=[gru_dnn]",
    "train.classes=[19]",
    "train.feature_sets=[operational]",
    "train.epochs=8",
    "train.batch_size=1024",
    "train.learning_rate=4e-3",
)
NIGHT = (
    "synthesize_captures.target={}/captures",
    "synthesize_captures.date=2026-03-29",
    "extract.captures={}/captures",
    "extract.inventory={}/captures/_inventory.csv",
    "extract.networks=[192.0.2.0/24]",
    "extract.target={}/logs",
    "score.flow_logs={}/logs",
    "score.date=2026-03-29",
    "score.models=[gru_dnn-19-operational]",
)
CATEGORIES = {"flood": {"DDoS", "DoS"}, "scan": {"Recon"}, "spoofing": {"Spoofing"}}


@pytest.mark.slow
def test_every_attack_in_the_ward_is_a_line_with_attacker_and_victims(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for settings, jobs in (
        (MODEL, ("synthesize", "ingest", "features", "train")),
        (NIGHT, ("synthesize_captures", "extract", "score")),
    ):
        for job in jobs:
            code, output = run(folder, job, *(setting.format(folder) for setting in settings))
            assert code == 0, output
    incidents = Lake(str(folder / "lake")).read("incidents", event_date="2026-03-29").to_pylist()
    assert {row["data_origin"] for row in incidents} == {"synthetic"}
    truth = json.loads((folder / "captures" / "_truth" / "event_date=2026-03-29.json").read_text())["attacks"]
    found = {}
    for attack in truth:
        for row in incidents:
            source, devices = main_of(row, "sources"), {each["name"] for each in row["devices"]}
            victims = set(attack["victims"]) <= devices
            if (
                source
                and source["name"] == attack["attacker"]
                and victims
                and row["category"] in CATEGORIES[attack["name"]]
            ):
                found[attack["name"]] = row["incident_id"]
    assert found.keys() == CATEGORIES.keys()
    attackers = {attack["attacker"] for attack in truth}
    false = [row for row in incidents if not attackers & {each["name"] for each in row["sources"]}]
    assert len(false) <= 3  # of a promise of one
