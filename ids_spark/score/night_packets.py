"""Packets of a night's captures: how many no flow describes, summed from the footers of extracted flow logs."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from ids_spark.extract.packets import KINDS, MARKS, VISIBLE
from ids_spark.score.night_files import NightSource

SINGLE: Final = "single"
"""Visible packets in no window, because they are alone."""


@dataclass(frozen=True)
class NightPackets:
    """Sums over the files of a night.

    Attributes:
        captures: Capture files; None where windows continue across several.
        window_lengths: Packets of a window, ascending; several if captures were extracted with several settings.
        seen: All packets.
        invisible: Those that no flow describes, by kind and `single`; without kinds that do not occur.
        marks: Those with a mark, by mark; without marks that do not occur.
    """

    captures: int | None
    window_lengths: tuple[int, ...]
    seen: int
    invisible: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)

    @property
    def invisible_share(self) -> float:
        """Share of the packets that no flow describes; 0 without packets."""
        return self.invisible.total() / self.seen if self.seen else 0.0

    def row(self) -> dict[str, Any]:
        """Return the value of the column `packets` of `nights/`, most frequent kinds first."""
        return {
            "captures": self.captures,
            "window_lengths": list(self.window_lengths),
            "seen": self.seen,
            **{
                name: [{"name": kind, "packets": n} for kind, n in counts.most_common()]
                for name, counts in (("invisible", self.invisible), ("marks", self.marks))
            },
        }


def packets_of(source: NightSource) -> NightPackets | None:
    """Return the sums over the files of a night that can be used; None if none was extracted from a capture."""
    found = [file.extraction for file in source.files if file.extraction is not None and file.reason is None]
    if not found:
        return None
    seen, invisible, marks = 0, Counter[str](), Counter[str]()
    for each in found:
        seen += sum(each.packets.get(kind, 0) for kind in KINDS)
        invisible += Counter({kind: each.packets.get(kind, 0) for kind in KINDS[VISIBLE:]})
        invisible += Counter({SINGLE: each.single})
        marks += Counter({mark: each.marks.get(mark, 0) for mark in MARKS})
    names = {each.capture for each in found}
    lengths = sorted({each.window for each in found})
    seen = max(seen, invisible.total())  # a footer of another program may contradict itself
    return NightPackets(None if "" in names else len(names), tuple(lengths), seen, invisible, marks)
