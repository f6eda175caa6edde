"""A feature table in which some rows are of local nights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def _group_of(keys: np.ndarray) -> np.ndarray:
    """Return the group of local rows: 0, 1, or 2 for three times as many."""
    return np.minimum(keys % 15 // 3, 2)


def with_local_rows(folder: Path, target: Path) -> Path:
    """Copy a lake; a third of the benign train and validation rows of its feature table become local ones."""
    shutil.copytree(folder, target)
    table = target / "lake/features/paper"
    counts = {}
    train = pd.read_parquet(table / "split=train")
    keys = train.loc[(train["label2"] == 0) & (train["row_key"] % 3 == 0), "row_key"].to_numpy()
    sizes = np.bincount(_group_of(keys))
    for split in ("train", "validation", "test"):
        counts[split] = 0
        for path in (table / f"split={split}").rglob("*.parquet"):
            rows = pq.ParquetFile(path).read()
            key = rows["row_key"].to_numpy()
            local = (rows["label2"].to_numpy() == 0) & (key % 3 == 0) & (split != "test")
            block = rows["block"].to_numpy(zero_copy_only=False)
            block = np.where(local, key % 7, block) if split == "validation" else block
            held_out = pa.array(np.nan_to_num(block, nan=-1).astype(np.int32), mask=np.isnan(block))
            rows = rows.set_column(rows.schema.get_field_index("block"), "block", held_out)
            of_group = np.where(local, sizes[_group_of(key)], 0).astype(np.int32)
            pq.write_table(rows.append_column("local", pa.array(of_group)), path)
            counts[split] += int(local.sum())
    facts = json.loads((table / "_table.json").read_text())
    facts["local"] = {
        "train_rows": counts["train"],
        "held_out_rows": counts["validation"],
        "train_dates": ["2026-11-01", "2026-11-02"],
        "held_out_dates": ["2026-11-03", "2026-11-05"],
        "held_out_by": "date",
        "devices": 7,
        "data_origin": "synthetic",
        "balance": float(np.sqrt(sizes).sum()),
    }
    (table / "_table.json").write_text(json.dumps(facts))
    return target
