"""A machine whose host name has no address: Horovod starts, or one message states what to do."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ids_spark.train.local_name import NoAddress, rank_environment
from tests.support.flows import ROOT

START = """
import os, socket, subprocess, sys
socket.sethostname(sys.argv[1])
from ids_spark.train.local_name import rank_environment
with rank_environment(local=True) as environment:
    started = "import horovod.tensorflow as hvd; hvd.init(); print('size', hvd.size())"
    sys.exit(subprocess.run([sys.executable, "-c", started], env=os.environ | environment).returncode)
"""


def may_rename() -> bool:
    """Whether this process may give itself another host name."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-u", "true"], check=False).returncode == 0


@pytest.mark.skipif(not may_rename(), reason="needs the right to make a namespace for a host name (root)")
@pytest.mark.parametrize("name", ["icu_ward_7", "no-such-host.invalid", "3com"])
def test_horovod_starts_on_a_machine_with_a_name_that_has_no_address(name: str) -> None:
    ended = subprocess.run(
        ["unshare", "-u", sys.executable, "-c", START, name],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOROVOD_GLOO_IFACE": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "size 1" in ended.stdout


def test_without_a_compiler_the_message_states_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-host.invalid")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(NoAddress, match=r"'no-such-host\.invalid' of this machine has no address.* to /etc/hosts"),
        rank_environment(local=True),
    ):
        pass


def test_nothing_is_changed_if_the_name_has_an_address_or_ranks_are_on_other_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    with rank_environment(local=True) as environment:
        assert environment == {}
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-host.invalid")
    with rank_environment(local=False) as environment:
        assert environment == {}
