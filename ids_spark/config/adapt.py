"""Settings of `jobs/adapt.py`."""

from typing import Annotated

from pydantic import Field

from ids_spark.config.score import Days, NightDate, PathPart, Section


class AdaptConfig(Section):
    """`jobs/adapt.py`: from the flow logs of a site's own nights to a challenger that knows them.

    Attributes:
        model: Name below `models/`; the challenger has the architecture, classes and feature set of its
            champion, and derived features if that has them.
        flow_logs: Folder of flow logs: parquet files below `event_date=YYYY-MM-DD/`.
        nights: Newest nights of it to learn.
        last_date: Last night to learn; default: the newest that is over.
        recipe: Name of the feature table of the data set with the local nights.
        warm_start: Start from the weights of the champion instead of new ones.
        most_recall_lost: The challenger is refused if the recall of a class on the test rows is lower than the
            champion's by more than this, beyond what chance explains.
        review: Whether flows of the local nights that may be attacks are left out.
    """

    model: PathPart = "gru_dnn-19-operational"
    flow_logs: str | None = None
    nights: Days = 7
    last_date: NightDate | None = None
    recipe: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "local"
    warm_start: bool = False
    most_recall_lost: Annotated[float, Field(ge=0, le=1)] = 0.02
    review: bool = True
