"""Start and end of every job: arguments, configuration, session, logging, commit, audit row, exit code."""

import argparse
import contextlib
import datetime as dt
import logging
import os
import re
import stat
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

from pyspark import SparkContext
from pyspark.sql import SparkSession

from ids_spark.base import process
from ids_spark.base.errors import InputError, Interrupted, Message
from ids_spark.base.logs import printable
from ids_spark.base.report import FollowUp, Report
from ids_spark.base.text import one_line
from ids_spark.config.loader import load
from ids_spark.config.settings import Config
from ids_spark.lake import storage_faults
from ids_spark.lake.filesystem import require_writable
from ids_spark.lake.lease import Lease
from ids_spark.lake.store import Lake
from ids_spark.models.signatures import ENVIRONMENT
from ids_spark.runtime import cluster_security, worker_python
from ids_spark.runtime.audit import Status, text_of, write_audit_row

log = logging.getLogger(__name__)

DONE: Final = 0
FAILED: Final = 1
REFUSED: Final = 2
DEGRADED: Final = 3

_ON_INDEX: Final = ("nights/", "incidents/", "verdicts/", "reports/")
"""Tables that `reports/index.html` shows."""
_TIDY: Final = frozenset({"export", "purge"})
"""Jobs after which expired versions of Delta tables are deleted."""
_PRIVATE: Final = f"ids_spark-{os.getuid()}"
_DISK_IS_FULL = re.compile(r"^.*(?:No space left on device|Disk quota exceeded).*$", re.MULTILINE)


@dataclass(frozen=True)
class Context:
    """The environment of a job.

    Attributes:
        config: Validated configuration.
        lake: The lake with its tables.
        job: Name of the job.
        run_id: Identifier of this run in every table; sorts by time.
        application: Name of the file that was submitted: that of the job, or of a sequence of jobs.
        starting: The Spark session, if it starts in the background; None of a cluster.
    """

    config: Config
    lake: Lake
    job: str
    run_id: str
    application: str
    starting: "Future[SparkSession | None] | None" = None

    @cached_property
    def spark(self) -> SparkSession:
        """The Spark session; started on first use, because some jobs need no executors, or in the background."""
        found = None if self.starting is None else self.starting.result()
        return found or _session_of(self.config, self.application)

    @cached_property
    def lease(self) -> Lease:
        """The lease that marks this run as active for other jobs, from its first staged table on."""
        return Lease(self.lake.root, self.run_id)

    def staged(self, table: str) -> str:
        """Return the URI where this run writes the new version of a table."""
        self.lease.take()
        return self.lake.staged(self.job, self.run_id, table)

    def commit(self, tables: Sequence[str]) -> None:
        """Commit everything that this run has staged so far, so that its next steps can read it from the lake.

        Args:
            tables: All of these tables; the report of the run must not list them again.
        """
        self.lease.check()
        self.lake.commit(self.job, self.run_id, tables)


def new_run_id() -> str:
    """Return a unique run id that sorts by time."""
    return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


def main(
    run: Callable[[Context], Report], doc: str, argv: Sequence[str] | None = None, *, needs_spark: bool = False
) -> int:
    """Run a job and return its exit code: 0 done, 3 done but incomplete, 2 refused (configuration or input), 1 failed.

    A refused or failed run writes its audit row and nothing else, and a refused one not even that where there is no
    lake yet. A run whose report is `degraded` has written its tables, as has one whose Delta tables could not be
    brought up to date.

    Args:
        run: The job; stages tables and lists them in its report; commits nothing itself.
        doc: The job's module docstring, shown by `--help`.
        argv: Arguments; default those of the process.
        needs_spark: As for `sequence`.
    """
    return sequence({_name_of(run): run}, doc, argv, needs_spark=needs_spark)


