"""Incidents in the formats of other systems: a module for each format, and `common` for all of them."""

from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

from ids_spark.alerts.export import ecs, ocsf
from ids_spark.alerts.export.common import Context

EXPORTS: Final[Mapping[str, Callable[[pa.Table, Context], bytes]]] = {
    "incidents.ocsf.jsonl": ocsf.lines,
    "incidents.ecs.jsonl": ecs.lines,
}
"""Every export of a night: the file below `exports/event_date=…/`, and the function that returns its content."""
