"""What people get of a night: incidents, exports and page, written when it is scored and when verdicts change it.

What page and exports need beside the tables is stored in `nights/` (column `page_inputs`), so that they can be written
again without models, policies and settings.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from ids_spark.alerts.export import EXPORTS, common
from ids_spark.alerts.ranking import OPEN
from ids_spark.base import json_text
from ids_spark.base.text import one_line
from ids_spark.config.score import Count
from ids_spark.config.settings import Config
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.store import Lake
from ids_spark.report import night_page
from ids_spark.report.night_findings import Night, Row

WRITTEN: Final = ("incidents", "alerts", "nights", "exports", "reports/night")
"""The tables that `stage` writes."""


class PageInputs(BaseModel):
    """What page and exports need beside the tables.

    Attributes:
        allow_list, agreement, facts: As in `night_findings.Night`.
        most_lines: `alerts.most_lines`.
        pseudonymised: Columns whose values are pseudonyms.
    """

    allow_list: tuple[dict[str, str], ...] = ()
    agreement: dict[str, int] | None = None
    facts: dict[str, str] = {}
    most_lines: Count
    pseudonymised: tuple[str, ...] = ()

    def on(self, page: Night) -> Night:
        """Return a page with these inputs."""
        return replace(page, allow_list=self.allow_list, agreement=self.agreement, facts=self.facts)


def inputs_of(row: Row, config: Config) -> PageInputs:
    """Return the inputs of a stored night, from its champion's row in `nights/`.

    Args:
        row: The row; null in `page_inputs`: the night was stored without.
        config: Used in this case.

    Raises:
        SchemaMismatch: the column holds something else.
    """
    if row["page_inputs"] is None:
        return PageInputs(most_lines=config.alerts.most_lines, pseudonymised=config.score.pseudonymise or ())
    try:
        return PageInputs.model_validate_json(json_text.checked(row["page_inputs"].encode()))
    except ValueError as error:
        raise SchemaMismatch(
            f"nights/: page_inputs of run {row['run_id']} is not as jobs/score.py writes it ({one_line(error)}); score"
            " the night again"
        ) from error


def stage(
    lake: Lake,
    staged: Callable[[str], str],
    page: Night,
    incidents: pa.Table,
    alerts: pa.Table,
    inputs: PageInputs,
) -> Night:
    """Write incidents, alerts, the row of the night, exports and page.

    Args:
        lake: The lake.
        staged: Returns the URI of the staged version of a table.
        page: The page, without incidents, alerts and `inputs`.
        incidents: As `tables.INCIDENTS`, ranked.
        alerts: As `tables.ALERTS`.
        inputs: What page and exports need beside the tables.

    Returns:
        The page as it was written.
    """
    date = page.event_date
    for name, rows in (("incidents", incidents), ("alerts", alerts), ("nights", page.nights[date])):
        lake.write(name, rows, staged, event_date=date)
    shown = incidents.filter(incidents["shown"])
    for name, content_of in EXPORTS.items():
        content = content_of(shown, common.Context(date, frozenset(inputs.pseudonymised)))
        write_bytes(staged(f"exports/event_date={date}/{name}"), content)
    listed = incidents.filter(pc.or_(incidents["shown"], pc.not_equal(incidents["state"], OPEN)))
    of_listed = alerts.filter(pc.is_in(alerts["incident_id"], listed["incident_id"].combine_chunks()))
    whole = replace(inputs.on(page), incidents=listed.to_pylist(), alerts=of_listed.to_pylist())
    night_page.write_page(staged(f"reports/night/event_date={date}"), whole)
    return whole
