"""Every storage by one resolver: the same checks on local files and on a real S3 server on loopback.

HDFS is not among them: its client and servers are installed by `make test-hdfs` alone (tests/hdfs).
"""

import contextlib
import datetime as dt
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import deltalake
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction
from pyspark.sql import SparkSession

from ids_spark.base.errors import InputError
from ids_spark.base.report import Report
from ids_spark.config.settings import Config, IngestConfig
from ids_spark.ingest import sources
from ids_spark.lake import delta, filesystem, sql, store
from ids_spark.lake.filesystem import (
    files_in,
    object_store,
    read_bytes,
    resolve,
    sizes_in,
    write_bytes,
    write_json,
)
from ids_spark.lake.parquet import keep_only, write_part, write_rows
from ids_spark.lake.store import Lake, TooLarge
from ids_spark.models import artifact, registry
from ids_spark.models.signatures import SignatureRefused, open_trust, sign_model
from ids_spark.runtime import chain
from ids_spark.runtime.audit import write_audit_row
from ids_spark.train import checkpoint, data_loader
from tests.support import in_process, s3_servers
from tests.support.delta_tables import add_runs, commit_night, in_lake, plain, read
from tests.support.flows import write_synthetic_source
from tests.support.frames import Captured, ethernet, ipv4, pcap, tcp
from tests.support.keys import key_pair
from tests.support.models import CARD, PREPROCESSOR, VALIDATION_SCORES, WEIGHTS, training_state
from tests.support.storages import check_files
from tests.support.submitting import prepare, submit

CONTRACT = pa.schema([("row_key", pa.int64()), ("x", pa.float32()), ("label2", pa.int32())])
SETTINGS = ("train.epochs=2", "train.batch_size=32", "train.classes=[6]", "train.models=[dnn]", "features.files=4")


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running S3 server, in a separate process, that holds the bucket `ward`."""
    pytest.importorskip("moto", reason="the development lock is not installed")
    with s3_servers.s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new folder on the server, which is configured by environment variables."""
    s3_servers.use(monkeypatch, s3_server)
    return f"s3a://{s3_servers.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["path", "file", "s3a"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder to write to, in each form of URI that can be tested here."""
    if request.param == "s3a":
        return str(request.getfixturevalue("s3"))
    return str(tmp_path) if request.param == "path" else f"file://{tmp_path}"


def rows(start: int, number: int) -> pa.Table:
    keys = np.arange(start, start + number)
    return pa.table({"row_key": keys, "x": keys.astype("f4") / 2, "label2": (keys % 2).astype("i4")}, schema=CONTRACT)


def test_files_are_written_listed_replaced_moved_and_removed(place: str) -> None:
    check_files(place)


def test_parts_are_read_as_written_and_only_reported_ones_remain(place: str) -> None:
    folder = f"{place}/flows"
    for i in range(3):
        assert (
            write_part(folder, f"part-{i}.parquet", [rows(10 * i, 4), rows(10 * i + 4, 2)], CONTRACT, {"k": "v"}) == 6
        )
    keep_only(["part-0.parquet", "part-2.parquet"], folder)
    found = files_in(folder, ".parquet")
    assert found == [f"{folder}/part-0.parquet", f"{folder}/part-2.parquet"]
    fs, path = resolve(found[1])
    assert pq.read_table(path, filesystem=fs).equals(rows(20, 6))
    write_rows(f"{place}/audit/x.parquet", [{"row_key": 1, "x": 0.5, "label2": 0}], CONTRACT)
    fs, path = resolve(f"{place}/audit/x.parquet")
    assert pq.read_table(path, filesystem=fs).to_pylist() == [{"row_key": 1, "x": 0.5, "label2": 0}]