def sequence(
    runs: Mapping[str, Callable[[Context], Report]],
    doc: str,
    argv: Sequence[str] | None = None,
    *,
    needs_spark: bool = False,
) -> int:
    """Run jobs in their order in one Spark application, and return the exit code of the last one that ran.

    Each has its own run id, audit row and commit, as if it had been submitted alone with the same arguments. A job runs
    only if the one before ended with 0.

    Args:
        runs: Each job by its name, as for `main`; all are of one file.
        doc: Docstring of that file, shown by `--help`.
        argv: Arguments; default those of the process.
        needs_spark: Start a local Spark session in the background at once: the JVM takes a second for it, while the job
            imports modules and reads models. What refuses a session is raised where the job first uses it. A cluster
            is connected to on first use, so that a job that is refused neither waits for it nor takes its executors.
    """
    first = next(iter(runs.values()))
    application = _name_of(first)
    given = _configured(application, first.__module__, doc, argv)
    if given is None:
        return REFUSED
    running, code = SparkSession.getActiveSession(), DONE
    with ThreadPoolExecutor(1) as background:
        starting = None
        if needs_spark and running is None:
            starting = background.submit(_local_session_of, given[0], application)
        try:
            for job, run in runs.items():
                run_id = new_run_id()
                if (code := _run(run, job, run_id, *given, application, starting)) != DONE:
                    break
            if code in (DONE, DEGRADED) and not _exported(*given, job, run_id):
                code = DEGRADED
        finally:
            started = starting.result() if starting is not None and starting.exception() is None else None
            if started is None and running is None:
                started = SparkSession.getActiveSession()
            if started is not None:
                started.stop()
    return code


def check(run: Callable[[Config, Lake], list[str]], doc: str, argv: Sequence[str] | None = None) -> int:
    """Run a job that only reads, and return its exit code: 0 done, 3 faults were found, 2 refused.

    It starts no Spark session, writes nothing, not even an audit row, and does not complete the commits of killed runs.

    Args:
        run: The job; logs what it finds, and returns the faults, one line each.
        doc: The job's module docstring, shown by `--help`.
        argv: Arguments; default those of the process.
    """
    given = _configured(_name_of(run), run.__module__, doc, argv)
    if given is None:
        return REFUSED
    try:
        faults = run(*given)
    except Exception as error:
        known = error if isinstance(error, Message) else known_fault(error, given[1].root)
        if known is None:
            raise
        log.error("%s", known)
        return REFUSED if isinstance(known, InputError) else FAILED
    for fault in faults:
        log.error("%s", fault)
    return DEGRADED if faults else DONE


def _name_of(run: Callable[..., object]) -> str:
    return Path(run.__globals__.get("__file__", "job")).stem


