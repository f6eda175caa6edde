"""A single machine and a fast columnar engine: polars, tuned by hand.

python -m tests.bench.baseline_polars SOURCE TARGET

Tuned: files are scanned lazily and read in parallel, duplicates are found by hash in any order, scaling, casting and
labelling are one pass of expressions, classes are an enumeration, compression is snappy as everywhere here.
"""

import sys
from pathlib import Path

import polars as pl

from tests.bench import work

_LEVELS = {"class19": list(work.CLASS19), "class6": work.NAMES_6, "class2": work.NAMES_2}
_LABEL = pl.col("label19")


def read(source: str, split: str) -> pl.DataFrame:
    """Return every capture of a split as one frame with a class id."""
    scans = [
        pl.scan_parquet(path).with_columns(pl.lit(label, pl.Int32).alias("label19"))
        for path, label in work.captures(source, split)
    ]
    return pl.concat(scans).collect()


def write(frame: pl.DataFrame, folder: Path) -> None:
    """Write one parquet file."""
    folder.mkdir(parents=True)
    frame.write_parquet(folder / "part-0.parquet", compression="snappy", statistics=False)


def write_flows(frame: pl.DataFrame, folder: Path) -> None:
    """Write typed flows with their classes by name."""
    classes = [
        _LABEL.replace_strict(range(len(names)), names, return_dtype=pl.Enum(list(dict.fromkeys(names)))).alias(level)
        for level, names in _LEVELS.items()
    ]
    write(frame.with_columns(classes), folder)


def distinct(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct rows in random order."""
    return frame.unique(maintain_order=False).sample(fraction=1.0, shuffle=True, seed=work.SEED)


def write_features(frame: pl.DataFrame, means: dict[str, float], stds: dict[str, float], folder: Path) -> None:
    """Scale, cast, label and write rows in their current order."""
    scaled = [((pl.col(name) - means[name]) / stds[name]).cast(pl.Float32) for name in stds]
    coarser = [
        _LABEL.replace_strict(range(len(ids)), ids, return_dtype=pl.Int32).alias(level)
        for level, ids in (("label6", work.TO_6), ("label2", work.TO_2))
    ]
    write(frame.select(*scaled, _LABEL, *coarser), folder)


def main(source: str, target: str) -> None:
    """Prepare one source; train is written and freed before test is read."""
    flows, features = Path(target, "flows"), Path(target, "features")
    frame = read(source, "train")
    write_flows(frame, flows / "split=train")
    frame = distinct(frame)
    held_out = int(work.VALIDATION_SHARE * len(frame))
    train, validation = frame[held_out:], frame[:held_out]
    means, stds = (
        train.select(pl.col(work.FEATURES).mean()).row(0, named=True),
        train.select(pl.col(work.FEATURES).std(ddof=0)).row(0, named=True),
    )
    stds = {name: std for name, std in stds.items() if std > work.MIN_STD}
    write_features(train, means, stds, features / "split=train")
    write_features(validation, means, stds, features / "split=validation")
    del frame, train, validation

    frame = read(source, "test")
    write_flows(frame, flows / "split=test")
    write_features(distinct(frame), means, stds, features / "split=test")
    work.finish(target, {name: means[name] for name in stds}, stds)


if __name__ == "__main__":
    main(*sys.argv[1:])
