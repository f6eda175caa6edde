"""Runs last: the cluster is stopped, and no process that its tests started remains."""

import contextlib

import psutil
import pytest

from tests.cluster.harness import Cluster


def test_no_process_is_left(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    started = [
        member.pid for process in cluster.processes.values() for member in [process, *process.children(recursive=True)]
    ]
    assert len(started) >= 3
    cluster.stop()
    ours = str(tmp_path_factory.getbasetemp())
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.status() != psutil.STATUS_ZOMBIE and (
                process.pid in started or ours in process.environ().get("SPARK_CONF_DIR", "")
            ):
                left.append(" ".join(process.cmdline())[:200])
    assert left == []
