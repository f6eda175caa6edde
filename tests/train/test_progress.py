"""Lines of a run on their way to the driver, over real files and threads."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ids_spark.train.progress import Published, followed, progress_uri


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def test_the_file_stands_beside_the_checkpoint() -> None:
    assert (
        progress_uri("hdfs://namenode/lake/checkpoints/dnn-6.npz")
        == "hdfs://namenode/lake/checkpoints/dnn-6.progress.json"
    )


def test_each_line_is_handed_on_once_and_in_order_while_the_block_runs(tmp_path: Path) -> None:
    uri, heard = progress_uri(str(tmp_path / "checkpoints" / "dnn.npz")), []
    lines = [f"epoch {i} · größer" for i in range(300)]

    def speak() -> None:
        published = Published(uri)
        for line in lines[:-1]:
            published.say(line)
            time.sleep(0.004)  # so that several looks fall between the first line and the last
        until(lambda: heard == lines[:-1])  # the block is still running: this thread keeps it
        published.say(lines[-1])

    with followed(uri, heard.append):
        speaker = threading.Thread(target=speak)
        speaker.start()
        until(lambda: len(heard) > 0)
        assert heard == lines[: len(heard)]
        assert len(heard) < len(lines)  # not all at once in the end
        speaker.join()
    assert heard == lines  # the last one too, said just before the end
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_lines_of_an_earlier_run_are_not_repeated(tmp_path: Path) -> None:
    uri, heard = str(tmp_path / "dnn.progress.json"), []
    Published(uri).say("of yesterday")
    with followed(uri, heard.append):
        pass
    assert heard == []


def test_a_missing_or_half_written_file_is_waited_for(tmp_path: Path) -> None:
    path, heard = tmp_path / "dnn.progress.json", []
    with followed(str(path), heard.append):
        path.write_bytes(b'["first", "\xc3')
        time.sleep(1.1)  # one look at least
        assert heard == []
        path.unlink()
        published = Published(str(path))
        published.say("first")
        until(lambda: heard == ["first"])
        path.write_bytes(b'["first", "sec')  # torn after it was whole
        time.sleep(1.1)
        published.say("second")
        until(lambda: heard == ["first", "second"])
    assert heard == ["first", "second"]
    assert not path.exists()


def test_without_a_single_line_nothing_is_said_or_left(tmp_path: Path) -> None:
    heard: list[str] = []
    with followed(str(tmp_path / "absent" / "dnn.progress.json"), heard.append):
        pass
    assert heard == []
    assert list(tmp_path.iterdir()) == []


def test_after_an_error_the_last_lines_are_handed_on_and_the_file_is_gone(tmp_path: Path) -> None:
    uri, heard = str(tmp_path / "dnn.progress.json"), []
    before = threading.active_count()

    def fail() -> None:
        Published(uri).say("epoch 1")
        raise RuntimeError("rank 1 is lost")

    with pytest.raises(RuntimeError, match="rank 1 is lost"), followed(uri, heard.append):
        fail()
    assert heard == ["epoch 1"]
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before  # the thread has ended
