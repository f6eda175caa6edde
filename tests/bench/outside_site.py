"""What a site does with its lake, by the jobs of the project, run in this process."""

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from ids_spark.lake.store import Lake
from ids_spark.models import artifact
from ids_spark.models.artifact import Model
from ids_spark.runtime import job
from tests.bench import outside_nights
from tests.bench.outside_nights import Halves
from tests.support.flows import PLAIN

NETWORKS: Final = "[10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,192.0.2.0/24]"
"""Private networks, and that of the synthetic ward."""


class JobFailed(RuntimeError):
    """Raised when a job of the benchmark did not end well."""


class Site:
    """A lake with the data set, and what a site does with it.

    Args:
        folder: For everything that is written.
        configs: Configuration files of features and train.
        settings: More settings, such as `train.epochs=2`.
    """

    def __init__(self, folder: Path, configs: Sequence[str], settings: Sequence[str]) -> None:
        self.folder, self._configs, self._settings = folder, configs, list(settings)
        self.lake = Lake(str(folder / "lake"))

    def ingest(self, data: Path | None, *settings: str) -> Path:
        """Ingest the data set, of the second release; None: synthetic flows. Returns its folder."""
        if data is None:
            data = self.folder / "data"
            self.run("synthesize", f"synthesize.target={data}", "synthesize.feature_schema=release39")
        self.run("ingest", f"ingest.source={data}", *settings)
        return data

    def run(self, name: str, *settings: str, lake: Path | None = None) -> None:
        """Run a job in this process.

        Raises:
            JobFailed: it was refused or failed.
        """
        module = importlib.import_module(f"jobs.{name}")
        chosen = [f"lake={lake or self.folder / 'lake'}", PLAIN, *self._settings, *settings]
        arguments = [part for file in self._configs for part in ("--config", file)]
        code = job.main(module.run, "", [*arguments, *(part for each in chosen for part in ("--set", each))])
        if code not in (job.DONE, job.DEGRADED):
            raise JobFailed(f"jobs/{name}.py ended with exit code {code}; settings: {' '.join(chosen)}")

    def extract(self, captures: Path, window: int = 10, by: str = "device") -> pa.Table:
        """Return the windows of the captures of a folder."""
        logs = self.folder / f"logs-{captures.name}-{window}-{by}"
        settings = (f"extract.window={window}", f"extract.by={by}", f"extract.networks={NETWORKS}")
        self.run("extract", f"extract.captures={captures}", f"extract.target={logs}", *settings)
        return outside_nights.windows_of(logs)

    def train(self, recipe: str) -> Model:
        """Return a new model of the flows of the lake."""
        self.run("features", f"features.recipe={recipe}")
        self.run("train", f"features.recipe={recipe}", "train.classes=[19]", "train.feature_sets=[operational]")
        [name] = artifact.model_names(self.lake.uri("models"))
        [uri] = artifact.choose_models(self.lake.uri("models"), [name], "latest")
        return artifact.read_model(uri)

    def adapt(self, learned: Halves) -> Model:
        """Return a model that has learned nights of the site."""
        logs = self.folder / "learned"
        shutil.rmtree(logs, ignore_errors=True)
        outside_nights.write_learned(learned, logs)
        self.run("ingest", f"ingest.local={logs}")
        return self.train("local")

    def false_incidents(self, model: Model, windows: pa.Table) -> tuple[int, int]:
        """Return the incidents of a night of these windows scored by a model, and those that its page shows."""
        night, date = self.folder / "night", outside_nights.MEASURED
        shutil.rmtree(night, ignore_errors=True)
        outside_nights.write_night(windows, night / "logs", date)
        card = model.card
        shutil.copytree(
            self.folder / "lake/models" / card.name / card.version, night / "lake/models" / card.name / card.version
        )
        settings = (f"score.models=[{card.name}]", f"score.flow_logs={night / 'logs'}", f"score.date={date}")
        self.run("score", *settings, lake=night / "lake")
        lake = Lake(str(night / "lake"))
        [row] = lake.read("nights", event_date=date).to_pylist()
        return lake.read("incidents", event_date=date).num_rows, int(row["incidents_shown"])
