"""Records of data are one line each, whatever the data hold; data cannot imitate a record."""

import io
import logging
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.base.logs import log_to_stderr
from ids_spark.dataset.features import SchemaMismatch
from tests.support.flows import ROOT

FORGED = "2026-11-28 01:02:03,456 INFO    score done in=5 out=5"
ENDS = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")
HOSTILE = "\x1b[2K\u202e\u2066\u200b\u200f\x00\x07"
log = logging.getLogger("ids_spark.test")


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Standard error of a process that has just started, with the log of jobs."""
    root, own, stream = logging.getLogger(), logging.getLogger("ids_spark"), io.StringIO()
    before = root.handlers[:], root.level, own.level
    root.handlers.clear()
    monkeypatch.setattr(sys, "stderr", stream)
    with warnings.catch_warnings():
        log_to_stderr(logging.INFO)
        yield stream
        logging.captureWarnings(False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def records(stream: io.StringIO) -> list[str]:
    """Return the lines that a reader takes as records: those that begin with a time."""
    text = stream.getvalue()
    assert all(c.isprintable() or c == "\n" for c in text)
    return [line for line in text.split("\n") if re.match(r"\d{4}-", line)]


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_value_can_neither_split_nor_imitate_a_record(stderr: io.StringIO, end: str) -> None:
    text = f"a{end}{FORGED}{HOSTILE}"
    log.warning("unreadable file=%s error=%s rows=%d", text, OSError(text), 5)
    log.warning("%(name)s", {"name": text})
    log.warning("columns %s and %r", [text], text)
    log.error("%s", InputError(f"{text} lacks a column", f"{text} is there twice"))
    lines = stderr.getvalue().splitlines()
    assert [line.startswith("    ") or line[:2] == "  " for line in lines] == [False] * 4 + [True]
    assert len(records(stderr)) == 4


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_stack_trace_continues_in_lines_that_begin_with_a_blank(stderr: io.StringIO, end: str) -> None:
    try:
        raise ValueError(f"a{end}{FORGED}{HOSTILE}")
    except ValueError:
        log.exception("score failed")
    first, *more = records(stderr)
    assert first.endswith("score failed")
    assert more == []
    others = stderr.getvalue().rstrip("\n").split("\n")[1:]
    assert "Traceback" in others[0]
    assert all(line.startswith(" ") for line in others)


def test_warnings_of_python_are_records(stderr: io.StringIO) -> None:
    warnings.warn(f"a\n{FORGED}", UserWarning, stacklevel=1)
    [record] = records(stderr)
    assert "WARNING" in record


@pytest.mark.parametrize("kind", [InputError, Interrupted, SchemaMismatch])
def test_a_message_has_the_lines_it_was_given_and_none_of_its_data(kind: type[Exception]) -> None:
    error = kind("found x\ny", "z\u202e")
    for each in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - as between a task and the driver
        assert str(each) == "found x\\ny\n  z\\u202e"
        assert type(each) is kind


def test_an_argument_of_the_command_line_adds_no_line() -> None:
    code = "import sys; from ids_spark.runtime import job; sys.exit(job.main(print, 'A job.', sys.argv[1:]))"
    code = f"{code[:7]}sys; sys.path.insert(0, {str(ROOT)!r}); import {code[7:]}"
    code = code.replace("job.main(print", "job.main(lambda context: None")
    done = subprocess.run([sys.executable, "-c", code, f"a\n{FORGED}"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not [line for line in done.stderr.split("\n") if line.startswith("2026")]