def test_petastorm_reads_every_row_once_in_the_same_order_everywhere(place: str, tmp_path: Path) -> None:
    for folder in (f"{place}/here #1/split=train", str(tmp_path / "there")):
        for i in range(3):
            write_part(folder, f"part-{i}.parquet", [rows(10 * i, 5), rows(10 * i + 5, 5)], CONTRACT, {})
        write_json(f"{folder}/_table.json", {})

    def shard(folder: str, rank: int) -> data_loader.Shard:
        return data_loader.Shard(folder, ("x",), "label2", rank, 2, 30)

    there = [shard(str(tmp_path / "there"), rank) for rank in (0, 1)]
    here = [shard(f"{place}/here #1/split=train", rank) for rank in (0, 1)]
    read = [np.concatenate([r.features[:, 0] for r in data_loader.one_pass(s, 100)]) for s in here]
    assert [len(part) for part in read] == [15, 15]
    np.testing.assert_array_equal(np.sort(np.concatenate(read)), np.arange(30) / 2)
    for a, b in zip(*(data_loader.epochs(s[1], [7, 20], [3], 0) for s in (here, there)), strict=True):
        np.testing.assert_array_equal(a.features, b.features)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_a_model_and_a_checkpoint_are_read_as_written(place: str) -> None:
    uri = f"{place}/models/{CARD.name}/{CARD.version}"
    artifact.write_model(uri, CARD, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES)
    assert artifact.choose_models(f"{place}/models", [], "latest") == [uri]
    model = artifact.read_model(uri)
    assert (model.card, model.preprocessor.sha256()) == (CARD, PREPROCESSOR.sha256())
    for found, expected in zip(model.weights, WEIGHTS, strict=True):
        np.testing.assert_array_equal(found, expected)
    write_bytes(f"{uri}/weights.npz", b"other")
    with pytest.raises(artifact.ModelUnusable, match="was changed after training"):
        artifact.read_model(uri)
    for _ in range(2):
        checkpoint.write_checkpoint(f"{place}/checkpoints/dnn.npz", training_state(), "mark")
    assert checkpoint.read_checkpoint(f"{place}/checkpoints/none.npz", "mark") is None
    kept = checkpoint.read_checkpoint(f"{place}/checkpoints/dnn.npz", "mark")
    assert kept is not None
    assert kept.history == training_state().history
    assert list(sizes_in(f"{place}/checkpoints")) == ["dnn.npz"]


def test_a_source_is_found_alike_everywhere(place: str, tmp_path: Path) -> None:
    write_synthetic_source(tmp_path / "local", rows=5)
    frame = pd.read_csv(next((tmp_path / "local").rglob("Benign_train*")))
    table = tmp_path / "local" / "flows" / "Benign2_train.pcap.parquet"
    table.parent.mkdir()
    frame.to_parquet(table, row_group_size=2)
    for uri in files_in(str(tmp_path / "local"), ""):
        write_bytes(f"{place}/source/{uri.removeprefix(f'{tmp_path}/local/')}", read_bytes(uri))
    local, found = (sources.discover(IngestConfig(source=uri)) for uri in (str(tmp_path / "local"), f"{place}/source"))
    assert found.schema == local.schema
    assert [(p.name, p.rows, p.index) for p in found.row_groups] == [
        (p.name, p.rows, p.index) for p in local.row_groups
    ]
    assert all(row_group.uri == f"{place}/source/{row_group.name}" for row_group in found.row_groups)
    assert [row_group.rows for row_group, _ in sources.parquet_row_groups(f"{place}/source/flows")] == [2, 2, 1]
    with pytest.raises(sources.SourceUnusable, match="no such file or folder"):
        sources.discover(IngestConfig(source=f"{place}/none"))


TABLES = ["flows", "audit/run.parquet"]


class Killed(BaseException):
    """Simulates the end of the process: no code of the program runs after it."""


