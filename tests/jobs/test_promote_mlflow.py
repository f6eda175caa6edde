"""Promotions that MLflow is told of: a real tracking server on loopback, none, and one that does not answer."""

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ids_spark.adapt import mlflow_mirror
from ids_spark.base.errors import InputError
from ids_spark.config.score import PromoteConfig
from ids_spark.dataset.taxonomy import CLASSES
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, inference, registry
from tests.support.audits import newest_audit
from tests.support.flows import RunJob
from tests.support.replayed import NAME, NEW, OLD, write_model, write_rows_of_test

mlflow = pytest.importorskip("mlflow", reason="the development lock is not installed")
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with two versions of a model."""
    found = Lake(str(tmp_path / "lake"))
    write_model(found, OLD, 1, 0.5)
    write_model(found, NEW, 2, 0.5)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a tracking server, in processes of its own, that stores all it gets in one folder."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", *stores, "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        environment = os.environ | QUIET
        process = subprocess.Popen(
            [*command, "--workers", "1"], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30", **QUIET}.items():
        monkeypatch.setenv(name, value)


def promote(run_job: RunJob, version: str, uri: str, **settings: object) -> int:
    return run_job("promote", promote__model=NAME, promote__version=version, promote__mlflow_uri=uri, **settings)


def aliases_of(lake: Lake) -> tuple[str | None, str | None]:
    found = registry.read_aliases(lake.uri("models"), NAME)
    return found.champion, found.challenger


def versions_by_alias(server: str, registered: str) -> dict[str, str]:
    """Return our version of each alias of a registered model."""
    client = mlflow.MlflowClient(server, server)
    held = client.get_registered_model(registered).aliases
    return {alias: client.get_model_version(registered, n).tags["ids_spark.version"] for alias, n in held.items()}


@pytest.mark.slow
def test_a_promoted_version_is_registered_once_with_its_files_and_the_aliases_follow(
    run_job: RunJob, lake: Lake, server: str, tmp_path: Path
) -> None:
    write_rows_of_test(lake, 190)
    client = mlflow.MlflowClient(server, server)
    for _ in range(2):  # the second time nothing changes
        assert promote(run_job, OLD, server) == 0
        [version] = client.search_model_versions(f"name = '{NAME}'")
        assert versions_by_alias(server, NAME) == {"champion": OLD}
    own = lake.uri("models")
    model = artifact.read_model(f"{own}/{NAME}/{OLD}")
    assert version.tags["ids_spark.sha256"] == model.sha256
    assert version.tags["ids_spark.data_origin"] == "synthetic"
    assert version.tags["ids_spark.feature_schema"] == "release39"
    assert "synthetic" in version.description
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    point = model.validation_scores.operating_point()
    assert run.data.metrics["threshold.logit"] == pytest.approx(point.logit)
    assert run.data.metrics["validation.macro_recall"] == pytest.approx(point.macro_recall)
    assert 0 <= run.data.metrics["test.false_alarm_rate"] <= 1
    assert run.data.params["dense"] == str(model.card.hyperparameters["dense"])

    client.set_registered_model_alias(NAME, "of-somebody-else", version.version)
    assert promote(run_job, NEW, server, promote__alias="challenger") == 0
    held = {"of-somebody-else": OLD}
    assert versions_by_alias(server, NAME) == held | {"champion": OLD, "challenger": NEW}
    forced = {"promote__force": "true", "promote__reason": "test"}
    assert promote(run_job, NEW, server, **forced) == 0
    assert versions_by_alias(server, NAME) == held | {"champion": NEW, "previous": OLD}
    assert promote(run_job, "previous", server) == 0
    assert versions_by_alias(server, NAME) == held | {"champion": OLD, "previous": NEW}
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2

    files = Path(client.download_artifacts(version.run_id, "model", str(tmp_path)))
    kept = tmp_path / "lake/models" / NAME / OLD
    for path in (files / "data").iterdir():
        assert path.name == "evaluation.json" or path.read_bytes() == (kept / path.name).read_bytes()
    assert {path.name for path in (files / "data").iterdir()} == {path.name for path in kept.iterdir()}
    assert not [path for path in files.rglob("*") if path.suffix in (".pkl", ".pickle")]
    check_loaded(str(files), model)


def check_loaded(uri: str, model: artifact.Model) -> None:
    """Check a model as MLflow loads it against the model of the lake, and that it states inputs and outputs."""
    loaded = mlflow.pyfunc.load_model(uri)
    signature = loaded.metadata.signature
    assert [(each.name, each.type.name) for each in signature.inputs] == [(n, "double") for n in model.card.features]
    assert [each.name for each in signature.outputs] == list(CLASSES[6])
    rows = np.random.default_rng(1).uniform(0, 40, (5, len(model.card.features)))
    flows = pd.DataFrame(rows, columns=list(model.card.features), index=range(7, 12))
    matrix = np.stack(
        model.preprocessor.transform({n: flows[n].to_numpy() for n in flows}, model.card.features), axis=1
    )
    flows.loc[9, "Rate"] = np.nan
    found = loaded.predict(flows.assign(other="x"))
    expected = inference.forward(model, matrix, 5)
    expected[2] = np.nan
    np.testing.assert_array_equal(found.to_numpy(), expected)
    assert found.index.tolist() == flows.index.tolist()


@pytest.mark.slow
def test_another_lake_does_not_move_the_aliases_of_a_registered_model(
    run_job: RunJob, lake: Lake, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = mlflow.MlflowClient(server, server)
    client.create_registered_model(f"theirs-{NAME}", {"ids_spark.lake": "file:///elsewhere"})
    assert promote(run_job, OLD, server, promote__mlflow_prefix="theirs-") == 3
    assert "is of file:///elsewhere, this lake is" in caplog.text
    assert client.get_registered_model(f"theirs-{NAME}").aliases == {}
    assert promote(run_job, OLD, server, promote__mlflow_prefix="ours-") == 0
    assert versions_by_alias(server, f"ours-{NAME}") == {"champion": OLD}


@pytest.mark.slow
def test_what_mlflow_missed_is_set_by_the_next_run(
    run_job: RunJob, lake: Lake, server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = {"promote__mlflow_prefix": "missed-"}
    assert promote(run_job, OLD, "http://127.0.0.1:9", **prefix) == 3
    assert "MLflow at http://127.0.0.1:9 does not have the aliases" in caplog.text
    assert "the next run" in caplog.text
    assert aliases_of(lake) == (OLD, None)
    assert newest_audit(tmp_path / "lake", "promote")["status"] == "done"
    assert promote(run_job, NEW, server, promote__alias="challenger", **prefix) == 0
    assert versions_by_alias(server, f"missed-{NAME}") == {"champion": OLD, "challenger": NEW}


def test_a_server_that_never_answers_delays_the_end_and_nothing_else(
    run_job: RunJob, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert promote(run_job, OLD, address) == 3
    assert aliases_of(lake) == (OLD, None)
    audited = newest_audit(tmp_path / "lake", "mirror")
    assert audited["status"] == "failed"
    reason = "(it cannot be reached: no answer in time)"
    assert audited["error"].startswith(f"Interrupted: MLflow at {address} does not have the aliases of {NAME} {reason}")


def test_patience_that_somebody_has_set_is_kept(monkeypatch: pytest.MonkeyPatch, lake: Lake) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    seen = []

    class Silent:
        def __init__(self, *_: object) -> None:
            pass

        def search_registered_models(self, **_: object) -> None:
            seen.append([os.environ[f"MLFLOW_HTTP_REQUEST_{name}"] for name in ("TIMEOUT", "MAX_RETRIES")])
            raise OSError("silent")

    monkeypatch.setattr(mlflow, "MlflowClient", Silent)
    assert "(silent)" in str(mlflow_mirror.mirror(lake, NAME, PromoteConfig(mlflow_uri="https://host"), None))
    assert seen == [["30", "0"]]
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_without_its_client_nothing_is_promoted(
    run_job: RunJob, lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else found(name, *rest)
    )
    assert promote(run_job, OLD, "http://127.0.0.1:9") == 2
    assert "conf/locks/mlflow.txt" in caplog.text
    assert aliases_of(lake) == (None, None)


@pytest.mark.parametrize(("host", "code"), [("mlflow.example", 2), ("127.example", 2), ("127.0.0.1", 3)])
def test_credentials_do_not_cross_a_network_in_clear(
    run_job: RunJob, lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str, code: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    assert promote(run_job, OLD, f"http://{host}:9") == code
    assert ("MLFLOW_TRACKING_TOKEN would cross the network in clear" in caplog.text) == (code == 2)
    assert "hunter2" not in caplog.text
    assert aliases_of(lake) == ((None, None) if code == 2 else (OLD, None))


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:hunter2@host",
        "https://host/?token=hunter2",
        "sqlite:///hunter2.db",
        "file:///hunter2",
        "hunter2",
        "",
        "https://",
        "https://host/hunter2\n",
    ],
)
def test_an_address_with_credentials_or_of_another_kind_is_refused_and_not_shown(
    run_job: RunJob, lake: Lake, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert promote(run_job, OLD, repr(uri)) == 2
    assert "promote.mlflow_uri" in caplog.text
    assert "MLFLOW_TRACKING_PASSWORD" in caplog.text
    assert "hunter2" not in caplog.text
    assert not lake.holds_tables() or aliases_of(lake) == (None, None)


@pytest.mark.parametrize(
    ("registry_uri", "message"),
    [
        ("http://me:hunter2@127.0.0.1:9", "MLFLOW_REGISTRY_URI is something else"),
        ("sqlite:///hunter2.db", "MLFLOW_REGISTRY_URI is something else"),
        ("http://registry.example", "MLFLOW_REGISTRY_URI is http://registry.example, and MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_the_address_of_another_registry_is_checked_as_well(
    monkeypatch: pytest.MonkeyPatch, registry_uri: str, message: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry_uri)
    with pytest.raises(InputError, match=message) as refused:
        mlflow_mirror.require_client(PromoteConfig(mlflow_uri="https://mlflow.example"))
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks-uc")
    mlflow_mirror.require_client(PromoteConfig(mlflow_uri="databricks"))


def test_what_the_client_says_is_without_passwords(monkeypatch: pytest.MonkeyPatch, lake: Lake) -> None:
    def failing(*_: object) -> None:
        raise OSError("no answer of http://me:hunter2@proxy:1 for https://host/x")

    monkeypatch.setattr(mlflow_mirror, "_mirror", failing)
    text = str(mlflow_mirror.mirror(lake, NAME, PromoteConfig(mlflow_uri="https://host"), None))
    assert "(no answer of http://…@proxy:1 for https://host/x)" in text


def test_a_server_that_is_not_there_is_said_in_words(monkeypatch: pytest.MonkeyPatch, lake: Lake) -> None:
    def failing(*_: object) -> None:
        raise OSError(f"{'x' * 400} (Caused by NewConnectionError('[Errno 111] Connection refused'))")

    monkeypatch.setattr(mlflow_mirror, "_mirror", failing)
    text = str(mlflow_mirror.mirror(lake, NAME, PromoteConfig(mlflow_uri="https://host"), None))
    assert "(it cannot be reached: connection refused, or no route); they are valid in the lake" in text


def test_tasks_do_not_see_credentials() -> None:
    def secrets(**given: Any) -> tuple[str, ...]:
        return PromoteConfig.model_validate(given).secret_variables

    assert secrets() == ()
    assert "MLFLOW_TRACKING_TOKEN" in secrets(mlflow_uri="https://host:5000/mlflow")
    assert all(re.fullmatch("[A-Z_]+", name) for name in secrets(mlflow_uri="databricks://profile"))
