"""Two real Horovod ranks on loopback that run a function of a test."""

import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import horovod
import pytest

from tests.support.flows import ROOT


def on_two_ranks(function: Callable[[], Any]) -> list[Any]:
    """Return what each of two ranks returns."""
    cloudpickle.register_pickle_by_value(sys.modules[function.__module__])  # ranks cannot import a test
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        found: list[Any] = horovod.run(function, np=2, use_gloo=True, network_interfaces=["lo"])
    return found