class InterruptedLake(Lake):
    """A lake whose process ends before the n-th time it moves, copies or removes something."""

    def __init__(self, root: str, steps: int) -> None:
        super().__init__(root)
        self.left = steps

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def _move(self, source: str, target: str) -> None:
        self._step()
        super()._move(source, target)

    def _remove(self, uri: str) -> None:
        self._step()
        names = list(sizes_in(uri)) if ".staging/" in uri else []
        filesystem.delete_all(
            *resolve(uri), names[: len(names) // 2]
        )  # an object store deletes files one by one: half of them are deleted
        self._step()
        super()._remove(uri)

    def _put(self, source, target, names):
        for name in names:
            self._step()
            super()._put(source, target, [name])

    def _drop(self, uri, names):
        for name in names:
            self._step()
            super()._drop(uri, [name])


def stage(made: Lake, run_id: str) -> None:
    for name in (f"part-{run_id}", "split=train/part-1", "_table.json"):
        write_json(f"{made.staged('ingest', run_id, 'flows')}/{name}", run_id)
    write_json(made.staged("ingest", run_id, TABLES[1]), run_id)


def seen(made: Lake) -> dict[str, str]:
    """Return the content of every file of the lake, hidden ones too."""
    return {name: json.loads(read_bytes(made.uri(name))) for name in sizes_in(made.root)}


def all_of(run_id: str) -> dict[str, str]:
    return dict.fromkeys((f"flows/part-{run_id}", "flows/split=train/part-1", "flows/_table.json", TABLES[1]), run_id)


def test_audit_and_signed_models_are_checked_on_every_storage(
    place: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lake, keys, now = Lake(place), key_pair(tmp_path_factory.mktemp("keys")), dt.datetime.now(dt.UTC)
    assert not lake.holds_tables()
    rows = [
        write_audit_row(lake, None, "score", f"2026030{i}T000000Z-a", now, Config(), Report(), "done")
        for i in (1, 2, 3)
    ]
    assert lake.holds_tables()
    assert chain.heads(lake) == [rows[-1].sha256]
    assert chain.check(lake, rows[0].sha256).faults == []
    fs, path = resolve(lake.uri(rows[1].path))
    fs.delete_file(path)
    assert any(rows[1].sha256 in fault for fault in chain.check(lake).faults)

    uri, trust = lake.uri(f"models/{CARD.name}/{CARD.version}"), open_trust(lake, [str(keys.public)])
    sha256 = artifact.write_model(uri, CARD, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES)
    with pytest.raises(SignatureRefused, match="is not signed"):
        registry.read_version(lake.uri("models"), CARD.name, CARD.version, trust)
    sign_model(uri, keys.sign_key, CARD.name, CARD.version, sha256)
    assert registry.read_version(lake.uri("models"), CARD.name, CARD.version, trust).sha256 == sha256


def test_a_commit_on_s3_replaces_whole_tables_and_leaves_nothing_behind(s3: str) -> None:
    made = Lake(s3)
    for run_id in ("run0", "run1"):
        stage(made, run_id)
        made.recover("features")  # another job that starts meanwhile changes nothing
        made.commit("ingest", run_id, TABLES)
        assert seen(made) == all_of(run_id)
    stage(made, "run2")
    made.discard("ingest", "run2")
    assert seen(made) == all_of("run1")
    stage(made, "run3")
    made.recover("ingest")
    assert seen(made) == all_of("run1")


def test_a_kill_at_any_step_on_s3_leaves_all_tables_old_or_all_new(s3: str) -> None:
    outcomes = []
    for steps in count():
        made = Lake(f"{s3}/{steps}")
        stage(made, "run0")
        made.commit("ingest", "run0", TABLES)
        stage(made, "run1")
        try:
            InterruptedLake(made.root, steps).commit("ingest", "run1", TABLES)
            break
        except Killed:
            pass
        made.discard("ingest", "run1" if steps else "none")  # as a job that fails but is not killed
        Lake(made.root).recover("ingest")
        outcomes.append("old" if seen(made) == all_of("run0") else "new")
        assert seen(made) in (all_of("run0"), all_of("run1"))
    assert outcomes == ["old"] + ["new"] * (len(outcomes) - 1)
    assert len(outcomes) > 1 + 4 + 1  # the journal, four copies, one deletion


def test_two_jobs_that_complete_one_commit_lose_nothing(s3: str) -> None:
    for steps in count(1):
        made = Lake(f"{s3}/{steps}")
        stage(made, "run0")
        made.commit("ingest", "run0", TABLES)
        stage(made, "run1")

        class Slow(InterruptedLake):
            """A lake during whose commit another job starts and completes it."""

            def _step(self) -> None:
                self.left -= 1
                if self.left == -1:
                    Lake(self.root).recover("score")

        slow = Slow(made.root, steps)
        slow.commit("ingest", "run1", TABLES)
        assert seen(made) == all_of("run1")
        if slow.left >= 0:
            break
    assert steps > 6


def test_a_file_too_large_for_s3_to_copy_stops_the_commit_before_it_begins(s3: str, monkeypatch) -> None:
    monkeypatch.setattr(store, "_LARGEST_COPY", 5)
    made = Lake(s3)
    stage(made, "run1")
    with pytest.raises(TooLarge, match=r"flows/\S+ holds 7 bytes; expected less than 5.*write more files"):
        made.commit("ingest", "run1", TABLES)
    made.discard("ingest", "run1")
    assert seen(made) == {}


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:8", "AWS_ENDPOINT_URL_S3": "https://s3.ward:9/"}, "https://s3.ward:9"),
    ],
)
def test_the_environment_names_server_and_region(monkeypatch, variables, address) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    scheme, host = address.split("://")
    for region in ("us-east-1", "eu-north-1"):
        fs, path = resolve("s3a://ward/lake/a b")
        assert path == "ward/lake/a b"
        patience = {"request_timeout": 20, "connect_timeout": 5}
        assert fs.equals(pafs.S3FileSystem(endpoint_override=host, scheme=scheme, region=region, **patience))
        assert fs is resolve("s3://ward/x")[0]  # one client, and both spellings
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9000", "ftp://host", "http://", "https://id:secret@host", "http://h/path"]
)
def test_an_invalid_address_is_refused_without_showing_it(monkeypatch, address) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    with pytest.raises(InputError) as error:
        resolve("s3a://ward/lake")
    assert "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is not a server address such as https://host:9000" in str(
        error.value
    )
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("uri", ["s3a://key:secret@ward/lake", "hdfs://secret@nodes/lake"])
def test_a_secret_in_a_uri_is_refused_and_not_shown(uri) -> None:
    with pytest.raises(InputError, match="contains a user or a secret") as error:
        resolve(uri)
    assert "secret@" not in str(error.value)
    assert "…@" in str(error.value)


