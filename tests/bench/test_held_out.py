"""The measurement of classes held out: on synthetic rows, of which it is known what can be found; never its figures."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ids_spark.dataset.features import FEATURE_SCHEMAS
from ids_spark.dataset.taxonomy import CLASS19
from tests.bench import held_out
from tests.bench.measure import ROOT

FEATURES = FEATURE_SCHEMAS["release39"].features
FILES = {"Benign": 2_000, "ARP_Spoofing": 200, "Recon-VulScan": 200}


def write_source(folder: Path, splits: dict[str, list[str]]) -> None:
    """Write synthetic files. ARP_Spoofing has large values of one feature, Recon-VulScan is benign but for noise."""
    random = np.random.default_rng(1)
    for split, names in splits.items():
        (folder / split).mkdir(parents=True)
        for name in names:
            frame = pd.DataFrame(random.normal(5, 1, (FILES[name], len(FEATURES))), columns=list(FEATURES))
            if name == "ARP_Spoofing":
                frame["Rate"] += 20
            frame.to_csv(folder / split / f"{name}_{split}.pcap.csv", index=False)


@pytest.mark.slow
def test_what_no_network_knows_is_found_if_it_is_far_from_benign_rows(tmp_path: Path) -> None:
    write_source(tmp_path / "data", {"train": list(FILES), "test": list(FILES)})
    command = [sys.executable, "-m", "tests.bench.held_out", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--epochs", "3"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mean of classes" in done.stdout
    content = json.loads((tmp_path / "out/held_out.json").read_text())
    assert (content["data"], content["rate"]) == ("data", 0.01)
    found = {each["class19"]: each for each in content["trainings"]}
    assert set(found) == {"ARP_Spoofing", "Recon-VulScan"}
    for each in found.values():
        assert (each["rows"], each["benign_train_rows"] + each["benign_validation_rows"]) == (200, 2_000)
        assert each["false_second"] < 0.03
    assert found["ARP_Spoofing"]["found_both"] == 1.0
    assert found["Recon-VulScan"]["found_second"] < 0.1


def test_without_benign_train_rows_both_splits_are_joined_and_split_again(tmp_path: Path) -> None:
    write_source(tmp_path, {"train": ["ARP_Spoofing"], "test": ["Benign", "Recon-VulScan"]})
    split = held_out.read(tmp_path, 3)
    assert len(split.train.labels) + len(split.test.labels) == 2_400
    assert 600 < len(split.test.labels) < 840
    for rows in (split.train, split.test):
        assert set(rows.labels) == {CLASS19.index(name) for name in FILES}
    joined = np.concatenate([split.train.features, split.test.features])
    assert len(np.unique(joined, axis=0)) == 2_400


def test_duplicates_and_incomplete_rows_are_dropped(tmp_path: Path) -> None:
    write_source(tmp_path, {"train": list(FILES), "test": list(FILES)})
    path = tmp_path / "train/Benign_train.pcap.csv"
    frame = pd.read_csv(path)
    frame.loc[3, "Rate"] = np.nan
    pd.concat([frame, frame.iloc[:10]]).to_csv(path, index=False)
    labels = held_out.read(tmp_path, 0).train.labels
    assert (labels == 0).sum() == 1_999
