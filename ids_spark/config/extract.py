"""Settings of `jobs/extract.py`: packet captures to flow logs."""

import ipaddress
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from ids_spark.config.score import NightDate, Section

PRIVATE_NETWORKS: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""Addresses of private networks (RFC 1918)."""


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network ({error}); expected for example 10.20.0.0/16") from error
    if network.version != 4:
        raise ValueError(f"{text!r} is an IPv6 network; the features describe IPv4 and ARP only")
    return text


class ExtractConfig(Section):
    """`jobs/extract.py`: packet captures to flow logs, one row for each window of packets.

    Attributes:
        captures: Folder of pcap and pcapng files (also gzip), with or without folders `event_date=YYYY-MM-DD`.
        target: Folder of flow logs, for `score.flow_logs`; each capture file replaces its own rows only.
        date: Only windows of this date (UTC) are written; default: of every date in the captures.
        window: Packets of a window. The data set has windows of 10 packets, of floods 100.
        by: Windows of the packets of one `device`, or of the whole `capture` as in the data set.
        device: Address that identifies a device: `ip`, or `mac`.
        networks: IPv4 networks of the devices; the device of a packet is its endpoint in one of them, the destination
            if both are or neither is.
        inventory: CSV file with the columns `address` (IPv4 or MAC) and `device`, the names of devices; that of
            `score.inventory`, whose other columns are not used here.
        piece_mb: Larger pcap files are read in pieces of this many MB, each by one task; windows end with a piece.
        join_files: Windows continue across files, for captures that spread the packets of a device over files; needs a
            shuffle and memory for all packets of a device, 200 bytes each, and replaces all rows of a date.
        again: Also files that have not changed since they were extracted with these settings.
    """

    captures: str | None = None
    target: str = "flow_logs"
    date: NightDate | None = None
    window: Annotated[int, Field(ge=2, le=1_000)] = 10
    by: Literal["device", "capture"] = "device"
    device: Literal["ip", "mac"] = "ip"
    networks: tuple[Annotated[str, AfterValidator(_network)], ...] = PRIVATE_NETWORKS
    inventory: str | None = None
    piece_mb: Annotated[int, Field(ge=1, le=65_536)] = 256
    join_files: bool = False
    again: bool = False

    @model_validator(mode="after")
    def _joined_by_device(self) -> "ExtractConfig":
        if self.join_files and self.by == "capture":
            raise ValueError("extract.join_files joins the packets of a device; set extract.by=device")
        return self
