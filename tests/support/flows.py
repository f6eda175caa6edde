"""Synthetic sources for tests, and where the checkout is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ids_spark.dataset.features import FEATURE_SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
RunJob = Callable[..., int]
"""Type of the fixture `run_job`: runs a job in this process and returns its exit code."""
PLAIN = "score.pseudonymise=[]"
"""Setting of every job that a test starts, unless it gives another: flow logs of tests are stored as they are."""


def synthetic_frame(rows: int, seed: int, schema: str = "release39") -> pd.DataFrame:
    """Random numbers that break no quality rule of severity reject; synthetic, unlike real flows."""
    rng = np.random.default_rng(seed)
    features = FEATURE_SCHEMAS[schema].features
    frame = pd.DataFrame(rng.uniform(0.0, 1.0, (rows, len(features))), columns=list(features))
    if "Drate" in frame:
        frame["Drate"] = 0.0
    return frame


def write_synthetic_source(folder: Path, rows: int = 60, schema: str = "release39") -> dict[str, pd.DataFrame]:
    """Write a small synthetic source in the official layout; returns the frames by path below it."""
    names = [
        "Benign",
        "TCP_IP-DDoS-ICMP1",
        "TCP_IP-DDoS-ICMP2",
        "MQTT-DDoS-Connect_Flood",
        "Recon-VulScan",
        "ARP_Spoofing",
    ]
    written = {}
    for split in ("train", "test"):
        for i, name in enumerate(names):
            frame = synthetic_frame(rows, seed=i + (100 if split == "test" else 0), schema=schema)
            frame["Rate"] += 5.0 * i  # so that classes can be distinguished
            path = folder / split / f"{name}_{split}.pcap.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_csv(path, index=False)
            written[f"{split}/{path.name}"] = frame
    return written
