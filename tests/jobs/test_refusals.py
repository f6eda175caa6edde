"""Bad input: one clear message, exit code 2, and a lake that is unchanged but for the audit row."""

import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ids_spark.runtime.job import known_fault
from tests.support.audits import drop_refusals
from tests.support.flows import RunJob, synthetic_frame, write_synthetic_source
from tests.support.in_process import run
from tests.support.submitting import prepare, submit

Caplog = pytest.LogCaptureFixture


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_synthetic_source(tmp_path / "source", rows=20)
    return tmp_path / "source"


@pytest.fixture(scope="module")
def prepared(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake that ingest and features wrote; tests copy it."""
    folder = tmp_path_factory.mktemp("prepared")
    write_synthetic_source(folder / "source", rows=20)
    for name in ("ingest", "features"):
        code, log = run(folder, name, f"ingest.source={folder}/source")
        assert code == 0, log
    return folder


@pytest.fixture
def _lake(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared / "lake", tmp_path / "lake")


def refused(run_job: RunJob, tmp_path: Path, caplog: Caplog, job: str = "ingest", **settings: object) -> str:
    """Run a job that must refuse; returns its message after a check that the lake has only its audit row more."""
    before = {str(p): p.stat().st_mtime_ns for p in (tmp_path / "lake").rglob("*")}
    caplog.clear()
    lake_exists = (tmp_path / "lake").exists()
    assert run_job(job, **settings) == 2
    assert drop_refusals(tmp_path / "lake") == lake_exists
    assert {str(p): p.stat().st_mtime_ns for p in (tmp_path / "lake").rglob("*") if p.is_file()} == {
        p: t for p, t in before.items() if Path(p).is_file()
    }
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].exc_info is None  # a message, not a stack trace
    return errors[0].getMessage()


def test_no_such_folder(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    message = refused(run_job, tmp_path, caplog, ingest__source=tmp_path / "nowhere")
    assert "nowhere: no such file or folder; set ingest.source" in message
    assert not (tmp_path / "lake").exists()


def test_no_source_set(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    assert "ingest.source nor ingest.local is set; expected a folder of flows" in refused(run_job, tmp_path, caplog)


def test_an_empty_folder(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    (tmp_path / "empty").mkdir()
    message = refused(run_job, tmp_path, caplog, ingest__source=tmp_path / "empty")
    assert "found no .csv or .parquet file below it" in message


def test_an_unknown_class_name(run_job: RunJob, source: Path, tmp_path: Path, caplog: Caplog) -> None:
    synthetic_frame(5, 1).to_csv(source / "train" / "Sleeper_train.pcap.csv", index=False)
    message = refused(run_job, tmp_path, caplog, ingest__source=source)
    assert "names no known class: found 'Sleeper', expected one of Benign" in message


def test_a_missing_column(run_job: RunJob, source: Path, tmp_path: Path, caplog: Caplog) -> None:
    frame = synthetic_frame(5, 1).drop(columns=["IAT", "Rate"])
    frame.to_csv(source / "train" / "Benign2_train.pcap.csv", index=False)
    message = refused(run_job, tmp_path, caplog, ingest__source=source)
    assert "Benign2_train.pcap.csv lacks 2 of the 39 columns of feature schema release39: Rate, IAT" in message


def test_a_column_of_the_wrong_type(run_job: RunJob, source: Path, tmp_path: Path, caplog: Caplog) -> None:
    frame = synthetic_frame(5, 1).assign(Rate="fast")
    frame.to_parquet(source / "train" / "Benign2_train.pcap.parquet", index=False)
    message = refused(run_job, tmp_path, caplog, ingest__source=source)
    assert "expected numbers, found column(s) of another type: 'Rate' is string" in message


def test_two_feature_schemas(run_job: RunJob, source: Path, tmp_path: Path, caplog: Caplog) -> None:
    frame = synthetic_frame(5, 1, "original45")
    frame.to_csv(source / "train" / "Benign2_train.pcap.csv", index=False)
    message = refused(run_job, tmp_path, caplog, ingest__source=source)
    assert "mixes two feature schemas" in message
    assert "12 files of release39" in message
    assert "1 files of original45" in message


def test_a_truncated_parquet_file(run_job: RunJob, source: Path, tmp_path: Path, caplog: Caplog) -> None:
    path = source / "train" / "Benign2_train.pcap.parquet"
    synthetic_frame(500, 1).to_parquet(path, index=False)
    path.write_bytes(path.read_bytes()[:-2_000])
    message = refused(run_job, tmp_path, caplog, ingest__source=source)
    assert "Benign2_train.pcap.parquet cannot be read as parquet, it may be truncated" in message


def test_a_file_with_a_sound_footer_and_damaged_data(
    run_job: RunJob, source: Path, tmp_path: Path, caplog: Caplog
) -> None:
    path = source / "train" / "Benign2_train.pcap.parquet"
    synthetic_frame(5_000, 1).to_parquet(path, index=False)
    content = bytearray(path.read_bytes())
    content[4:2_000] = bytes(1_996)
    path.write_bytes(bytes(content))
    message = refused(run_job, tmp_path, caplog, ingest__source=source)
    assert "Benign2_train.pcap.parquet: its content cannot be read" in message


def test_too_many_unusable_rows(run_job: RunJob, source: Path, tmp_path: Path, caplog: Caplog) -> None:
    frame = synthetic_frame(60, 1)
    frame.loc[:49, "Rate"] = np.nan
    frame.to_csv(source / "train" / "Benign2_train.pcap.csv", index=False)
    message = refused(run_job, tmp_path, caplog, ingest__source=source)
    assert "50 of 300 rows cannot be used, more than ingest.max_rejected_share 0.05 (50 missing in Benign)" in message
    assert re.search(r", such as row \d+ of train/Benign2_train\.pcap\.csv: missing, Rate ''; correct", message)


def test_classes_without_a_flow_are_named(run_job: RunJob, source: Path, caplog: Caplog) -> None:
    header = ",".join(synthetic_frame(1, 1).columns)
    (source / "train" / "MQTT-Malformed_Data_train.csv").write_text(header)
    synthetic_frame(0, 1).to_parquet(source / "train" / "Recon-Port_Scan_train.parquet", index=False)
    synthetic_frame(2, 1).to_csv(source / "train" / "TCP_IP-DoS-SYN_train.pcap.txt", index=False)
    broken = synthetic_frame(2, 1).to_csv(index=False).replace("\n", ",\n").replace(",\n", "\n", 1)
    (source / "train" / "DoS-UDP_train.csv").write_text(broken)
    assert run_job("ingest", ingest__source=source) == 0
    for class19 in ("MQTT-Malformed_Data", "Recon-Port_Scan", "DoS-SYN"):
        assert f"no flow of {class19} in train: its files are not read or hold no row" in caplog.text
    assert "no flow of DoS-UDP in train: all rows are in quarantine (2 wrong_field_count)" in caplog.text


@pytest.mark.usefixtures("_lake")
@pytest.mark.parametrize("rows", [0, 3])
def test_a_source_without_a_row_that_can_be_used_replaces_no_flows(
    run_job: RunJob, tmp_path: Path, caplog: Caplog, rows: int
) -> None:
    for split in ("train", "test"):
        (tmp_path / "none" / split).mkdir(parents=True)
        frame = synthetic_frame(5, 1).head(rows).assign(Rate=np.nan)
        frame.to_csv(tmp_path / "none" / split / f"Benign_{split}.pcap.csv", index=False)
    message = refused(run_job, tmp_path, caplog, ingest__source=tmp_path / "none", ingest__max_rejected_share=1)
    assert f"none of its {2 * rows} rows in 2 file(s) can be used" in message


def test_an_unknown_configuration_key(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    message = refused(run_job, tmp_path, caplog, ingest__sorce="x", train__epochs="many")
    assert "2 fault(s)" in message
    assert "ingest.sorce: unknown key, did you mean 'source'?" in message
    assert "train.epochs: Input should be a valid integer" in message


def test_features_before_ingest(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    message = refused(run_job, tmp_path, caplog, "features")
    assert "flows holds no complete table; run jobs/ingest.py on this lake first" in message


@pytest.mark.usefixtures("_lake")
def test_fewer_row_groups_than_ranks(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    assert run_job("features", features__files=2) == 0
    message = refused(run_job, tmp_path, caplog, "train", train__ranks=4, train__batch_size=8)
    assert "features/paper/split=train has 2 row groups for 4 ranks or workers; set features.files >= 4" in message


@pytest.mark.usefixtures("_lake")
def test_more_ranks_than_task_slots(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    message = refused(run_job, tmp_path, caplog, "train", train__ranks=3, train__batch_size=9)
    assert "train.ranks is 3, but local[2] runs 2 tasks at once; use --master 'local[3]'" in message


@pytest.mark.usefixtures("_lake")
@pytest.mark.parametrize(
    ("cpus", "parallelism", "expected"),
    [
        (2, 8, "train.ranks is 2, but local[2] with spark.task.cpus 2 runs 1 task at once; use --master 'local[4]'"),
        (3, 2, "spark.task.cpus is 3, but an executor of local[2] has 2 core(s)"),
    ],
)
def test_more_cpus_for_each_rank_than_there_are(tmp_path: Path, cpus: int, parallelism: int, expected: str) -> None:
    conf = [f"spark.task.cpus={cpus}", f"spark.default.parallelism={parallelism}"]
    started = time.monotonic()
    code, output = submit(prepare(tmp_path), "train", "train.ranks=2", "train.batch_size=8", conf=conf)
    assert code == 2, output
    assert expected in output
    assert "\tat " not in output
    assert time.monotonic() - started < 60  # without waiting for ranks


@pytest.mark.usefixtures("_lake")
def test_less_than_one_batch(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    message = refused(run_job, tmp_path, caplog, "train", train__batch_size=4096)
    assert "expected at least one global batch of 4096" in message


@pytest.mark.usefixtures("_lake")
def test_scoring_without_models(run_job: RunJob, tmp_path: Path, caplog: Caplog) -> None:
    message = refused(run_job, tmp_path, caplog, "score")
    assert "models holds no model; run jobs/train.py on this lake first" in message


def test_unusable_rows_below_the_limit_are_quarantined_with_their_raw_values(
    run_job: RunJob, source: Path, tmp_path: Path
) -> None:
    frame = synthetic_frame(60, 1).astype(object)
    frame.loc[3, "Rate"], frame.loc[5, "IAT"] = "fast", ""
    frame.to_csv(source / "train" / "Benign2_train.pcap.csv", index=False)
    assert run_job("ingest", ingest__source=source) == 0
    refused_rows = pd.read_parquet(tmp_path / "lake/quarantine").sort_values("source_row")
    assert refused_rows["source_file"].tolist() == ["train/Benign2_train.pcap.csv"] * 2
    assert refused_rows["source_row"].tolist() == [3, 5]
    assert refused_rows["reason"].tolist() == ["unparsable", "missing"]
    assert [list(f) for f in refused_rows["features"]] == [["Rate"], ["IAT"]]
    assert '"Rate": "fast"' in refused_rows["raw"].iloc[0]
    flows = pd.read_parquet(tmp_path / "lake/flows")
    assert len(flows) == 12 * 20 + 58


def test_a_full_disk_is_named_with_what_to_do() -> None:
    with pytest.raises(OSError, match="No space left") as error, open("/dev/full", "wb", buffering=0) as full:
        full.write(b"flows")
    said = str(known_fault(error.value, "file:///lake"))
    assert said.startswith("a disk is full: [Errno 28] No space left on device\n")
    assert "file:///lake" in said
    assert "free space and run the same command again" in said
    assert known_fault(ValueError("no disk at all"), "file:///lake") is None
