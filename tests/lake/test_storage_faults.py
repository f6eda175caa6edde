"""A busy, failing or refusing store: asked again, or named in one message; tables are old or new."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.lake import filesystem, storage_faults
from ids_spark.lake.filesystem import exists, files_in, names_in, read_bytes, resolve, sizes_in, write_bytes, write_json
from ids_spark.lake.store import Lake
from tests.support import s3_servers
from tests.support.flows import write_synthetic_source
from tests.support.s3_servers import Proxy, share
from tests.support.submitting import prepare, submit

REFUSALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running S3 server."""
    pytest.importorskip("moto", reason="the development lock is not installed")
    with s3_servers.s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, which this process and its jobs use."""
    made = Proxy(server)
    s3_servers.use(monkeypatch, made.address)
    yield made
    made.close()


@pytest.fixture
def place() -> str:
    return f"s3a://{s3_servers.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each request is sent once."""
    monkeypatch.setattr(filesystem, "_ATTEMPTS", 1)
    filesystem._s3.cache_clear()
    yield
    filesystem._s3.cache_clear()


def each_first(fault: str) -> Callable[[str, str], str | None]:
    """Every request has a fault when it is sent for the first time."""
    seen = set()

    def fault_of(method: str, path: str) -> str | None:
        first = (method, path.split("&uploadId")[0]) not in seen
        seen.add((method, path.split("&uploadId")[0]))
        return fault if first and not (fault == "cut" and method == "HEAD") else None

    return fault_of


@pytest.mark.parametrize("fault", ["SlowDown", "InternalError", "reset", "cut"])
def test_what_fails_once_is_asked_again(proxy: Proxy, place: str, fault: str) -> None:
    proxy.fault_of = each_first(fault)
    content = bytes(range(256)) * 500
    write_bytes(f"{place}/a b.bin", content)
    assert read_bytes(f"{place}/a b.bin") == content
    assert names_in(place) == ["a b.bin"]
    assert proxy.faults[fault] >= 3


def test_an_answer_after_five_seconds_is_waited_for(proxy: Proxy, place: str) -> None:
    write_bytes(f"{place}/a", b"flows")
    once = ["slow"]
    proxy.fault_of = lambda method, path: once.pop() if once else None
    assert exists(f"{place}/a")
    assert (proxy.faults["slow"], once) == (1, [])


@pytest.mark.parametrize("code", REFUSALS)
def test_refused_credentials_are_named_at_once(proxy: Proxy, place: str, code: str) -> None:
    proxy.fault_of = lambda method, path: code
    tried = (
        lambda: read_bytes(f"{place}/a"),
        lambda: exists(f"{place}/a"),
        lambda: sizes_in(place),
        lambda: write_bytes(f"{place}/a", b"x"),
    )
    for do in tried:
        with pytest.raises(OSError, match="AWS Error") as error:
            do()
        said = storage_faults.explained(error.value, place)
        assert isinstance(said, InputError)
        assert "refused the credentials" in str(said)
        assert "AWS_ACCESS_KEY_ID" in str(said)
        in_a_task = RuntimeError(f"Job aborted:\nTraceback\n  File x\nOSError: {error.value}\n\n\tat org.apache")
        assert str(storage_faults.explained(in_a_task, place)) == str(said)
    assert sum(proxy.faults.values()) == len(tried)  # none was asked again


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("SlowDown", Interrupted, "did not do what it was asked"),
        ("InternalError", Interrupted, "did not do what it was asked"),
        ("reset", Interrupted, "NETWORK_CONNECTION"),
    ],
)
def test_a_store_that_keeps_failing_is_no_fault_of_the_user(
    proxy: Proxy, place: str, fault: str, kind: type[Exception], text: str
) -> None:
    proxy.fault_of = lambda method, path: fault
    for do in (lambda: exists(f"{place}/a"), lambda: write_bytes(f"{place}/a", b"x")):
        with pytest.raises(OSError, match="AWS Error") as error:
            do()
        said = storage_faults.explained(error.value, place)
        assert type(said) is kind
        assert text in str(said)
        assert "run the same command again" in str(said)


