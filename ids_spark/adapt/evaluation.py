"""The evaluation card of a model version: what is known of its recall and false alarms, on which flows.

`models/<name>/<version>/evaluation.json` lies beside the files of the manifest, because it is written after training
and may be measured again. It states the hash of the manifest that it describes, and a hash of its own content. What
nobody measured is listed as unknown.
"""

import datetime as dt
import hashlib
import json
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from ids_spark.adapt.replay import Replayed
from ids_spark.base import json_text
from ids_spark.base.errors import InputError
from ids_spark.config.score import Section
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.lake.filesystem import exists, read_bytes
from ids_spark.models.artifact import Model
from ids_spark.models.tail_fit import upper_rate

FILE: Final = "evaluation.json"
Flows = Literal["random split", "later block of time", "other window length", "held-out class", "unseen captures"]
UNKNOWN: Final[dict[Flows, str]] = {
    "random split": "the lake has no test rows of the model's release",
    "later block of time": "the lake has no held-out flows of the site's own nights",
    "other window length": "not measured for this version; `make outside` measures it for the data set",
    "held-out class": "not measured for this version; `make held-out` measures it for the data set",
    "unseen captures": "not measured for this version; `make outside` measures it",
}
"""Why figures on these flows are not known, if they are not."""
_Rows = Annotated[int, Field(ge=0)]


class EvaluationUnusable(InputError):
    """Raised when an evaluation card cannot be read, or was changed."""


class Share(Section):
    """Flagged flows of a group.

    Attributes:
        name: A class; `Benign` for false alarms.
        rows: Flows.
        flagged: Those at or above the operating point.
        low: Lower end of the exact 95 % interval of the share (Clopper, Pearson 1934, doi 10.1093/biomet/26.4.404).
        high: Upper end.
    """

    name: str
    rows: _Rows
    flagged: _Rows
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share."""
        return self.flagged / self.rows

    def __str__(self) -> str:
        """Return name, share, interval and rows as text."""
        return f"{self.name} {self.value:.3f} ({self.low:.3f} to {self.high:.3f}) of {self.rows:,}"


class Measured(Section):
    """Figures on one kind of flows.

    Attributes:
        flows: The kind.
        unknown: Why there are no figures; None if there are.
        source: Which flows these are.
        shares: Of each class with rows.
    """

    flows: Flows
    unknown: str | None = None
    source: str | None = None
    shares: tuple[Share, ...] = ()


class Evaluation(Section):
    """Everything known of a model version.

    Attributes:
        model: Its name.
        version: Its version.
        model_sha256: SHA-256 of its manifest.
        operating_point: Attack logit from which it flags flows.
        at: When it was measured, in UTC.
        run_id: Run that measured it.
        measured: One entry for each kind of flows, in the order of `UNKNOWN`.
    """

    model: str
    version: str
    model_sha256: str
    operating_point: float
    at: dt.datetime
    run_id: str
    measured: tuple[Measured, ...]

    def lines(self) -> list[str]:
        """Return the card as text: a heading, and a line for each kind of flows."""
        found = [f"{self.model} {self.version}, flows with log-odds of attack of at least {self.operating_point:.2f}:"]
        for each in self.measured:
            attacks = sorted((s for s in each.shares if s.name != CLASS19[BENIGN_ID]), key=lambda share: share.value)
            benign = [share for share in each.shares if share.name == CLASS19[BENIGN_ID]]
            parts = [f"unknown: {each.unknown}"] if each.unknown else []
            if attacks:
                parts.append(f"recall of {len(attacks)} classes, lowest {', '.join(map(str, attacks[:3]))}")
            parts += [f"benign flows flagged: {share}" for share in benign]
            found.append(f"  {each.flows}: {'; '.join(parts)}")
        return found

    def of(self, flows: Flows) -> Measured:
        """Return the figures on one kind of flows."""
        return next(each for each in self.measured if each.flows == flows)

    def to_json(self) -> bytes:
        """Return the content of the file."""
        content = self.model_dump(mode="json")
        return (json.dumps({"format": 1, "sha256": _hash(content), "evaluation": content}, indent=2) + "\n").encode()


def path_of(name: str, version: str) -> str:
    """Return the path of an evaluation card in the lake; a run stages and commits it like a table."""
    return f"models/{name}/{version}/{FILE}"


def evaluation_of(model: Model, replayed: Replayed, place: int, run_id: str, now: dt.datetime) -> Evaluation:
    """Return the card of a model from a replay.

    Args:
        model: The model.
        replayed: Flows that it has scored.
        place: Its place among the models of the replay.
        run_id: Of this run.
        now: Present time in UTC.
    """
    rows, flagged = replayed.rows(), replayed.flagged(place)
    test = tuple(share_of(name, int(n), int(k)) for name, n, k in zip(CLASS19, rows, flagged, strict=True) if n)
    found: dict[Flows, tuple[str, tuple[Share, ...]]] = {}
    if test:
        found["random split"] = ("distinct rows of flows/split=test", test)
    if replayed.local_rows():
        dates = sorted({date for date, _ in replayed.local if date is not None})
        nights = f", nights {dates[0]} to {dates[-1]}" if dates else ""
        benign = share_of(CLASS19[BENIGN_ID], replayed.local_rows(), replayed.local_flagged(place))
        found["later block of time"] = (f"held-out rows of flows/split=local, taken as benign{nights}", (benign,))
    measured = []
    for flows, reason in UNKNOWN.items():
        source, shares = found.get(flows, (None, ()))
        measured.append(Measured(flows=flows, unknown=None if shares else reason, source=source, shares=shares))
    return Evaluation(
        model=model.card.name,
        version=model.card.version,
        model_sha256=model.sha256,
        operating_point=replayed.logits[place],
        at=now,
        run_id=run_id,
        measured=tuple(measured),
    )


def share_of(name: str, rows: int, flagged: int) -> Share:
    """Return flagged flows of a group of at least one flow, with the exact 95 % interval of their share."""
    low, high = 1 - upper_rate(rows - flagged, rows), upper_rate(flagged, rows)
    return Share(name=name, rows=rows, flagged=flagged, low=low, high=high)


def read_evaluation(models_uri: str, name: str, version: str, model_sha256: str) -> Evaluation | None:
    """Return the card of a model version; None if it has none.

    Raises:
        EvaluationUnusable: it cannot be parsed, its content was changed, or it is of another model.
    """
    uri = f"{models_uri}/{name}/{version}/{FILE}"
    if not exists(uri):
        return None
    try:
        content = json_text.loads(read_bytes(uri))
        if content["format"] != 1:
            raise ValueError(f"format {str(content['format'])[:80]}, expected 1")
        if content["sha256"] != _hash(content["evaluation"]):
            raise ValueError("its SHA-256 is not the one it states")
        evaluation = Evaluation.model_validate_json(json.dumps(content["evaluation"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{error.error_count()} fault(s)" if isinstance(error, ValidationError) else repr(error)[:200]
        raise EvaluationUnusable(
            f"{uri} is no evaluation card ({reason}); remove it: the next promotion of the version writes it again"
        ) from error
    if evaluation.model_sha256 != model_sha256:
        raise EvaluationUnusable(
            f"{uri} describes a model whose manifest has the SHA-256 {evaluation.model_sha256[:16]}…; expected"
            f" {model_sha256[:16]}…; remove it: the next promotion of the version writes it again"
        )
    return evaluation


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