def test_hdfs_without_the_client_of_hadoop_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    code = "from ids_spark.lake.filesystem import resolve; resolve('hdfs://127.0.0.1:9/lake')"
    shell = {name: value for name, value in os.environ.items() if name not in ("HADOOP_HOME", "CLASSPATH")}
    shell["ARROW_LIBHDFS_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=shell, capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ids_spark.base.errors.InputError: hdfs://127.0.0.1:9/lake: ")
    assert "libhdfs" in said
    assert "CLASSPATH from: hadoop classpath --glob" in said


@pytest.mark.parametrize(
    "uri", ["s3a:///lake", "s3a:ward/lake", "s3a://ward/lake?region=x", "gs://ward/x", "hdfs:/lake"]
)
def test_other_forms_of_uris_are_refused(uri) -> None:
    with pytest.raises(InputError, match="expected a local path or a file:, hdfs: or s3a: URI"):
        resolve(uri)


@pytest.mark.slow
def test_all_jobs_run_on_s3_with_the_same_results_as_on_files(s3: str, tmp_path: Path, spark: SparkSession) -> None:
    folder = prepare(tmp_path / "night")
    write_synthetic_source(folder / "source")
    for uri in files_in(str(folder / "source"), ""):
        write_bytes(f"{s3}/source/{uri.removeprefix(f'{folder}/source/')}", read_bytes(uri))
    outputs = []
    for job in ("prepare", "train", "score"):
        outputs.append(submit(folder, job, *SETTINGS, f"lake={s3}/lake", f"ingest.source={s3}/source"))
    for job in ("ingest", "features", "train", "score"):
        outputs.append(in_process.run(folder, job, *SETTINGS, f"ingest.source={folder}/source"))
    for code, output in outputs:
        assert code == 0, output
    remote, local = f"{s3}/lake", str(folder / "lake")
    for table in ("flows", "split_predictions", "metrics"):
        fs, path = resolve(f"{remote}/{table}")
        found, expected = pq.read_table(path, filesystem=fs).to_pandas(), pd.read_parquet(f"{local}/{table}")
        volatile = ["run_id", "scored_at", "model_version"]
        keys = [name for name in ("row_key", "source_file", "source_row", "metric", "class_name") if name in found]
        frames = [
            f.drop(columns=volatile, errors="ignore").sort_values(keys, ignore_index=True) for f in (found, expected)
        ]
        assert len(frames[0]) > 0
        pd.testing.assert_frame_equal(frames[0], frames[1][frames[0].columns])
    tables = {name.split("/")[0] for name in sizes_in(remote)}
    assert tables == {name.split("/")[0] for name in sizes_in(local)}
    assert not any(secret in output for _, output in outputs for secret in s3_servers.CREDENTIALS.values())