def test_a_bucket_that_does_not_exist_is_named(proxy: Proxy) -> None:
    with pytest.raises(OSError, match="AWS Error") as error:
        write_bytes("s3a://another/a", b"x")
    said = storage_faults.explained(error.value, "s3a://another/lake")
    assert isinstance(said, storage_faults.StorageRefused)
    assert "no such bucket" in str(said)
    assert storage_faults.explained(OSError("No such file or directory"), "lake") is None


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (
            "[Errno 30] Opening HDFS file '/l/x' failed. Detail: [errno 30] Read-only",
            Interrupted,
            "safe mode",
        ),
        ("HDFS create directory failed. Detail: [errno 255] Unknown error 255", Interrupted, "is the NameNode running"),
        ("HDFS list directory failed. Detail: [errno 13] Permission denied", InputError, "owner or permissions"),
        ("Opening HDFS file '/l/x' failed. Detail: [errno 2] No such file or directory", None, ""),
        (
            "[Errno 13] Cannot create directory '/l/audit'. Detail: [errno 13] Permission denied",
            InputError,
            "owner or mode",
        ),
        (
            "a task:\n  PermissionError: [Errno 13] Permission denied: '/l/x'\n\tat org.apache",
            InputError,
            "denied: '/l/x'\n",
        ),
        ("[Errno 30] Read-only file system: '/l/x'", InputError, "owner or mode"),
        ("[Errno 2] No such file or directory: '/l/x'", None, ""),
    ],
)
def test_errors_of_file_systems_are_told_apart(text: str, kind: type[Exception] | None, said: str) -> None:
    found = storage_faults.explained(OSError(text), "hdfs://nodes/l")
    assert (found is None) if kind is None else isinstance(found, kind)
    assert said in str(found)


@pytest.mark.usefixtures("impatient")
def test_a_put_that_fails_during_a_commit_leaves_a_commit_that_the_next_job_completes(proxy: Proxy, place: str) -> None:
    def stage(lake: Lake, run: str) -> None:
        for name in ("part-0", "part-1", "part-2"):
            write_json(f"{lake.staged('ingest', run, 'flows')}/{name}", run)

    def found(lake: Lake) -> set[str]:
        return {json.loads(read_bytes(uri)) for uri in files_in(lake.uri("flows"), "")}

    lake = Lake(place)
    stage(lake, "run0")
    lake.commit("ingest", "run0", ["flows"])
    stage(lake, "run1")
    final = f"{resolve(place)[1]}/flows/part-1"
    proxy.fault_of = lambda method, path: "InternalError" if method == "PUT" and path == f"/{final}" else None
    with pytest.raises(OSError, match="AWS Error"):
        lake.commit("ingest", "run1", ["flows"])
    assert proxy.faults["InternalError"] == 1
    proxy.fault_of = lambda method, path: None
    Lake(place).recover("score")
    assert found(lake) == {"run1"}
    assert [name for name in sizes_in(place) if not name.startswith("flows/")] == []

    stage(lake, "run2")
    proxy.fault_of = lambda method, path: "InternalError" if method in ("PUT", "POST") and ".commit-" in path else None
    with pytest.raises(OSError, match="AWS Error"):
        lake.commit("ingest", "run2", ["flows"])
    proxy.fault_of = lambda method, path: None
    Lake(place).recover("ingest")
    assert found(lake) == {"run1"}


def test_a_job_with_wrong_credentials_ends_with_2_and_one_message_without_a_secret(
    proxy: Proxy, place: str, tmp_path: Path
) -> None:
    folder = prepare(tmp_path / "night")
    write_synthetic_source(folder / "source", rows=5)
    proxy.fault_of = lambda method, path: "InvalidAccessKeyId"
    code, output = submit(folder, "ingest", f"lake={place}", "ingest.source=source")
    assert code == 2, output
    assert output.count("refused the credentials") == 1
    assert "Traceback" not in output
    assert not any(secret in output for secret in s3_servers.CREDENTIALS.values())


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["SlowDown", "reset"])
def test_a_job_on_a_busy_store_has_the_same_rows(proxy: Proxy, place: str, tmp_path: Path, fault: str) -> None:
    folder = prepare(tmp_path / "night")
    write_synthetic_source(folder / "source", rows=8)
    code, output = submit(folder, "ingest", "ingest.source=source")
    assert code == 0, output
    proxy.fault_of = share(fault, 0.1)
    code, output = submit(folder, "ingest", f"lake={place}", "ingest.source=source")
    assert code == 0, output
    assert proxy.faults[fault] >= 5
    proxy.fault_of = lambda method, path: None
    fs, root = resolve(place)
    for split in ("train", "test"):
        there = pq.read_table(f"{root}/flows/split={split}", filesystem=fs)
        here = pq.read_table(folder / "lake" / "flows" / f"split={split}")
        assert there.num_rows == 48
        assert there.select(["source_file", "source_row"]).equals(here.select(["source_file", "source_row"]))
