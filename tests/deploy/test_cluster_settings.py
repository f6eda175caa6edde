"""spark-env.sh of a standalone cluster: whose settings it accepts, and what it sets."""

import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.flows import ROOT

CLUSTER = ROOT / "conf" / "cluster"
SHOWN = "SPARK_LOCAL_IP SPARK_LOCAL_DIRS"


def installed(folder: Path) -> Path:
    """A copy of conf/cluster as its documentation describes."""
    folder.mkdir(mode=0o700)
    for file in CLUSTER.iterdir():
        shutil.copyfile(file, folder / file.name)
        (folder / file.name).chmod(0o600)
    with (folder / "spark-defaults.conf").open("a") as defaults:
        defaults.write((CLUSTER / "security.conf").read_text())
        defaults.write(f"spark.authenticate.secret {secrets.token_hex(32)}\n")
    return folder


def sourced(settings: Path, **environment: str) -> tuple[int, str, str]:
    """Read spark-env.sh as Spark does; returns exit code, the variables of SHOWN and the umask, messages."""
    show = " ".join(f'"${{{name}}}"' for name in SHOWN.split())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    done = subprocess.run(
        ["bash", "-c", f'set -a; . "$SPARK_CONF_DIR/spark-env.sh"; printf "%s\\n" {show} "$(umask)"'],
        env=kept | {"SPARK_CONF_DIR": str(settings)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_documented_copy_is_accepted_and_temporary_files_are_private(tmp_path: Path) -> None:
    code, shown, messages = sourced(installed(tmp_path / "cluster"), TMPDIR=str(tmp_path))
    assert (code, messages) == (0, "")
    address, folder, umask = shown.splitlines()
    assert address == "127.0.0.1"
    assert Path(folder) == tmp_path / f"ids_spark-{os.getuid()}"
    assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    assert int(umask, 8) & 0o027 == 0o027
    assert sourced(tmp_path / "cluster", TMPDIR=str(tmp_path))[0] == 0  # again, with the folder there


def test_a_folder_for_temporary_files_that_someone_else_put_there_is_refused(tmp_path: Path) -> None:
    settings = installed(tmp_path / "cluster")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"ids_spark-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    code, _, messages = sourced(settings, TMPDIR=str(tmp_path))
    assert code == 2
    assert "is not a folder of" in messages


def weaker(line: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        with (folder / "spark-defaults.conf").open("a") as defaults:
            defaults.write(f"{line}\n")

    return write


def without_secret(folder: Path) -> None:
    lines = (folder / "spark-defaults.conf").read_text().splitlines(keepends=True)
    (folder / "spark-defaults.conf").write_text("".join(lines[:-1]))


SPOILED = {
    "readable": (lambda folder: (folder / "spark-defaults.conf").chmod(0o644), "spark-defaults.conf has mode 644"),
    "writable": (lambda folder: (folder / "spark-defaults.conf").chmod(0o620), "spark-defaults.conf has mode 620"),
    "open folder": (lambda folder: folder.chmod(0o755), "has mode 755, so other users can read or replace"),
    "folder of a group": (lambda folder: folder.chmod(0o770), "has mode 770"),
    "sticky": (lambda folder: folder.chmod(0o1777), "has mode 1777"),
    "no file": (lambda folder: (folder / "security.conf").unlink(), "security.conf is missing"),
    "no secret": (without_secret, "holds no spark.authenticate.secret of at least 32"),
    "short secret": (weaker("spark.authenticate.secret abc"), "holds no spark.authenticate.secret of at least 32"),
    "variable": (
        weaker("spark.authenticate.secret ${env:SECRET_OF_THE_CLUSTER_12345678}"),
        "holds no spark.authenticate.secret of at least 32",
    ),
    "no authentication": (weaker("spark.authenticate false"), "has 'false' as spark.authenticate; expected 'true'"),
    "fallback": (weaker("spark.network.crypto.saslFallback=true"), "as spark.network.crypto.saslFallback"),
    "cipher": (weaker("spark.network.crypto.cipher AES/CTR/NoPadding"), "expected 'AES/GCM/NoPadding'"),
    "redaction": (weaker("spark.redaction.regex nothing"), "as spark.redaction.regex"),
}


@pytest.mark.parametrize("name", list(SPOILED))
def test_settings_that_protect_less_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    spoil, message = SPOILED[name]
    settings = installed(tmp_path / "cluster")
    spoil(settings)
    code, shown, messages = sourced(settings, TMPDIR=str(tmp_path))
    assert (code, shown) == (2, "")
    assert message in messages
    assert messages.count("\n") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="needs the right to change the owner (root)")
@pytest.mark.parametrize("part", [".", "spark-defaults.conf"])
def test_settings_of_another_user_are_refused(tmp_path: Path, part: str) -> None:
    settings = installed(tmp_path / "cluster")
    os.chown(settings / part, 54321, -1)
    code, _, messages = sourced(settings, TMPDIR=str(tmp_path))
    assert code == 2
    assert "who could change it" in messages


def test_the_settings_of_a_cluster_are_in_one_file(tmp_path: Path) -> None:
    """Nothing else in conf/ and docker/ sets a property of security.conf."""
    text = (CLUSTER / "security.conf").read_text()
    names = {line.split()[0] for line in text.splitlines() if line and not line.startswith("#")}
    assert {"spark.authenticate", "spark.network.crypto.cipher", "spark.redaction.regex"} <= names
    others = [path for folder in ("conf", "docker") for path in (ROOT / folder).rglob("*") if path.suffix != ".md"]
    for path in others:
        if path.is_file() and path.name != "security.conf" and "locks" not in path.parts:
            lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
            told = {word.strip("'\"") for line in lines for word in line.replace("=", " ").split()}
            assert told.isdisjoint(names), path
    assert "security.conf" in (ROOT / "docker" / "entrypoint.sh").read_text()
