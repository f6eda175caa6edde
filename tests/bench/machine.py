"""The machine on which a bench ran."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

_PACKAGES = ("pyspark", "pyarrow", "numpy", "pandas", "scikit-learn", "polars")


def chosen_cpus() -> list[int]:
    """Return the CPUs that every case is bound to: `BENCH_CPUS` (such as 0,1), or the first two allowed ones."""
    told = os.environ.get("BENCH_CPUS", "")
    return [int(cpu) for cpu in told.split(",")] if told else sorted(os.sched_getaffinity(0))[:2]


def facts(cpus: Sequence[int]) -> dict[str, object]:
    """Return the facts that are needed to assess the figures; load averages are those before the first run."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "cores_used": len(cpus),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
