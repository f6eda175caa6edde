"""The work that the cases of part `extract` do."""

import ipaddress
from typing import Final

NETWORK: Final = ipaddress.IPv4Network("10.20.0.0/16")
"""Addresses of devices in `capture_file`."""
WINDOW: Final = 10
