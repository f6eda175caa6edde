"""Makes inputs, runs jobs on them in this process, and keeps those on which a check failed."""

import contextlib
import importlib
import json
import logging
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from ids_spark.base.errors import InputError
from ids_spark.runtime import job
from tests.fuzz import checks, csv_tree, documents, lake_files, model_files, nights, parquet_sources
from tests.fuzz.case import Base, Case, Make
from tests.fuzz.draw import Draw
from tests.support.flows import PLAIN
from tests.support.in_process import records_to, run
from tests.support.nights import DATE, MODEL, make_nights

TARGETS: Final[dict[str, tuple[Make, float]]] = {
    "CSV tree": (csv_tree.make, 14),
    "parquet table": (parquet_sources.make_table, 10),
    "parquet tree": (parquet_sources.make_tree, 8),
    "split": (parquet_sources.make_split, 5),
    "night": (nights.make, 22),
    "configuration": (documents.make_config, 8),
    "severity policy": (documents.make_severity, 5),
    "allow-list": (documents.make_allow_list, 5),
    "journal": (lake_files.make_journal, 8),
    "lease": (lake_files.make_lease, 4),
    "facts": (lake_files.make_facts, 4),
    "model": (model_files.make_model, 8),
    "checkpoint": (model_files.make_checkpoint, 6),
}
"""What is mutated: how an input is made, and how often."""
_LONGEST_S: Final = 90


def session() -> SparkSession:
    """Start Spark with one task slot, as an input has few rows; its output goes to this process' standard error."""
    return (
        SparkSession.builder.master("local[1]")
        .appName("ids_spark fuzz")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )


def make_base(folder: Path, trained: Path | None) -> None:
    """Make everything that inputs are made from.

    Args:
        folder: To write.
        trained: A folder as `tests.support.nights.make_nights` writes it; None: it is made, which trains a model.
    """
    if trained is None:
        trained = folder / "trained"
        make_nights(trained)
    draw = Draw(0, 0)
    for name in ("flows", "night"):
        (folder / name / "lake").mkdir(parents=True)
    frames = csv_tree.valid_files(draw)
    for name, content in frames.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    code, log = run(folder / "flows", "ingest", f"ingest.source={folder}/source")
    if code:
        raise RuntimeError(log)
    logs = sorted((trained / "logs" / f"event_date={DATE}").glob("*.parquet"))
    table = pa.concat_tables([pq.ParquetFile(path).read() for path in logs]).slice(0, 2_000)
    night = folder / "night/logs" / f"event_date={DATE}"
    night.mkdir(parents=True)
    pq.write_table(table, folder / "logs.parquet")
    pq.write_table(table.slice(0, 60), night / "flows-0.parquet")
    shutil.copytree(trained / "lake/models", folder / "night/lake/models")
    settings = (f"score.flow_logs={folder}/night/logs", f"score.date={DATE}", f"score.models=[{MODEL}]")
    code, log = run(folder / "night", "score", *settings)
    if code:
        raise RuntimeError(log)
    shutil.copy(trained / f"lake/checkpoints/{MODEL}.npz", folder / "checkpoint.npz")


def opened(folder: Path) -> Base:
    """Return what `make_base` wrote."""
    return Base(
        folder / "flows/lake", folder / "night/lake", folder / "checkpoint.npz", pq.read_table(folder / "logs.parquet")
    )


def made(seed: int, index: int, base: Base, folder: Path, only: str | None = None) -> tuple[str, Draw, Case]:
    """Return the input of a seed and an index: its target, its choices, its files."""
    draw = Draw(seed, index)
    target = draw.weighted({name: weight for name, (_, weight) in TARGETS.items()})
    target = only or target
    case = TARGETS[target][0](draw, base, folder)
    return target, draw, case


class Watched:
    """Runs inputs with everything that this process and its children write to standard error kept in a file.

    Args:
        output: File for standard error; made before Spark starts, which inherits it.
    """

    def __init__(self, output: Path) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(output, "w+b", buffering=0)  # noqa: SIM115
        os.dup2(self._file.fileno(), 2)
        signal.signal(signal.SIGALRM, _too_long)

    def run(self, case: Case) -> tuple[int | None, list[logging.LogRecord], str]:
        """Run the job of an input; returns exit code, log records and standard error."""
        self._file.seek(0)
        self._file.truncate()
        with _records() as records:
            signal.alarm(_LONGEST_S)
            try:
                code = _run(case)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                traceback.print_exc()
                code = None
            finally:
                signal.alarm(0)
        sys.stderr.flush()
        self._file.seek(0)
        return code, records, self._file.read().decode("utf-8", "replace")


def _run(case: Case) -> int:
    if case.read is not None:
        try:
            case.read()
        except InputError as error:
            logging.getLogger("ids_spark").error("%s", error)
            return job.REFUSED
        return job.DONE
    code = _job(case, case.job, case.settings)
    if code == job.DONE and case.after is not None:
        case.table = "nights"
        case.before = checks.snapshot(case.folder)
        code = _job(case, *case.after)
    return code


def _job(case: Case, name: str, settings: list[str]) -> int:
    module = importlib.import_module(f"jobs.{name}")
    arguments = ["--config", case.config] if case.config else []
    arguments += [part for setting in (PLAIN, *settings, f"lake={case.lake}") for part in ("--set", setting)]
    return job.main(module.run, module.__doc__ or "", arguments)


def _too_long(_: int, __: FrameType | None) -> None:
    raise TimeoutError(f"no end after {_LONGEST_S} s")


@contextlib.contextmanager
def _records() -> Iterator[list[logging.LogRecord]]:
    found: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    with records_to(Keep()):
        yield found


def run_one(watched: Watched, base: Base, out: Path, seed: int, index: int, only: str | None = None) -> dict[str, Any]:
    """Run one input and check it; its folder is kept where a check failed."""
    folder, begin = out / "inputs" / str(index), time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    target, draw, case = made(seed, index, base, folder, only)
    before = checks.snapshot(case.folder)
    code, records, output = watched.run(case)
    try:
        faults = checks.faults_of(case, code, records, output, case.before or before)
    except Exception as error:
        faults = [f"a check failed: {error!r}"[:300]]
    result = {
        "index": index,
        "target": target,
        "code": code,
        "seconds": round(time.monotonic() - begin, 2),
        "faults": faults,
        "applied": draw.applied,
    }
    if faults:
        (folder / "stderr.txt").write_text(output, errors="replace")
        (folder / "what.json").write_text(
            json.dumps(result | {"job": case.job, "settings": case.settings, "rows": case.rows}, indent=1, default=str)
        )
    else:
        shutil.rmtree(folder)
    return result