@pytest.mark.slow
def test_captures_on_s3_become_flow_logs_on_s3(s3: str, tmp_path: Path) -> None:
    frame = ethernet(ipv4(tcp(), "10.0.0.7", "203.0.113.5"))
    small = pcap([Captured(frame, 1_700_000_000 * 10**9 + i) for i in range(25)])
    large = pcap(
        [Captured(frame + bytes(1_000), 1_700_000_000 * 10**9 + i) for i in range(2_000)]
    )  # 2.1 MB: three pieces
    settings = (f"extract.captures={s3}/pcaps", f"extract.target={s3}/logs", "extract.piece_mb=1")
    prepare(tmp_path)
    for content, packets in ((small, 2_025), (small, 0), (small[:-70], 24)):  # new, unchanged, changed
        if packets:
            write_bytes(f"{s3}/pcaps/ward 3/small.pcap", content)
        if packets > 24:
            write_bytes(f"{s3}/pcaps/large.pcap", large)
        code, output = submit(tmp_path, "extract", *settings)
        assert code == 0, output
        assert f"in={packets} out={packets} " in output
    files = [name for name in sizes_in(f"{s3}/logs") if name.endswith(".parquet")]
    assert len(files) == 4
    tables = [pq.read_table(io.BytesIO(read_bytes(f"{s3}/logs/{name}"))) for name in files]
    assert sum(sum(table["packets"].to_pylist()) for table in tables) == 2_024
    assert {name.split("/")[0] for name in files} == {"event_date=2023-11-14"}
    assert not [name for name in sizes_in(f"{s3}/logs/_extract") if not name.endswith(".json")]


@pytest.mark.slow
def test_delta_tables_and_questions_in_sql_on_s3(s3: str, tmp_path: Path) -> None:
    lake, target = Lake(f"{s3}/lake"), f"{s3}/delta"
    commit_night(lake, "20261125T010000Z-aa")
    add_runs(lake)
    delta.export(lake, target, "20261125T010000Z-aa", 30)
    commit_night(lake, "20261126T010000Z-bb", flows=7)
    changed = delta.export(lake, target, "20261126T010000Z-bb", 30, tidy=True)
    assert {(done.added, done.removed) for done in changed} == {(1, 1), (2, 2)}
    delta.export(lake, f"file://{tmp_path}/delta", "20261126T010000Z-bb", 30)
    for name in delta.EXPORTED:
        expected = plain(in_lake(lake, name))
        assert (
            plain(read("deltalake", f"{target.replace('s3a:', 's3:')}/{name}", options=object_store(target)))
            == expected
        )
        assert plain(read("polars", f"{tmp_path}/delta/{name}")) == expected
    assert sql.query(lake, "select distinct run_id, count(*) as n from predictions group by all").to_pylist() == [
        {"run_id": "20261126T010000Z-bb", "n": 14}
    ]


def test_of_two_delta_commits_to_one_version_on_s3_one_fails(s3: str) -> None:
    uri, options = f"{s3}/t".replace("s3a:", "s3:"), object_store(s3)
    schema = pa.schema([("x", pa.int64())])
    deltalake.DeltaTable.create(uri, schema=deltalake.Schema.from_arrow(schema), storage_options=options)
    tables = [deltalake.DeltaTable(uri, storage_options=options) for _ in range(2)]
    once = deltalake.CommitProperties(max_commit_retries=0)
    for number, table in enumerate(tables):
        add = AddAction(f"{number}.parquet", 1, {}, 0, True, "{}")
        with contextlib.nullcontext() if number == 0 else pytest.raises(CommitFailedError):
            table.create_write_transaction([add], "append", table.schema(), commit_properties=once)