def _configured(job: str, module: str, doc: str, argv: Sequence[str] | None) -> tuple[Config, Lake] | None:
    """Return configuration and lake of a job; None, with a message, if they are refused."""
    parser = _Arguments(prog=f"{job}.py", description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML file; may be repeated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    given = parser.parse_args(argv)
    process.begin(logging.INFO)
    logging.getLogger(module).setLevel(logging.INFO)
    try:
        config = load(given.config, given.set)
        return config, Lake(config.lake)
    except InputError as error:
        log.error("%s", error)
        return None


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End the process; the message quotes arguments."""
        super().error(printable(message))


def _run(
    run: Callable[[Context], Report],
    job: str,
    run_id: str,
    config: Config,
    lake: Lake,
    application: str,
    starting: "Future[SparkSession | None] | None",
) -> int:
    started = dt.datetime.now(dt.UTC)
    log.info("%s starts run_id=%s lake=%s", job, run_id, lake.root)
    context = Context(config, lake, job, run_id, application, starting)
    try:
        require_writable(lake.root)  # else the job would find out at its end
        lake.recover(job)
        report = run(context)
        report.reconcile()
        status: Status = "degraded" if report.degraded else "done"
        audit = write_audit_row(lake, context.staged, job, run_id, started, config, report, status)
        context.lease.check()
        lake.commit(job, run_id, [*report.tables, audit.path])
    except Exception as error:
        return _failed(error, context, started)
    finally:
        context.lease.end()
    indexed = _write_index(lake, report)
    for note in report.notes:
        log.warning("%s", note)
    if report.data_origin == "synthetic":
        log.warning(
            "the flows, or the training data of the model, are synthetic; the figures do not describe real traffic"
        )
    log.info(
        "%s %s in=%d out=%d quarantined=%d duplicate=%d joined=%d left_out=%d seconds=%.1f head=%s",
        job,
        status,
        report.rows_in,
        report.rows_out,
        report.rows_quarantined,
        report.rows_duplicate,
        report.rows_joined,
        report.rows_left_out,
        (dt.datetime.now(dt.UTC) - started).total_seconds(),
        audit.sha256,
    )
    _print(report.lines)
    followed = [_followed(each, config, lake) for each in report.after_commit]
    return DEGRADED if report.degraded or not all((*followed, indexed)) else DONE


def _followed(follow_up: FollowUp, config: Config, lake: Lake) -> bool:
    """Do what follows a commit; return False, with a message and an audit row of its own, if it is incomplete."""
    started = dt.datetime.now(dt.UTC)
    if (reason := follow_up.act()) is None:
        return True
    log.error("%s", reason)
    _write_failure(lake, follow_up.name, started, config, Interrupted(reason))
    return False


def _write_failure(lake: Lake, name: str, started: dt.datetime, config: Config, error: Exception) -> None:
    """Write the audit row of something that failed after the commit of a run, whose own row is written."""
    with contextlib.suppress(OSError, InputError):  # as the lake itself, it could be read only
        write_audit_row(lake, None, name, new_run_id(), started, config, Report(), "failed", text_of(error, config))


def _write_index(lake: Lake, report: Report) -> bool:
    """Write the index of all nights if the run changed what it shows; return False, with a message, if that failed.

    The tables are committed by then, so no error of the index makes the run a failed one.
    """
    if not report.index and not any(table.startswith(_ON_INDEX) for table in report.tables):
        return True
    try:
        from ids_spark.report import index_page  # imported here: few jobs have pages

        index_page.write(lake, again=report.index == "all")
    except Exception as error:
        known = isinstance(error, InputError | OSError)
        text = "%s was not written, the tables of this run are committed: %s; run jobs/report.py on this lake"
        log.error(text, lake.uri("reports/index.html"), one_line(error), exc_info=None if known else error)
        return False
    return True


def _exported(config: Config, lake: Lake, job: str, run_id: str) -> bool:
    """Bring the Delta tables, if there are any, to the state of the lake; return False if that failed.

    The lake, which is the source, is complete by then: the error is logged, and recorded in an audit row of its own.
    """
    if config.export.delta is None:
        return True
    from ids_spark.lake import delta  # which most lakes do not need

    started = dt.datetime.now(dt.UTC)
    try:
        delta.export(lake, config.export.delta, run_id, config.export.keep_days, tidy=job in _TIDY)
    except Exception as error:
        known = error if isinstance(error, Message | OSError) else None
        known = known_fault(error, config.export.delta) or known
        log.error(
            "the lake is complete, its Delta tables are not (export.delta): %s\n"
            "the next job of this lake, or jobs/export.py, brings them up to date",
            known or error,
            exc_info=None if known else error,
        )
        _write_failure(lake, "export", started, config, error)
        return False
    return True


def _failed(error: Exception, context: Context, started: dt.datetime) -> int:
    """Log why a run ended, remove what it has staged, and write its audit row; return the exit code."""
    lake, job, run_id = context.lake, context.job, context.run_id
    known = error if isinstance(error, Message) else known_fault(error, lake.root)
    if known is not None:
        log.error("%s", known)
    else:
        log.error("%s failed", job, exc_info=error)
    refused = isinstance(known, InputError)
    status: Status = "refused" if refused else "failed"
    code = REFUSED if refused else FAILED
    try:
        began = not lake.discard(job, run_id)
    except OSError as unreachable:  # each further request would take as long to fail
        if not refused:
            log.warning(
                "what this run staged could not be removed, nor its audit row written: %s; the next job of this lake"
                " removes it, or completes the commit if that had begun",
                one_line(unreachable),
            )
        return code
    if began:  # its audit row is part of the commit, and others may have named it already
        log.warning("the commit of this run has begun; the next job of this lake completes it, with its audit row")
        return code
    try:
        if code == FAILED or lake.holds_tables():
            text = text_of(error, context.config)
            row = write_audit_row(lake, None, job, run_id, started, context.config, Report(), status, text)
            log.info("%s %s run_id=%s head=%s", job, status, run_id, row.sha256)
    except (OSError, InputError) as unwritten:  # often because the lake itself failed
        log.warning("the audit row of this run could not be written: %s", unwritten)
    return code


def _print(lines: Sequence[str]) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    for line in map(printable, lines):  # a terminal may lack characters of names
        sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def known_fault(error: BaseException, lake: str) -> Message | None:
    """Return an error with a message for a full disk or a failing store, of the driver or an executor; else None."""
    found = _DISK_IS_FULL.search(str(error))
    if found is None:
        return storage_faults.explained(error, lake)
    return Interrupted(
        f"a disk is full: {found[0].strip()}",
        f"expected room for the new tables in {lake} or another folder of the settings (extract.target), and"
        " for shuffled rows on every machine (SPARK_LOCAL_DIRS, spark.local.dir); tests/README.md gives sizes",
        "the old tables are unchanged; free space and run the same command again",
    )


def secret_variables(config: Config) -> tuple[str, ...]:
    """Return the names of the environment variables in which the driver finds its keys."""
    key = config.train.sign_key or ""
    signing = (key.removeprefix(ENVIRONMENT),) if key.startswith(ENVIRONMENT) else ()
    return (config.score.pseudonym_key_env, *signing, *config.promote.secret_variables)


def _session_of(config: Config, application: str) -> SparkSession:
    return session(f"ids_spark {application}", config.open_cluster, secret_variables(config))


def _local_session_of(config: Config, application: str) -> SparkSession | None:
    """Return a session in which driver and tasks are one process; None if the master is a cluster."""
    return _session_of(config, application) if cluster_security.is_local(_submitted()[1]) else None


def _submitted() -> tuple[Any, str]:
    """Return the settings with which the application was submitted, and its master.

    They can be read only after the JVM is connected; one that is started here inherits the environment.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    SparkContext._ensure_initialized()
    given = SparkContext._jvm.SparkConf()  # type: ignore[union-attr]
    return given, given.get("spark.master", "local[*]")


def session(app: str, open_cluster: bool = False, secrets: Sequence[str] = ()) -> SparkSession:
    """Start or reuse the Spark session; in local mode all its ports are on the loopback interface.

    Python processes of executors, and with them the ranks, find these secrets and that of the cluster empty in their
    environment.

    Args:
        app: Name of the application.
        open_cluster: Also connect to a cluster without the encryption of `cluster_security.REQUIRED`.
        secrets: Names of environment variables with secrets of the driver.

    Raises:
        InputError: connections to the cluster are not encrypted, a secret is on the command line or for executors, no
            task could run, or executors have another Python or other packages than this driver.
    """
    progress = str(sys.stderr.isatty()).lower()  # no progress bar in a log file
    builder = SparkSession.builder.appName(app).config("spark.ui.showConsoleProgress", progress)
    given, master = _submitted()
    cluster_security.require_encryption(given, master, open_cluster)
    cluster_security.refuse_secrets_for_executors(given, secrets)
    system = SparkContext._jvm.System  # type: ignore[union-attr]
    cluster_security.refuse_secret_on_command_line(system.getProperty("sun.java.command") or "")
    if master.startswith("local"):
        local = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
        if not (os.environ.get("SPARK_LOCAL_DIRS") or given.get("spark.local.dir", "")):
            temporary = "java.io.tmpdir"  # default of spark.local.dir, which Spark cannot be given without a warning
            if not system.getProperty(temporary).endswith(_PRIVATE):
                system.setProperty(temporary, private_folder(system.getProperty(temporary)))
        for key, value in local.items():
            builder = builder.config(key, value)
        builder = builder.master(master)
    _require_a_slot(given, master)
    worker_python.refuse_absent(given, master)
    spark = builder.getOrCreate()
    for name in (cluster_security.SPARK_SECRET, *secrets):
        spark.sparkContext.environment[name] = ""
    if not cluster_security.is_local(master):
        worker_python.require_same(spark.sparkContext)
    return spark


def private_folder(base: str) -> str:
    """Return a folder for Spark's temporary files that only this user can enter; Spark makes those files readable.

    Args:
        base: Folder for temporary files of every user.

    Raises:
        InputError: the path is a link, or a file or folder of another user.
    """
    path = f"{base}/{_PRIVATE}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InputError(
            f"{path}, for temporary files, is not a folder of this user; remove it, or set SPARK_LOCAL_DIRS"
        )
    os.chmod(path, 0o700)
    return path


def _require_a_slot(given: Any, master: str) -> None:
    """Refuse a number of CPUs for each task that no executor has; Spark would end with a stack trace."""
    cpus = int(given.get("spark.task.cpus", "1"))
    cores = given.get("spark.executor.cores", str(cpus))
    if master.startswith("local"):
        match = re.match(r"local\[(\d+|\*)", master)
        processors = SparkContext._jvm.Runtime.getRuntime().availableProcessors  # type: ignore[union-attr]
        cores = (processors() if match[1] == "*" else match[1]) if match else "1"
    if int(cores) < cpus:
        raise InputError(
            f"spark.task.cpus is {cpus}, but an executor of {master} has {cores} core(s), so that no task can run; set"
            " spark.task.cpus lower, or give executors more cores"
        )
