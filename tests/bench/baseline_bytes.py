"""The least that any reader of a capture does: read its bytes, in one process.

python -m tests.bench.baseline_bytes CAPTURE
"""

import sys
from typing import Final

_AT_ONCE: Final = 1 << 21


def main(capture: str) -> None:
    """Read a file."""
    buffer = bytearray(_AT_ONCE)
    with open(capture, "rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


if __name__ == "__main__":
    main(sys.argv[1])
