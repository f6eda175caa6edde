"""Progress lines of a run, over real files and threads."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ids_spark.train.progress import ProgressFile, following, progress_uri


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def test_the_file_is_next_to_the_checkpoint() -> None:
    assert (
        progress_uri("hdfs://namenode/lake/checkpoints/dnn-6.npz")
        == "hdfs://namenode/lake/checkpoints/dnn-6.progress.json"
    )


def test_each_line_is_passed_on_once_and_in_order_while_the_block_runs(tmp_path: Path) -> None:
    uri, received = progress_uri(str(tmp_path / "checkpoints" / "dnn.npz")), []
    lines = [f"epoch {i} · größer" for i in range(300)]

    def write() -> None:
        progress_file = ProgressFile(uri)
        for line in lines[:-1]:
            progress_file.add(line)
            time.sleep(0.004)  # so that the file is read several times between the first line and the last
        until(lambda: received == lines[:-1])  # the block is still running in this thread
        progress_file.add(lines[-1])

    with following(uri, received.append):
        writer = threading.Thread(target=write)
        writer.start()
        until(lambda: len(received) > 0)
        assert received == lines[: len(received)]
        assert len(received) < len(lines)  # not all at once at the end
        writer.join()
    assert received == lines  # the last one too, added just before the end
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_lines_of_an_earlier_run_are_not_repeated(tmp_path: Path) -> None:
    uri, received = str(tmp_path / "dnn.progress.json"), []
    ProgressFile(uri).add("of an earlier run")
    with following(uri, received.append):
        pass
    assert received == []


def test_a_missing_or_half_written_file_is_waited_for(tmp_path: Path) -> None:
    path, received = tmp_path / "dnn.progress.json", []
    with following(str(path), received.append):
        path.write_bytes(b'["first", "\xc3')
        time.sleep(1.1)  # at least one read
        assert received == []
        path.unlink()
        progress_file = ProgressFile(str(path))
        progress_file.add("first")
        until(lambda: received == ["first"])
        path.write_bytes(b'["first", "sec')  # incomplete after it was complete
        time.sleep(1.1)
        progress_file.add("second")
        until(lambda: received == ["first", "second"])
    assert received == ["first", "second"]
    assert not path.exists()


def test_without_a_single_line_nothing_is_passed_on_or_left(tmp_path: Path) -> None:
    received: list[str] = []
    with following(str(tmp_path / "absent" / "dnn.progress.json"), received.append):
        pass
    assert received == []
    assert list(tmp_path.iterdir()) == []


def test_after_an_error_the_last_lines_are_passed_on_and_the_file_is_gone(tmp_path: Path) -> None:
    uri, received = str(tmp_path / "dnn.progress.json"), []
    before = threading.active_count()

    def fail() -> None:
        ProgressFile(uri).add("epoch 1")
        raise RuntimeError("rank 1 is lost")

    with pytest.raises(RuntimeError, match="rank 1 is lost"), following(uri, received.append):
        fail()
    assert received == ["epoch 1"]
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before  # the thread has ended
