"""Starts the programs of a part: measured, on the bench's CPUs, from this checkout, logs next to bench.json.

Data are made when a part first needs them, and kept for the parts after it.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench.measure import ROOT, Usage, measured
from tests.bench.rounds import Plan

DRIVER_MEMORY: Final = "2g"  # of every Spark case; with less, plain Spark would fail or spill


class Programs:
    """The programs of one part.

    The package is written once, so that a change of the checkout during the run affects no job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._zip = plan, plan.scratch / "ids_spark.zip"
        self.python("package", "ids_spark.base.packaging", str(self._zip))

    def python(self, log: str, module: str, *arguments: str, memory: int | None = None) -> Usage:
        """Run a module, with a limit of memory in bytes if one is given."""
        command = [sys.executable, "-m", module, *arguments]
        return measured(command, self._plan.logs / f"{log}.log", self._plan.cpus, self._env(), memory)

    def submit(self, log: str, *arguments: str, slots: int = 0) -> Usage:
        """Run spark-submit in local mode, a task slot for each CPU, or more slots if options."""
        beside = Path(sys.executable).parent / "spark-submit"
        program = shutil.which("spark-submit") or str(beside)
        command = [
            program,
            "--master",
            f"local[{max(slots, len(self._plan.cpus))}]",
            "--driver-memory",
            DRIVER_MEMORY,
            *arguments,
        ]
        return measured(command, self._plan.logs / f"{log}.log", self._plan.cpus, self._env())

    def job(
        self,
        name: str,
        settings: Mapping[str, object],
        lake: Path,
        configs: Sequence[str] = (),
        log: str = "ids_spark",
        slots: int = 0,
    ) -> Usage:
        """Run a job of this project on a lake; settings override configuration files."""
        options = [part for file in configs for part in ("--config", file)]
        options += [
            part
            for key, value in {"lake": lake, "score.pseudonymise": "[]", **settings}.items()
            for part in ("--set", f"{key}={value}")
        ]
        return self.submit(log, "--py-files", str(self._zip), f"jobs/{name}.py", *options, slots=slots)

    def synthesize(self, scale: float, **settings: object) -> Path:
        """Return a synthetic data set of a scale, shared by all parts of a run; made when it is first needed."""
        options = {"min_rows_per_file": 1, **settings}
        ending = "".join(f"-{value}" for value in settings.values())
        folder = self._plan.data / f"synthetic-{scale:g}{ending}"
        if not folder.exists():
            told = {f"synthesize.{key}": value for key, value in options.items()}
            told |= {"synthesize.target": folder, "synthesize.scale": scale}
            self.job("synthesize", told, self._plan.scratch / "synthesize", log="data")
        return folder

    def features(self, scale: float) -> Path:
        """Return a lake with the features of a synthetic data set, shared by all parts of a run; no part changes it."""
        lake = self._plan.data / f"lake-{scale:g}"
        if not lake.exists():
            self.prepare(self.synthesize(scale), lake, log="data")
            shutil.rmtree(lake / "flows")
        return lake

    def prepare(
        self, source: Path, lake: Path, settings: Mapping[str, object] | None = None, log: str = "ids_spark"
    ) -> Usage:
        """Ingest a source and write its features."""
        return self.job("prepare", {"ingest.source": source, **(settings or {})}, lake, log=log)

    def _env(self) -> dict[str, str]:
        """Return the environment of every subprocess: checkout, interpreter, folder for temporary files."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(self._plan.scratch / "spark"),
            "POLARS_MAX_THREADS": str(len(self._plan.cpus)),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
