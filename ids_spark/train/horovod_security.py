"""Who may talk to the ranks of a training run: what Horovod leaves open is closed here.

Horovod 0.28 signs what its services say to each other, but they listen on every interface of a machine, and its
rendezvous, where ranks leave their addresses, is an HTTP server that answers everybody. Here services listen only
where Spark itself does, and the rendezvous answers only under a path that nobody can guess; each run makes its own.
What ranks send each other (gradients) is neither signed nor encrypted: that network is for the machines of the cluster
alone.

The path is handed to ranks in their environment; Horovod's C++ client asks for http://ADDRESS:PORT/SCOPE/KEY, and an
ADDRESS that ends in a path puts it before everything else.
"""

import contextlib
import hmac
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psutil

_PATH: Final = "IDS_SPARK_RENDEZVOUS"
_ADDRESS: Final = "HOROVOD_GLOO_RENDEZVOUS_ADDR"
_PORT: Final = "HOROVOD_GLOO_RENDEZVOUS_PORT"


@dataclass(frozen=True)
class HorovodNetwork:
    """What a run of Horovod is started with.

    Attributes:
        nics: Interfaces for `horovod.spark.run`; None where Horovod must look for itself.
        environment: Further variables for the ranks.
    """

    nics: set[str] | None
    environment: dict[str, str]


def interface_of(host: str) -> str | None:
    """Return the name of this machine's interface that carries an address, such as `lo` for 127.0.0.1.

    Args:
        host: IPv4 address or host name.

    Returns:
        None where the name is unknown or no interface carries its address.
    """
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return None
    addresses_of: dict[str, list[Any]] = psutil.net_if_addrs()
    for name, addresses in addresses_of.items():
        if any(entry.family == socket.AF_INET and entry.address == address for entry in addresses):
            return name
    return "lo" if address.startswith("127.") and "lo" in addresses_of else None


@contextlib.contextmanager
def secured(host: str) -> Iterator[HorovodNetwork]:
    """Close Horovod's services, on this machine and in the tasks it starts, for the time of the block.

    Horovod uses the interface that carries Spark's address on the driver; it must have the same name on every machine.

    Args:
        host: Under which Spark's executors reach this driver (`spark.driver.host`).
    """
    import horovod.runner.gloo_run
    import horovod.spark.runner

    nic, path = interface_of(host), secrets.token_hex(16)
    door = HorovodNetwork({nic} if nic else None, {_PATH: path})
    runner, gloo = horovod.spark.runner, horovod.runner.gloo_run
    task_of, rendezvous_of = runner._task_fn, gloo.RendezvousServer

    class Rendezvous(rendezvous_of):  # type: ignore[misc,valid-type]
        def start(self, handler_cls: Any = None) -> int:
            from horovod.runner.http.http_server import RendezvousHandler

            return int(super().start(_behind(path, handler_cls or RendezvousHandler)))

    # Tasks unpickle the function by its name, here and on other machines.
    runner._task_fn, gloo.RendezvousServer = task, Rendezvous
    try:
        with _listening_on(door.nics):
            yield door
    finally:
        runner._task_fn, gloo.RendezvousServer = task_of, rendezvous_of


def task(index: int, driver_addresses: Any, key: bytes, settings: Any, use_gloo: bool, is_elastic: bool) -> Any:
    """Do what Horovod does in a Spark task, listening on its interface alone."""
    import horovod.spark.runner

    with _listening_on(settings.nics):
        return horovod.spark.runner._task_fn(index, driver_addresses, key, settings, use_gloo, is_elastic)


def join_rendezvous() -> None:
    """Let this rank find the rendezvous; before `hvd.init()`. Does nothing where the run has no such path."""
    path = os.environ.pop(_PATH, "")
    if path and _ADDRESS in os.environ:
        os.environ[_ADDRESS] = f"{os.environ[_ADDRESS]}:{os.environ[_PORT]}/{path}"


@contextlib.contextmanager
def _listening_on(nics: set[str] | None) -> Iterator[None]:
    """Bind every server that Horovod starts in this process to the address of the first of these interfaces."""
    import horovod.runner.common.util.network as services
    import horovod.runner.http.http_server as rendezvous

    names = psutil.net_if_addrs()
    addresses = [e.address for n in sorted(nics or ()) for e in names.get(n, ()) if e.family == socket.AF_INET]
    anywhere = services.find_port

    def find_port(factory: Any) -> Any:
        return anywhere(lambda address: factory((addresses[0], address[1])))

    if addresses:
        services.find_port = rendezvous.find_port = find_port
    try:
        yield
    finally:
        services.find_port = rendezvous.find_port = anywhere


def _behind(door: str, handler: type[Any]) -> type[Any]:
    """Return an HTTP handler that knows only requests below `/door`, and hands them on without it."""

    class Behind(handler):  # type: ignore[misc]
        path: str

        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            first, _, rest = self.path.lstrip("/").partition("/")
            if not hmac.compare_digest(first.partition(":")[0].encode(), door.encode()):
                self.send_error(403)
                return False
            self.path = f"/{rest}"
            return True

    return Behind
