"""docker/install.sh and make on machines as they are, without the packages: every step counts as done."""

import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ids_spark import __version__
from tests.support.flows import ROOT

INSTALL = ROOT / "docker" / "install.sh"
LOCKS = {"venv": "build.in", "build": "build.txt", "run": "run.txt", "horovod": "horovod.txt", "java": "java.txt"}

SHELL = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
"""The environment of a shell, also where make started the tests: inside of make, make prints every folder it enters."""

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="install.sh needs a compiler")


def install(folder: Path, **environment: str) -> tuple[int, str, str]:
    """Run install.sh where all its steps are done; returns exit code, messages and env.sh."""
    folder.mkdir(parents=True, exist_ok=True)
    for step, lock in LOCKS.items():
        shutil.copyfile(ROOT / "conf" / "locks" / lock, folder / f".done-{step}")
    ended = subprocess.run(
        [str(INSTALL), str(folder), "run"],
        env=os.environ | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    made = folder / "env.sh"
    return ended.returncode, ended.stdout + ended.stderr, made.read_text() if made.exists() else ""


def java_home(folder: Path, *lines: str) -> Path:
    """A Java that prints these lines when asked for its version."""
    program = folder / "jdk" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\ncat >&2 <<'END'\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    return folder / "jdk"


REST = ("OpenJDK Runtime Environment (build 17.0.15+6)", "OpenJDK 64-Bit Server VM (build 17.0.15+6, mixed mode)")


@pytest.mark.parametrize(
    "lines",
    [
        ('openjdk version "17.0.15" 2025-04-15', *REST),
        ('java version "17" 2021-09-14 LTS', *REST),
        ("Picked up JAVA_TOOL_OPTIONS: -Dfile.encoding=UTF-8", 'openjdk version "17.0.15" 2025-04-15', *REST),
        ("NOTE: Picked up JDK_JAVA_OPTIONS: -Xmx1g", "Picked up _JAVA_OPTIONS: -X", 'openjdk version "17.0.1"', *REST),
        ("OpenJDK 64-Bit Server VM warning: an option was ignored", 'openjdk version "17.0.1" 2021-10-19', *REST),
    ],
)  # fmt: skip
def test_java_17_is_recognised_below_any_lines(tmp_path: Path, lines: tuple[str, ...]) -> None:
    home = java_home(tmp_path, *lines)
    code, output, made = install(tmp_path / "venv", JAVA_HOME=str(home))
    assert code == 0, output
    assert f'export JAVA_HOME="{home}"' in made


@pytest.mark.parametrize(
    "lines",
    [
        ('openjdk version "11.0.27" 2025-04-15', "OpenJDK Runtime Environment (build 11.0.27+6)"),
        ('Picked up JAVA_TOOL_OPTIONS: -Dversion="17.0"', 'openjdk version "21.0.1" 2023-10-17'),
        ('java version "1.8.0_17"',),
    ],
)
def test_another_java_is_not_taken_for_17(tmp_path: Path, lines: tuple[str, ...]) -> None:
    home = java_home(tmp_path, *lines)
    _, _, made = install(tmp_path / "venv", JAVA_HOME=str(home))
    assert str(home) not in made


@pytest.fixture
def made(tmp_path: Path) -> str:
    """The content of env.sh."""
    code, output, text = install(tmp_path / "venv")
    assert code == 0, output
    return text


def sourced(text: str, shown: str, *before: str, **environment: str) -> tuple[int, str, str]:
    """Source env.sh as make does; returns exit code, the value of a variable, and messages.

    Args:
        text: Content of env.sh.
        shown: Name of the variable.
        before: A command that starts the shell, such as setpriv.
        environment: Variables.
    """
    ended = subprocess.run(
        [*before, "bash", "-euo", "pipefail", "-c", f'. <(printf %s "$ENV_SH"); printf %s "${{{shown}:-}}"'],
        env=os.environ | {"ENV_SH": text} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(("given", "expected"), [("C", "C.UTF-8"), ("POSIX", "C.UTF-8"), ("C.UTF-8", "C.UTF-8")])
def test_java_gets_an_encoding_for_names_of_files(made: str, given: str, expected: str) -> None:
    assert sourced(made, "LC_ALL", LC_ALL=given) == (0, expected, "")


def test_a_user_without_an_entry_is_refused_in_one_sentence(made: str) -> None:
    as_nobody = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups")
    if shutil.which("setpriv") is None or subprocess.run([*as_nobody, "true"], check=False).returncode:
        pytest.skip("needs the right to change the user (root)")
    code, _, message = sourced(made, "PATH", *as_nobody)
    assert code == 2
    assert message.count("\n") == 1
    assert "user id 54321 has no entry in /etc/passwd" in message
    assert sourced(made, "JAVA_HOME")[0] == 0  # another user may
    entrypoint = (ROOT / "docker" / "entrypoint.sh").read_text()
    ended = subprocess.run(
        [*as_nobody, "bash", "-c", entrypoint, "entrypoint", "true"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "user id 54321 has no entry in /etc/passwd" in ended.stderr


def may_mount() -> bool:
    """Whether this process may mount file systems that only it sees."""
    unshare = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(unshare, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount file systems (root)")
def test_java_unpacks_its_libraries_where_programs_may_run(made: str) -> None:
    noexec = "mount -t tmpfs -o noexec none /tmp && mount -t tmpfs -o noexec none /var/tmp && mount -t tmpfs none /mnt"
    hardened = ("unshare", "-m", "sh", "-c", f'{noexec} && exec "$@"', "sh")
    options, home = "SPARK_SUBMIT_OPTS", {"HOME": "/nowhere"}
    assert sourced(made, options, *hardened, TMPDIR="/mnt", **home) == (0, "-Djava.io.tmpdir=/mnt ", "")
    assert sourced(made, options, *hardened, TMPDIR="/tmp", HOME="/mnt") == (0, "-Djava.io.tmpdir=/mnt ", "")
    given = {options: "-Dx=1", "TMPDIR": "/mnt"}
    assert sourced(made, options, *hardened, **home, **given)[1] == "-Djava.io.tmpdir=/mnt -Dx=1"
    code, _, message = sourced(made, options, *hardened, TMPDIR="/tmp", **home)
    assert code == 2
    assert message.count("\n") == 1
    assert "java.io.tmpdir" in message
    assert sourced(made, options) == (0, os.environ.get(options, ""), "")


def test_jars_that_no_job_needs_are_deleted_and_no_others(tmp_path: Path) -> None:
    jars = tmp_path / "venv" / "lib" / "python3.11" / "site-packages" / "pyspark" / "jars"
    jars.mkdir(parents=True)
    gone = ["derby-10.14.2.0.jar", "json-1.8.jar", "hive-shims-0.23-2.3.9.jar", "guava-14.0.1.jar"]
    kept = ["json4s-ast_2.12-3.7.0-M11.jar", "spark-core_2.12-3.5.9.jar", "json-smart-1.jar", "guava-extra-1.jar"]
    for name in (*gone, *kept):
        (jars / name).touch()
    for _ in range(2):
        code, output, _ = install(tmp_path / "venv")
        assert code == 0, output
        assert sorted(path.name for path in jars.iterdir()) == sorted(kept)


def test_a_path_with_blanks_is_refused_in_one_sentence(tmp_path: Path) -> None:
    code, output, _ = install(tmp_path / "my folder" / "venv")
    assert code == 2
    assert output.count("\n") == 1
    assert "my folder/venv' has blanks" in output


def test_make_in_a_checkout_with_blanks_in_its_path_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "My Projects"
    folder.mkdir()
    shutil.copyfile(ROOT / "Makefile", folder / "Makefile")
    ended = subprocess.run(["make", "run"], cwd=folder, env=SHELL, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "My Projects'; its path has blanks" in ended.stderr


def checkout_with(folder: Path, spark_submit: str) -> Path:
    """A checkout that make takes for installed, with a Python program in place of spark-submit."""
    checkout = folder / "checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    for part in ("conf", "docker", "ids_spark", "jobs"):
        (checkout / part).symlink_to(ROOT / part)
    shutil.copyfile(ROOT / "Makefile", checkout / "Makefile")
    fake = checkout / ".venv" / "bin" / "spark-submit"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from ids_spark.config.loader import load\nargs = sys.argv\n"
        f"found = load([], [v for k, v in zip(args, args[1:]) if k == '--set'])\n{spark_submit}"
    )
    fake.chmod(0o755)
    (checkout / ".venv" / "env.sh").write_text(f'export PATH="{fake.parent}:$PATH"\n')
    (checkout / "dist").mkdir()
    made_files = (
        ".venv/.ready",
        "dist/ids_spark.zip",
        "dist/ids_spark.cdx.json",
        f"dist/ids_spark-{__version__}-py3-none-any.whl",
    )
    for made in (checkout / name for name in made_files):
        made.touch()
        os.utime(made, (4e9, 4e9))  # newer than every source
    return checkout


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--silent", *arguments]
    return subprocess.run(command, cwd=checkout, env=SHELL, capture_output=True, text=True, check=False)


NIGHT_OF_CAPTURES = """
[job] = [a.split('/')[-1][:-3] for a in args if a.startswith('jobs/')]
print(job, found.extract.captures, found.extract.target, found.extract.date, found.score.flow_logs, found.score.date,
      found.score.pending_nights, sep='|')
sys.exit(CODES[job])
"""


@pytest.mark.parametrize(
    ("extract", "score", "jobs", "code"),
    [(0, 0, 2, 0), (3, 0, 2, 2), (3, 3, 2, 2), (0, 3, 2, 2), (2, 0, 1, 2), (1, 0, 1, 2)],
)
def test_make_scores_the_nights_of_captures_also_if_some_were_refused(
    tmp_path: Path, extract: int, score: int, jobs: int, code: int
) -> None:
    checkout = checkout_with(tmp_path, f"CODES = dict(extract={extract}, score={score})\n{NIGHT_OF_CAPTURES}")
    captures, lake = f"{tmp_path}/my captures", f"{tmp_path}/lake"
    logs = f"{lake}/flow_logs"
    ended = make(checkout, "nightly", f"CAPTURES={captures}", f"LAKE={lake}")
    assert ended.returncode == code, ended.stderr
    expected = [f"extract|{captures}|{logs}|None|None|None|False", f"score|None|flow_logs|None|{logs}|None|True"]
    assert ended.stdout.splitlines() == expected[:jobs]
    assert ("captures were not extracted" in ended.stderr) == (extract == 3)
    if not extract:
        ended = make(checkout, "nightly", f"CAPTURES={captures}", f"LAKE={lake}", "DATE=2026-11-24")
        assert ended.stdout.splitlines() == [
            f"extract|{captures}|{logs}|2026-11-24|None|None|False",
            f"score|None|flow_logs|None|{logs}|2026-11-24|False",
        ]


JOBS_OF_NIGHT = """
[job] = [a.split('/')[-1][:-3] for a in args if '/jobs/' in a]
print(job, found.lake, found.extract.captures, found.extract.target, found.score.flow_logs, sep='|')
sys.exit(CODES[job])
"""


@pytest.mark.parametrize(
    ("extract", "score", "purge", "jobs", "code"),
    [
        (0, 0, 0, "extract score purge", 0),
        (3, 0, 0, "extract score purge", 3),
        (3, 3, 0, "extract score purge", 3),
        (0, 3, 1, "extract score purge", 1),
        (1, 0, 2, "extract purge", 1),
        (0, 1, 0, "extract score purge", 1),
        (2, 0, 0, "extract", 2),
        (0, 2, 0, "extract score", 2),
    ],
)
def test_the_script_of_a_night_extracts_captures_if_there_are_any_and_removes_old_nights_unless_it_was_refused(
    tmp_path: Path, extract: int, score: int, purge: int, jobs: str, code: int
) -> None:
    codes = f"CODES = dict(extract={extract}, score={score}, purge={purge})\n"
    script = str(checkout_with(tmp_path, codes + JOBS_OF_NIGHT) / "conf" / "nightly" / "night.sh")
    known = {**SHELL, "LAKE": "/lake", "LOGS": "/logs", "IDS_SPARK_LOCKS": str(tmp_path / "locks")}
    calls = {
        "extract": "extract|/lake|/pcaps|/logs|None",
        "score": "score|/lake|None|flow_logs|/logs",
        "purge": "purge|/lake|None|flow_logs|None",
    }
    expected = [calls[job] for job in jobs.split()]  # nothing is scored after a failure
    ended = subprocess.run([script], env=known | {"CAPTURES": "/pcaps"}, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.splitlines()) == (code, expected), ended.stderr
    if not extract:
        ended = subprocess.run([script], env=known, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout.splitlines()) == (code, expected[1:])


def test_the_script_of_a_night_removes_old_nights_after_a_refused_adaptation(tmp_path: Path) -> None:
    codes = "CODES = dict(score=0, adapt=2, purge=0)\n"
    script = str(checkout_with(tmp_path, codes + JOBS_OF_NIGHT) / "conf" / "nightly" / "night.sh")
    known = {**SHELL, "LAKE": "/lake", "LOGS": "/logs", "IDS_SPARK_LOCKS": str(tmp_path / "locks"), "ADAPT_DAYS": "1"}
    ended = subprocess.run([script], env=known, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert [line.split("|")[0] for line in ended.stdout.splitlines()] == ["score", "adapt", "purge"]


def test_the_script_of_a_night_scores_what_is_pending_every_hour_if_told_to(tmp_path: Path) -> None:
    program = """
[job] = [a.split('/')[-1][:-3] for a in args if '/jobs/' in a]
print(job, found.score.last_days, found.score.pending_nights, found.score.runs_per_night, os.environ['SPARK_CONF_DIR'])
"""
    checkout = checkout_with(tmp_path, f"import os\n{program}")
    known = {**SHELL, "LAKE": "/lake", "LOGS": "/logs", "IDS_SPARK_LOCKS": str(tmp_path / "locks")}

    def jobs(script: str, *arguments: str, **more: str) -> list[str]:
        command = [str(checkout / "conf" / "nightly" / script), *arguments]
        ended = subprocess.run(command, env=known | more, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    own = known.get("SPARK_CONF_DIR") or str(checkout / "conf" / "spark")
    assert jobs("night.sh") == [f"score 14 True 1 {own}", f"purge None False 1 {own}"]
    hourly = jobs("night.sh", RUNS_PER_NIGHT="24", SPARK_CONF_DIR="/private")
    assert hourly[0] == "score 14 True 24 /private"
    hours = [jobs("night.sh", RUNS_PER_NIGHT="24", ADAPT_DAYS="1") for _ in range(2)]  # purge was done above
    assert [[line.split()[0] for line in lines] for lines in [hourly, *hours]] == [
        ["score", "purge"], ["score", "adapt"], ["score"]
    ]  # fmt: skip
    for last in (tmp_path / "locks").glob("*.purge"):
        last.write_text("2026-01-01\n")
    assert len(jobs("night.sh", RUNS_PER_NIGHT="24")) == 2
    given = "--set", "score.flow_logs=/logs", "--set", "score.last_days=2"
    assert jobs("job.sh", "score", *given, LOGS="") == [f"score 2 False 1 {own}"]


@pytest.mark.parametrize(("name", "what"), [("LAKE", "the lake"), ("LOGS", "the flow logs")])
def test_the_script_of_a_night_refuses_missing_settings(tmp_path: Path, name: str, what: str) -> None:
    script = str(checkout_with(tmp_path, "") / "conf" / "nightly" / "night.sh")
    known = {**SHELL, "LAKE": "/lake", "LOGS": "/logs", "IDS_SPARK_LOCKS": str(tmp_path / "locks")}
    ended = subprocess.run([script], env=known | {name: ""}, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{name} is not set; expected {what}" in ended.stderr


def test_one_night_of_a_lake_runs_at_a_time_and_the_lock_is_in_a_private_folder(tmp_path: Path) -> None:
    checkout = checkout_with(tmp_path, "")
    (checkout / ".venv" / "bin" / "spark-submit").write_text("#!/bin/sh\necho ran\n")
    script = str(checkout / "conf" / "nightly" / "night.sh")
    home = tmp_path / "home"
    home.mkdir()
    known = {**{k: v for k, v in SHELL.items() if not k.startswith("XDG_")}, "HOME": str(home), "LOGS": "/logs"}

    def night(lake: str, **more: str) -> subprocess.CompletedProcess[str]:
        told = known | {"LAKE": lake} | more
        return subprocess.run([script], env=told, capture_output=True, text=True, check=False)

    assert night("/lake").returncode == 0
    folder = home / ".local/state/ids_spark"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    [lock] = folder.iterdir()
    assert stat.S_IMODE(lock.stat().st_mode) & 0o037 == 0
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        taken = night("/lake")
        assert (taken.returncode, taken.stdout) == (75, "")
        assert re.search(
            r"another run for /lake has not ended \(pid \d+ on .+ since .+\); nothing was done", taken.stderr
        )
        assert night("/lake//").returncode == 75
        assert night("/another").returncode == 0
    assert night("/lake").returncode == 0
    folder.chmod(0o777)
    opened = night("/lake")
    assert (opened.returncode, opened.stdout) == (2, "")
    assert "is open to other users" in opened.stderr
    (tmp_path / "link").symlink_to(folder)
    assert night("/lake", IDS_SPARK_LOCKS=str(tmp_path / "link")).returncode == 2
    assert "/tmp" not in (ROOT / "conf" / "nightly" / "crontab").read_text()
    assert "/var/lock" not in (ROOT / "conf" / "nightly" / "crontab").read_text()


def test_make_trains_a_demo_model_for_captures_only_without_a_lake(tmp_path: Path) -> None:
    checkout = checkout_with(tmp_path, "print(*[a for a in args if a.startswith('jobs/')])\n")
    jobs = [line.removeprefix("jobs/") for line in make(checkout, "nightly", "CAPTURES=x").stdout.splitlines()]
    assert jobs[:1] == ["synthesize.py"]
    assert jobs[-2:] == ["extract.py", "score.py"]
    assert "train.py" in jobs
    ended = make(checkout, "nightly", "CAPTURES=x", "LOGS=y")
    assert ended.returncode == 2
    assert "expected one of them" in ended.stderr


def test_the_demo_of_make_is_a_day_of_captures_of_the_ward(tmp_path: Path) -> None:
    checkout = checkout_with(tmp_path, f"CODES = dict(synthesize_captures=0, extract=0, score=0)\n{NIGHT_OF_CAPTURES}")
    lake = tmp_path / "lake"
    (lake / "models" / "gru_dnn-19-operational").mkdir(parents=True)
    known = f"{lake}/captures", f"{lake}/ward_logs"
    ended = make(checkout, "nightly", f"LAKE={lake}", "DATE=2026-11-24")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "synthesize_captures|None|flow_logs|None|None|None|False",
        f"extract|{known[0]}|{known[1]}|2026-11-24|None|None|False",
        f"score|None|flow_logs|None|{known[1]}|2026-11-24|False",
    ]
    (lake / "captures" / "event_date=2026-11-24").mkdir(parents=True)
    again = make(checkout, "nightly", f"LAKE={lake}", "DATE=2026-11-24")
    assert again.stdout.splitlines() == ended.stdout.splitlines()[1:]


@pytest.mark.parametrize("name", ["my flows", "flöws é", "a#b%20c?d", "tenant=a,b", "o'neil #1: [x]", "it's {a}"])
def test_make_passes_paths_as_they_are(tmp_path: Path, name: str) -> None:
    """A program in place of spark-submit shows its arguments; the loader reads them."""
    data, lake = str(tmp_path / name), str(tmp_path / f"lake of {name}")
    checkout = checkout_with(tmp_path, "print(repr([found.lake, found.ingest.source, found.score.flow_logs]))\n")
    for target, logs in (("ingest", None), ("nightly", data)):
        ended = make(checkout, target, f"DATA={data}", f"LAKE={lake}", *([f"LOGS={logs}"] if logs else []))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == f"{[lake, data, logs]!r}\n"


def test_make_promotes_the_latest_version_unless_told_otherwise(tmp_path: Path) -> None:
    checkout = checkout_with(tmp_path, "print(found.promote.model, found.promote.version, found.promote.alias)\n")
    for given, expected in (((), "latest champion"), (("VERSION=previous", "ALIAS=challenger"), "previous challenger")):
        assert make(checkout, "promote", "NIGHT=dnn-6-paper", *given).stdout == f"dnn-6-paper {expected}\n"


def installed(folder: Path) -> Path:
    """An environment with the installed packages and a spark-submit of its own."""
    folder.mkdir()
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(Path(sys.prefix) / "bin" / "python")
    shutil.copyfile(Path(sys.prefix) / "pyvenv.cfg", folder / "pyvenv.cfg")
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    code, output, _ = install(folder)
    assert code == 0, output
    return folder


COUNTING = """
from pyspark import SparkContext
print("counted", SparkContext.getOrCreate().parallelize(range(4), 2).count())
"""


def submitted(venv: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Run a program that counts four rows; returns exit code and output."""
    program = venv / "counting.py"
    program.write_text(COUNTING)
    line = f". {venv}/env.sh; exec spark-submit \"$@\" '{program}'"
    settings = {"SPARK_CONF_DIR": str(ROOT / "conf" / "spark"), "JAVA_HOME": ""} | environment
    ended = subprocess.run(
        ["bash", "-c", line, "-", *options],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_a_session_takes_its_classes_from_the_archive_and_any_other_archive_changes_nothing(tmp_path: Path) -> None:
    venv = installed(tmp_path / "venv")
    archive = venv / "classes.jsa"
    if not archive.exists():
        pytest.skip("this Java has no archive of its own classes, on which an archive of more classes could be built")
    assert stat.S_IMODE(archive.stat().st_mode) == 0o644
    classes = tmp_path / "classes.txt"
    listed = "--conf", f"spark.driver.extraJavaOptions=-Xlog:class+load:file={classes}"
    loaded = re.compile(r"org\.apache\.spark\.SparkContext source: (.*)")

    code, output = submitted(venv, "--master", "local[2]", *listed)
    assert (code, output) == (0, "counted 4\n")
    assert loaded.findall(classes.read_text()) == ["shared objects file (top)"]

    content = archive.read_bytes()
    other_java = bytearray(content)
    other_java[:4096] = bytes(4096)
    for damaged in (content[: len(content) // 2], bytes(other_java)):
        archive.write_bytes(damaged)
        code, output = submitted(venv, "--master", "local[2]", *listed)
        assert (code, output) == (0, "counted 4\n")
        assert "spark-core" in loaded.findall(classes.read_text())[0]


def test_spark_submit_sets_a_class_path_in_local_mode_alone(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    spark = venv / "lib/python3.11/site-packages/pyspark"
    for name in ("b.jar", "a.jar"):
        (spark / "jars").mkdir(parents=True, exist_ok=True)
        (spark / "jars" / name).touch()
    (venv / "bin").mkdir()
    program = spark / "bin" / "spark-submit"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\nfor each in $SPARK_SUBMIT_OPTS; do case $each in -XX:ArchiveClassesAtExit=*)"
        ' echo archive >"${each#*=}" ;; esac; done\n'
        'printf "%s|" "$SPARK_HOME" "$@"\n'
    )
    program.chmod(0o755)
    java = java_home(tmp_path, 'openjdk version "17.0.15" 2025-04-15', *REST)
    (java / "release").write_text('JAVA_VERSION="17.0.15"\n')
    code, output, _ = install(venv, JAVA_HOME=str(java))
    assert code == 0, output
    other = tmp_path / "other"
    shutil.copytree(spark / "bin", other / "bin")
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    (cluster / "spark-defaults.conf").write_text("spark.master  spark://host:7077\n")
    path = f"--driver-class-path|{spark}/jars/a.jar:{spark}/jars/b.jar|"

    def given(*arguments: str, **environment: str) -> str:
        shell = {name: value for name, value in os.environ.items() if name not in ("SPARK_HOME", "SPARK_CONF_DIR")}
        return subprocess.run(
            [venv / "bin" / "spark-submit", *arguments],
            env=shell | {"JAVA_HOME": str(java)} | environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    with_archive = [(), ("--master", "local[2]"), ("--master=local[*]", "--conf", "spark.driver.memory=3g")]
    for each in with_archive:
        assert given(*each, "job.py") == f"{spark}|{path}" + "".join(f"{a}|" for a in (*each, "job.py"))
    without = [
        ("--master", "yarn"),
        ("--master", "k8s://local"),
        ("--conf", "spark.master=spark://host:7077"),
        ("--master", "local[2]", "--driver-class-path", "own.jar"),
        ("--master", "local[2]", "--conf", "spark.driver.extraClassPath=own.jar"),
        ("--master", "local[2]", "--properties-file", "own.conf"),
    ]
    for each in without:
        assert given(*each, "job.py") == f"{spark}|" + "".join(f"{a}|" for a in (*each, "job.py"))
    assert given("job.py", SPARK_CONF_DIR=str(cluster)) == f"{spark}|job.py|"
    assert given("job.py", MASTER="yarn") == f"{spark}|job.py|"
    assert given("job.py", JAVA_HOME=str(other)) == f"{spark}|job.py|"
    assert given("--master", "local[2]", "job.py", SPARK_HOME=str(other)) == f"{other}|--master|local[2]|job.py|"
