"""Distributed batch intrusion detection for the Internet of Medical Things."""

import os

__version__ = "0.3.1"

# Before pyarrow's first allocation, in driver, tasks and ranks: with its default allocator, jemalloc, the kernel clears
# three times as many pages, a fifth of the CPU time of ingest and features.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
