"""Packages of a task's Python, compared with the driver's."""

import importlib.metadata
from pathlib import Path

import pytest

from ids_spark.base import environment, spark_tasks
from ids_spark.base.errors import InputError


@pytest.fixture(autouse=True)
def again(monkeypatch: pytest.MonkeyPatch):
    """Versions are looked up once in a process."""
    environment.packages.cache_clear()
    yield
    monkeypatch.undo()
    environment.packages.cache_clear()


def test_versions_are_those_that_are_installed():
    found = environment.packages()
    assert found["pyarrow"] == importlib.metadata.version("pyarrow")
    assert found["tensorflow"] == importlib.metadata.version("tensorflow-cpu")
    assert found["xgboost"] == importlib.metadata.version("xgboost-cpu")
    assert set(found) == {
        *(
            "cloudpickle",
            "horovod",
            "keras",
            "numpy",
            "pandas",
            "petastorm",
            "pyarrow",
            "scipy",
            "tensorflow",
            "xgboost",
        )
    }


def test_the_first_folder_of_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder, version in (("first", "15.0.0"), ("second", "14.0.2")):
        (tmp_path / folder / f"pyarrow-{version}.dist-info").mkdir(parents=True)
    (tmp_path / "second/NumPy-1.26.4-py3.11.egg-info").mkdir()
    (tmp_path / "second/other-1.0.dist-info").mkdir()
    paths = [tmp_path / "absent", tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr("sys.path", [str(path) for path in paths])
    assert environment.packages() == {"pyarrow": "15.0.0", "numpy": "1.26.4"}


def test_every_difference_is_named():
    expected = dict(environment.packages()) | {"pyarrow": "15.0.0"}
    del expected["scipy"]
    with pytest.raises(InputError) as refused:
        environment.require(expected)
    _, *lines = refused.value.args
    assert lines == [
        f"pyarrow: found {importlib.metadata.version('pyarrow')}, the driver has 15.0.0",
        f"scipy: found {importlib.metadata.version('scipy')}, the driver has none",
    ]
    assert "--archives dist/ids_env.tar.gz#env" in str(refused.value)


def test_a_task_with_other_packages_is_refused_before_its_function_runs(spark, monkeypatch: pytest.MonkeyPatch):
    other = dict(environment.packages()) | {"numpy": "1.0"}
    monkeypatch.setattr(environment, "packages", lambda: other)  # in the driver alone
    with pytest.raises(InputError, match="has other packages than the driver's"):
        spark_tasks.run_each(spark.sparkContext, [0], lambda n: 1 / n)
    with pytest.raises(InputError, match=r"numpy: found 1\.26\.\d+, the driver has 1\.0"):
        spark_tasks.run_shuffled(spark.sparkContext, [0], 1, lambda n: [(0, 1 / n)], lambda i, rows: list(rows))
