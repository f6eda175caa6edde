"""Models of windows of 10 packets, of 100 packets, and of both, each on windows of both lengths.

Rows of the data set are joined to windows of 100 packets by `ingest.window`; captures are extracted with both lengths.
For the mixture, the train rows of both lengths are in one lake.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ids_spark.adapt.replay import replay
from ids_spark.runtime import job
from tests.bench import outside_captures, outside_measures
from tests.bench.outside_measures import SYN_FLOODS
from tests.bench.outside_site import Site

LENGTHS: Final = (10, 100)
HEADINGS: Final = (
    *("train rows", "scored rows", "macro F1", "attack recall", "everyday: called attack", "flagged"),
    *("scan: flagged", "SYN flood: named so"),
)


@dataclass(frozen=True)
class Scored:
    """A model of windows of some length on windows of one length; shares."""

    trained: str
    packets: int
    macro_f1: float
    attack_recall: float
    called: float
    flagged: float
    scan_flagged: float
    flood_named: float

    def texts(self) -> tuple[str, ...]:
        """Return the cells of a row of the table."""
        shares = (self.called, self.flagged, self.scan_flagged, self.flood_named)
        return (
            *(self.trained, str(self.packets), f"{self.macro_f1:.3f}", f"{self.attack_recall:.3f}"),
            *(f"{share:.1%}" for share in shares),
        )


def measure(
    folder: Path, data: Path | None, captures: Path, configs: Sequence[str], settings: Sequence[str]
) -> list[Scored]:
    """Train the three models and score windows of both lengths.

    Args:
        folder: For everything that is written.
        data: Folder of the data set; None: synthetic flows.
        captures: With `everyday/` and `attacks/`.
        configs: As of `Site`.
        settings: As of `Site`.
    """
    first, second, both = (Site(folder / name, configs, settings) for name in ("10", "100", "both"))
    source = first.ingest(data)
    second.ingest(source, "ingest.window=100")
    _join(first, second, both)
    models = {"10": first.train("ten"), "100": second.train("hundred"), "10 and 100": both.train("both")}
    found = []
    outside_captures.write_flood(folder / "flood")
    for packets, site in zip(LENGTHS, (first, second), strict=True):
        replayed = replay(job.session("bench").sparkContext, site.lake, list(models.values()))
        everyday = site.extract(captures / outside_captures.EVERYDAY, packets)
        scan = outside_captures.scan_of(site.extract(captures / outside_captures.ATTACKS, packets))
        flood = site.extract(folder / "flood", packets)
        for place, (name, model) in enumerate(models.items()):
            ordinary = outside_measures.windows(model, everyday)
            found.append(
                Scored(
                    *(name, packets, replayed.macro_f1(place) or 0.0, replayed.attack_recall(place) or 0.0),
                    *(ordinary.called_share, ordinary.flagged_share),
                    outside_measures.windows(model, scan).flagged_share,
                    outside_measures.windows(model, flood).named(SYN_FLOODS),
                )
            )
    return sorted(found, key=lambda each: list(models).index(each.trained))


def _join(first: Site, second: Site, both: Site) -> None:
    """Give a site the flows of another one, and the train rows of a second one."""
    flows = both.folder / "lake/flows"
    shutil.copytree(first.folder / "lake/flows", flows)
    for number, path in enumerate(sorted((second.folder / "lake/flows/split=train").glob("*.parquet"))):
        shutil.copy(path, flows / f"split=train/part-9{number:04d}-of-100.parquet")
