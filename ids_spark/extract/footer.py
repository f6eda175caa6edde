"""What a file of extracted flow logs says of its packets, in its footer; scoring reads it."""

import logging
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ids_spark.base import json_text
from ids_spark.base.text import shown

log = logging.getLogger(__name__)

KEY: Final = "ids_spark.extract"
"""Key of the footer's metadata."""
Packets = Annotated[int, Field(ge=0, lt=2**45)]  # so that sums over files fit 64 bits


class Extraction(BaseModel):
    """Where the flows of a file come from.

    Attributes:
        window: Packets of a window; the last one of a device may have fewer, or one more.
        by: `device` or `capture`.
        capture: Name of the capture file; empty if windows continue across several.
        piece: Number of the piece of the capture.
        packets: Packets by kind, of `packets.KINDS`; kinds without any may be absent. A capture may have several files
            of a date, whose packets and flows match only in sum.
        marks: Of them, those with a mark of `packets.MARKS`, by mark.
        single: Visible packets that are in no window, because they are alone.
        windows: Flows of the file.
        stamp: Changes with the capture (or captures) and with the settings that decide the rows.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    window: Annotated[int, Field(ge=1, lt=2**31)]
    by: str = "device"
    capture: str = ""
    piece: int = 0
    packets: Mapping[str, Packets]
    marks: Mapping[str, Packets] = {}
    single: Packets = 0
    windows: Packets
    stamp: str = ""

    def metadata(self) -> dict[str, str]:
        """Return the entry for the metadata of a file's schema."""
        return {KEY: self.model_dump_json()}


def of_metadata(metadata: Mapping[bytes, bytes] | None, file: str) -> Extraction | None:
    """Return what `metadata` wrote; None where a file has none, or one that cannot be read.

    Args:
        metadata: Of the file's schema.
        file: Name of the file, for the log.
    """
    text = (metadata or {}).get(KEY.encode())
    if text is None:
        return None
    try:
        return Extraction.model_validate_json(json_text.checked(text))
    except ValueError as error:  # its text quotes values
        faults = error.errors() if isinstance(error, ValidationError) else []
        places = sorted({str(fault["loc"][0]) for fault in faults if fault["loc"]})  # further parts are of the file
        log.warning("not used: metadata %s file=%s faults in=%s", KEY, file, shown(places) or type(error).__name__)
        return None
