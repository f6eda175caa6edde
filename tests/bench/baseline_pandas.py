"""The usual single-machine way: pandas and scikit-learn in one process.

python -m tests.bench.baseline_pandas SOURCE TARGET
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from tests.bench import work


def read(source: str, split: str) -> pd.DataFrame:
    """Return every capture of a split as one frame with a class id."""
    frames = [pd.read_parquet(path).assign(label19=np.int32(label)) for path, label in work.captures(source, split)]
    return pd.concat(frames, ignore_index=True)


def write(frame: pd.DataFrame, folder: Path) -> None:
    """Write one parquet file."""
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "part-0.parquet", index=False)


def write_flows(frame: pd.DataFrame, folder: Path) -> None:
    """Write typed flows with their classes by name."""
    names = {"class19": list(work.CLASS19), "class6": work.NAMES_6, "class2": work.NAMES_2}
    ids = frame["label19"].to_numpy()
    classes = {name: pd.Categorical(values).take(ids) for name, values in names.items()}
    write(frame.assign(**classes), folder)


def write_features(frame: pd.DataFrame, scaler: StandardScaler, kept: list[str], folder: Path) -> None:
    """Scale, cast, label and write rows in their current order."""
    scaled = pd.DataFrame(scaler.transform(frame[kept]).astype(np.float32), columns=kept)
    ids = frame["label19"].to_numpy()
    scaled["label19"] = ids
    scaled["label6"] = np.array(work.TO_6, dtype=np.int32)[ids]
    scaled["label2"] = np.array(work.TO_2, dtype=np.int32)[ids]
    write(scaled, folder)


def main(source: str, target: str) -> None:
    """Prepare one source; train is written and freed before test is read."""
    flows, features = Path(target, "flows"), Path(target, "features")
    frame = read(source, "train")
    write_flows(frame, flows / "split=train")
    frame = frame.drop_duplicates()
    train, validation = train_test_split(frame, test_size=work.VALIDATION_SHARE, random_state=work.SEED, shuffle=True)
    del frame
    stds = train[work.FEATURES].std(ddof=0)
    kept = [name for name in work.FEATURES if stds[name] > work.MIN_STD]
    scaler = StandardScaler().fit(train[kept])
    write_features(train, scaler, kept, features / "split=train")
    del train
    write_features(validation, scaler, kept, features / "split=validation")
    del validation

    frame = read(source, "test")
    write_flows(frame, flows / "split=test")
    frame = frame.drop_duplicates().sample(frac=1.0, random_state=work.SEED)
    write_features(frame, scaler, kept, features / "split=test")
    work.finish(target, dict(zip(kept, scaler.mean_.tolist(), strict=True)), stds[kept].to_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
