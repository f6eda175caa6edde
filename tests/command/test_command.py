"""The command `ids-spark`, as a process of its own and in this one."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ids_spark.base.packaging import code_version
from ids_spark.command.main import main
from ids_spark.command.share import jobs
from ids_spark.config.described import sections, settings_of
from ids_spark.config.loader import ConfigError, load
from tests.support.flows import ROOT
from tests.support.keys import key_pair


def ran(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ids_spark", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_every_job_is_listed_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs"]) == 0
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert set(lines) == {file.stem for file in (ROOT / "jobs").glob("*.py")}
    assert lines["score"] == "Flows to predictions: nights of flow logs to incidents, or a labelled split to metrics."
    assert list(lines)[:3] == ["extract", "ingest", "features"]
    assert main(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == lines


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("score.date", "score.date", 1),
        ("train.dnn", "train.<model>.bins", len(settings_of("train.<model>"))),
        ("train.gru_dnn.units", "train.<model>.units", 1),
        ("alerts", "alerts.false_incidents", len(settings_of("alerts"))),
        ("score", "lake", 3 + len(settings_of("score")) + len(settings_of("alerts"))),
        ("prepare", "lake", 3 + len(settings_of("ingest")) + len(settings_of("features"))),
        ("benchmark", "lake", 3),
    ],
)
def test_settings_of_a_job_a_section_and_alone(
    capsys: pytest.CaptureFixture[str], name: str, first: str, count: int
) -> None:
    assert main(["settings", name]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert (rows[0][0], len(rows)) == (first, count)
    assert all(len(row) == 4 and all(row) for row in rows)


def test_all_settings_have_a_type_and_a_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--json"]) == 0
    found = {each["key"]: each for each in json.loads(capsys.readouterr().out)}
    assert len(found) == sum(len(settings_of(key)) for key in sections())
    assert all(each["type"] and each["meaning"] for each in found.values())
    assert found["score.max_rejected_share"]["type"] == "number 0 to 1"
    assert found["train.learning_rate"]["type"] == "number > 0"
    assert found["features.transform"]["type"] == "none | signed_log"
    assert found["ingest.local_dates"]["type"] == "list of: date"
    assert found["synthesize_night.own_episodes.class19"]["required"] is True
    assert (found["train.epochs"]["default"], found["score.date"]["default"]) == (50, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["settings", "scor"], "no job, section or setting is called 'scor'; did you mean 'score'?"),
        (["settings", "train.epoch"], "'train.epoch'; did you mean 'train.epochs'?"),
        (["check", "scoer"], "no job, and no file, is called 'scoer'; did you mean 'score'?"),
        (["check", "scoer", "--set", "seed=1"], "no job is called 'scoer'; did you mean 'score'?"),
        (["check", "score", "train"], "found score and train; expected one job"),
        (["check", "x/none.yaml"], "x/none.yaml: No such file or directory; expected a YAML file"),
        (["check", "x/none.csv"], "x/none.csv: "),
    ],
)
def test_what_is_unknown_is_refused_in_one_message(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ids-spark: ")
    assert expected in err
    assert len(err.splitlines()) == 1


def test_a_configuration_is_refused_with_the_message_of_the_job(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train:\n  epochs: 0\n  modles: [dnn]\n")
    settings = ["score.dat=2026-01-01", "seed"]
    with pytest.raises(ConfigError) as of_job:
        load([str(file)], settings)
    assert main(["check", "train", "--config", str(file), *(f"--set={each}" for each in settings)]) == 2
    assert capsys.readouterr() == ("", f"ids-spark: {of_job.value}\n")
    assert main(["check", str(file)]) == 2
    assert "did you mean 'models'?" in capsys.readouterr().err


def test_every_policy_and_key_that_a_night_names_is_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    key, severity, inventory = tmp_path / "key", tmp_path / "severity.yaml", tmp_path / "inventory.csv"
    key.write_text("0" * 64)
    key.chmod(0o600)
    severity.write_text((ROOT / "conf" / "severity.yaml").read_text())
    inventory.write_text((ROOT / "conf" / "inventory.csv").read_text())
    arguments = ["check", "score", "--config", str(ROOT / "conf" / "nightly" / "night.yaml")]
    for setting in (
        "score.flow_logs=logs",
        "score.last_days=3",
        f"score.pseudonym_key_file={key}",
        f"alerts.severity_policy={severity}",
        f"alerts.allow_list={ROOT / 'conf' / 'allow_list.yaml'}",
        f"score.inventory={inventory}",
    ):
        arguments += ["--set", setting]
    assert main(arguments) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert shown.startswith("score: valid (settings, key of pseudonyms, ")
    assert str(severity) in shown
    key.chmod(0o644)
    severity.write_text("categories: {Attack: bad}\n")
    inventory.write_text("device\nx\n")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [str(part) in err for part in (key, severity, inventory)] == [True] * 3


@pytest.mark.parametrize(
    ("job", "option", "most"),
    [
        ("train", "--config={}", 2 << 20),
        ("score", "--set=alerts.severity_policy={}", 2 << 20),
        ("score", "--set=alerts.allow_list={}", 2 << 20),
        ("score", "--set=score.inventory={}", 64 << 20),
        ("score", "--set=score.pseudonym_key_file={}", 65_536),
        ("train", "--set=train.sign_key={}", 65_536),
        ("verdict", "--set=verdict.file={}", 10_000_000),
    ],
)
def test_a_file_that_is_too_large_or_no_file_is_not_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, job: str, option: str, most: int
) -> None:
    def fault(file: Path) -> str:
        assert main(["check", job, option.format(file)]) == 2
        return capsys.readouterr().err

    large, pipe = tmp_path / "large", tmp_path / "pipe"
    large.touch(mode=0o600)
    os.truncate(large, most + 1)
    assert f"{large}: found {most + 1:,} bytes; expected at most {most:,}" in fault(large)
    os.mkfifo(pipe, 0o600)
    assert f"{pipe}: is no file, but a folder, pipe or device; " in fault(pipe)


@pytest.mark.parametrize(
    ("job", "settings", "message"),
    [
        ("export", [], "export.delta is not set"),
        ("score", ["export.delta=''"], "export.delta"),
        ("score", ["lake=a lake", "export.delta=a lake/delta"], "inside the lake"),
        ("export", ["export.delta=a b"], "without blanks"),
    ],
)
def test_the_place_of_delta_tables_is_checked(
    capsys: pytest.CaptureFixture[str], job: str, settings: list[str], message: str
) -> None:
    assert main(["check", job, *(f"--set={each}" for each in settings)]) == 2
    out, err = capsys.readouterr()
    assert (out, message in err) == ("", True), err
    assert main(["check", job, "--set=lake=a lake", "--set=export.delta=delta"]) == 0
    assert "place of the Delta tables" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "jobs"),
    [
        ("score.pseudonym_key_file={}", ("extract", "score", "adapt")),
        ("score.trusted_keys=[{}]", ("score", "adapt", "promote", "blend", "verify")),
        ("train.sign_key={}", ("train", "boost", "blend", "adapt", "promote")),
    ],
)
def test_a_key_is_checked_for_every_job_that_reads_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str, jobs: tuple[str, ...]
) -> None:
    pair, missing = key_pair(tmp_path), tmp_path / "none"
    file = pair.public if "trusted" in setting else pair.private
    for job in jobs:
        assert main(["check", job, "--set", setting.format(file)]) == 0, capsys.readouterr().err
        assert "key" in capsys.readouterr().out
        assert main(["check", job, "--set", setting.format(missing)]) == 2
        assert str(missing) in capsys.readouterr().err


def test_the_files_of_conf_are_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    folder = ROOT / "conf"
    files = sorted(map(str, [*folder.glob("*.yaml"), *folder.glob("*.csv"), folder / "nightly" / "night.yaml"]))
    assert main(["check", *files]) == 0
    lines = (line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    kinds = {Path(name).name: kind for name, kind in lines}
    assert len(kinds) == len(files)
    assert (kinds["severity.yaml"], kinds["allow_list.yaml"]) == ("severity policy", "allow-list")
    assert (kinds["inventory.csv"], kinds["best.yaml"]) == ("inventory", "configuration")


def test_it_imports_neither_spark_nor_what_takes_as_long() -> None:
    code = (
        "import sys; from ids_spark.command.main import main; codes = [main(a.split()) for a in ('jobs', 'settings',"
        " 'check train --config conf/best.yaml', 'version', 'path')]; heavy = 'pyspark tensorflow pandas pyarrow'"
        ".split(); sys.exit(str([n for n in heavy if n in sys.modules] or ''.join(map(str, codes))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "00000"


def test_as_a_process_it_ends_with_the_code_and_a_closed_pipe_is_no_fault() -> None:
    assert ran("version").stdout.strip() == code_version()
    assert ran("path").stdout.strip() == str(ROOT)
    refused = ran("check", "score", "--set", "score.models=[")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Traceback" not in refused.stderr
    sql = ran("sql", "--set", f"lake={ROOT / 'conf'}", "--query", "select 1")
    assert (sql.returncode, sql.stdout) == (2, "")
    assert "holds no table" in sql.stderr
    usage = ran("jbos")
    assert usage.returncode == 2
    assert "invalid choice" in usage.stderr
    line = f"{sys.executable} -m ids_spark settings | head -n 1"
    piped = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (piped.stdout.split("\t")[0], piped.stderr) == ("lake", "")
    ascii_only = ran("settings", "train.learning_rate", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (ascii_only.returncode, ascii_only.stderr) == (0, "")


def test_on_a_terminal_settings_are_a_table() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ids_spark", "settings", "score.last_days"]
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, env={**os.environ, "COLUMNS": "100"}) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65_536):
                shown += part
        except OSError:  # the terminal is closed when the process has ended
            pass
        assert process.wait() == 0
    os.close(ours)
    assert "─" in shown.decode()
    assert "score.last_days" in shown.decode()
    assert "meaning" in shown.decode()


def test_sections_of_jobs_are_those_of_their_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "jobs" / "README.md").read_text()
    for job in jobs():
        part = text.split(f"\n## {job}\n", 1)[1].split("\n## ", 1)[0]
        documented = {line.split("`")[1] for line in part.splitlines() if line.startswith("| `") and "." in line[:40]}
        assert main(["settings", job]) == 0
        shown = {line.split("\t")[0] for line in capsys.readouterr().out.splitlines()} - {
            "lake",
            "seed",
            "open_cluster",
        }
        if job != "prepare":  # its documentation refers to that of both jobs
            assert {key for key in documented if key.split(".")[0] in sections()} == shown, job
