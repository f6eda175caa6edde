"""Many copies of one vector: spread over tasks, with the marks and counts that pandas finds."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.dataset.features import RELEASE_39
from ids_spark.ingest import row_hash
from ids_spark.ingest.copies import Copies, taken_out
from tests.support import in_process
from tests.support.audits import newest_audit
from tests.support.flows import synthetic_frame

FEATURES = list(RELEASE_39.features)


def block(frame, labels, keys=None):
    """Return a frame as rows of one file, as they are sent to their buckets."""
    values = [frame[name].to_numpy() for name in FEATURES]
    table = pa.table({name: pa.array(column) for name, column in zip(FEATURES, values, strict=True)})
    own = {
        "row_key": pa.array(row_hash.row_keys(values) if keys is None else keys),
        "label19": pa.array(np.asarray(labels, dtype=np.int32)),
        "source_file": pa.repeat("a.csv", len(frame)),
        "source_row": pa.array(np.arange(len(frame))),
    }
    for name, column in own.items():
        table = table.append_column(name, column)
    return table


def repeated(rows, at, seed=1):
    """Return random rows, in which those of a mask are equal."""
    frame = synthetic_frame(rows, seed)
    frame.loc[at] = synthetic_frame(1, 77).to_numpy()
    return frame


def all_rows(found):
    return pa.concat_tables(list(found.tables(50))).select([*FEATURES, "row_key", "label19", "source_row"])


def test_the_first_row_of_each_label_stays_and_every_row_is_in_one_part():
    at = np.arange(400) % 2 == 1
    labels = np.where(np.arange(400) % 3 == 0, 5, 2)
    flows = block(repeated(400, at), labels)
    others, found = taken_out(flows, FEATURES, 4)
    assert others["source_row"].to_pylist() == [i for i in range(400) if not at[i] or i in (1, 3)]
    assert len(found.vectors) == 1
    assert found.rows["vector"].to_pylist() == [0] * 198
    both = pa.concat_tables([others.select(all_rows(found).column_names), all_rows(found)]).sort_by("source_row")
    assert both.equals(flows.select(both.column_names))


@pytest.mark.parametrize(("rows", "buckets", "taken"), [(63, 4, False), (64, 4, True), (64, 1, False), (64, 2, False)])
def test_few_copies_and_those_of_one_bucket_stay(rows, buckets, taken):
    flows = block(repeated(400, np.arange(400) < rows), np.zeros(400))
    others, found = taken_out(flows, FEATURES, buckets)
    assert (found is not None) == taken
    assert len(others) == (400 - 63 if taken else 400)


def test_vectors_with_one_key_are_told_apart_by_every_bit():
    frame = synthetic_frame(400, 1)
    kind = np.arange(400) % 4  # 0: random, 1: a vector, 2: the same but for the sign of a zero, 3: another
    frame.loc[kind > 0] = synthetic_frame(1, 77).to_numpy()
    frame.loc[kind == 1, "IAT"] = 0.0
    frame.loc[kind == 2, "IAT"] = -0.0
    frame.loc[kind == 3, "IAT"] = 4.0
    keys = np.where(kind > 0, 11, np.arange(400) + 100)
    flows = block(frame, np.zeros(400), keys)
    others, found = taken_out(flows, FEATURES, 4)
    assert len(found.vectors) == 3
    assert sorted(np.unique(found.rows["vector"].to_numpy(), return_counts=True)[1]) == [99, 99, 99]
    assert others["source_row"].to_pylist() == sorted([1, 2, 3, *range(0, 400, 4)])
    expanded = all_rows(found).sort_by("source_row")
    expected = flows.take(expanded["source_row"]).select(expanded.column_names)
    assert [c.to_numpy().tobytes() for c in expanded.columns] == [c.to_numpy().tobytes() for c in expected.columns]


def test_only_the_most_frequent_of_many_vectors_are_taken_out():
    vectors = synthetic_frame(120, 3)
    frame = vectors.loc[np.repeat(np.arange(120), np.arange(70, 190))].reset_index(drop=True)
    others, found = taken_out(block(frame, np.zeros(len(frame))), FEATURES, 1_000)
    assert len(found.vectors) == 100
    assert len(found.rows) == sum(range(90, 190)) - 100
    assert len(others) == sum(range(70, 90)) + 100


def test_copies_of_blocks_are_sorted_whatever_the_order_of_their_arrival():
    blocks = []
    for seed in range(3):
        frame = synthetic_frame(1, 70 + seed % 2).loc[np.zeros(100, dtype=int)].reset_index(drop=True)
        flows = block(frame, np.arange(100) % 2).set_column(
            len(FEATURES) + 2, "source_file", pa.repeat(f"{'cab'[seed]}.csv", 100)
        )
        blocks.append(taken_out(flows, FEATURES, 50)[1].to_bytes())
    one, other = (pa.concat_tables(list(Copies.of_blocks(order).tables(40))) for order in (blocks, blocks[::-1]))
    assert one.equals(other)
    rows = one.to_pandas()
    key = rows["row_key"].to_numpy().view(np.uint64)
    assert rows.index[
        np.lexsort((rows["source_row"], rows["source_file"], rows["label19"], key))
    ].is_monotonic_increasing


LABELS = ("Benign", "TCP_IP-DDoS-ICMP1", "TCP_IP-DDoS-ICMP2", "Recon-VulScan")


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """A source of one labelled table in two row groups and small files of one class; three vectors are most rows.

    The first vector has labels of one class, in all blocks. The second has two labels in one block, and the zeros of
    its feature IAT have both signs. The third has another label in another file, there once.
    """
    folder = tmp_path_factory.mktemp("skewed")
    frames = {}
    rng = np.random.default_rng(5)
    vectors = synthetic_frame(3, 99)
    vectors.loc[1, "IAT"] = 0.0
    for split, rows in (("train", 3_000), ("test", 900)):
        frame = synthetic_frame(rows, rows)
        which = rng.choice([-1, 0, 1, 2], rows, p=[0.4, 0.2, 0.2, 0.2])
        names = rng.choice(LABELS[:2], rows)
        for i in range(3):
            frame.loc[which == i, FEATURES] = vectors.loc[i].to_numpy()
        frame.loc[(which == 1) & (rng.random(rows) < 0.5), "IAT"] = -0.0
        names[which == 0] = LABELS[1]
        names[which == 2] = LABELS[0]
        path = folder / split / "all.parquet"
        path.parent.mkdir()
        labelled = frame.assign(label=np.char.add(names, f"_{split}"))
        pq.write_table(pa.Table.from_pandas(labelled, preserve_index=False), path, row_group_size=rows // 2)
        other = synthetic_frame(50, rows + 1)
        other.loc[20] = vectors.loc[2]
        other.loc[30:40] = vectors.loc[0].to_numpy()
        other.to_csv(folder / split / f"{LABELS[2]}_{split}.pcap.csv", index=False)
        for i in range(10, 22):  # one task joins several to a block, the later ones first, as they are larger
            small = synthetic_frame(30 + i, rows + i)
            small.loc[4:33] = vectors.loc[i % 2].to_numpy()
            name = f"TCP_IP-DoS-TCP{i}_{split}.pcap.csv"
            small.to_csv(folder / split / name, index=False)
            frames[split, name] = small.assign(label="TCP_IP-DoS-TCP")
        frames[split, "all.parquet"] = frame.assign(label=names)
        frames[split, f"{LABELS[2]}_{split}.pcap.csv"] = other.assign(label=LABELS[2])
    parts = [
        frame.assign(split=split, file=f"{split}/{name}", row=np.arange(len(frame)))
        for (split, name), frame in frames.items()
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows["class19"] = rows["label"].str.replace("TCP_IP-", "").str.rstrip("0123456789")
    return folder, rows.sort_values(["split", "file", "row"], ignore_index=True)


@pytest.fixture(scope="module")
def marked(skewed):
    """The rows with the marks that pandas finds."""
    _, rows = skewed
    same = rows.assign(IAT=rows["IAT"] + 0.0)
    duplicate = same.duplicated([*FEATURES, "class19", "split"])
    labels = same.groupby([*FEATURES, "split"])["class19"].transform("nunique")
    return rows.assign(duplicate=duplicate, label_conflict=labels > 1)


@pytest.fixture(scope="module")
def lakes(spark, skewed, tmp_path_factory):
    """The flows of this source in buckets of about 200 rows, which send copies elsewhere, and in one for each split."""
    found = {}
    for name, rows in (("many", 200), ("one", 10_000)):
        folder = tmp_path_factory.mktemp(name)
        code, log = in_process.run(folder, "ingest", f"ingest.source={skewed[0]}", f"ingest.rows_per_file={rows}")
        assert code == 0, log
        found[name] = folder / "lake"
    return found


@pytest.mark.parametrize("name", ["many", "one"])
def test_flows_have_the_marks_that_pandas_finds(lakes, marked, name):
    for split, rows in marked.groupby("split"):
        uris = sorted((lakes[name] / "flows" / f"split={split}").glob("*.parquet"))
        assert any(uri.name.startswith("copies-") for uri in uris) == (name == "many")
        found = pa.concat_tables([pq.read_table(uri).replace_schema_metadata() for uri in uris]).to_pandas()
        found = found.sort_values(["source_file", "source_row"], ignore_index=True)
        own = rows.reset_index(drop=True)
        assert found["source_file"].tolist() == own["file"].tolist()
        for column in ("row", *FEATURES, "class19", "duplicate", "label_conflict"):
            stored = found["source_row" if column == "row" else column].to_numpy()
            assert stored.tolist() == own[column].tolist(), column
        assert np.signbit(found["IAT"]).tolist() == np.signbit(own["IAT"]).tolist()
        assert (found["row_key"] == row_hash.row_keys([own[name].to_numpy() for name in FEATURES])).all()


def test_no_task_receives_more_than_its_part_of_the_copies(lakes):
    files = {path.name: path for path in (lakes["many"] / "flows" / "split=train").glob("*.parquet")}
    rows = {name: pq.read_metadata(path).num_rows for name, path in files.items()}
    assert max(n for name, n in rows.items() if name.startswith("part-")) < 500
    assert sum(n for name, n in rows.items() if name.startswith("copies-")) > 1_700
    for name, path in files.items():
        key = pq.read_table(path, columns=["row_key"])["row_key"].to_numpy().view(np.uint64)
        assert (key[1:] >= key[:-1]).all(), name


def test_features_and_leakage_count_copies_as_duplicates(lakes, marked):
    tables = {}
    for name, lake in lakes.items():
        for job in ("features", "leakage"):
            code, log = in_process.run(lake.parent, job)
            assert code == 0, log
        parts = [pq.read_table(lake / "features" / "paper" / f"split={s}") for s in ("train", "validation", "test")]
        tables[name] = pa.concat_tables([part.replace_schema_metadata() for part in parts]).to_pandas()
        tables[name] = tables[name].sort_values(["row_key", "label19"], ignore_index=True)
        figures = pq.read_table(lake / "reports" / "leakage" / "leakage.parquet").to_pandas()
        counts = pd.DataFrame(list(newest_audit(lake, "features")["counts"]))
        duplicates = marked[marked["duplicate"]]
        for rows, what, audited in ((marked, "flows", "flows"), (duplicates, "duplicates_double", "duplicates")):
            expected = rows.groupby(["split", "class19"]).size().to_dict()
            found = figures[figures["what"] == what].set_index(["split", "class_name"])["value"]
            assert found.to_dict() == expected
            found = counts[counts["what"] == audited].set_index(["split", "class_name"])["rows"]
            assert found.to_dict() == expected
    pd.testing.assert_frame_equal(tables["many"], tables["one"])
