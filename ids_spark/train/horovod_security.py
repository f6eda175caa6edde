"""Network security of a training run: limits who can connect to Horovod's services.

Horovod 0.28 signs the messages of its services, but they listen on every interface of a machine, and its rendezvous,
where ranks store their addresses, is an HTTP server that answers every client. Here services listen only on the
interface that Spark uses, and the rendezvous answers only requests below a random path, new for each run. The messages
between ranks (gradients) are neither signed nor encrypted: use a network that only machines of the cluster can reach.

Ranks get the path in an environment variable. Horovod's C++ client requests http://ADDRESS:PORT/SCOPE/KEY; the path is
added to the end of ADDRESS.
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
    """Network settings of a Horovod run.

    Attributes:
        nics: Interfaces for `horovod.spark.run`; None: Horovod detects them.
        environment: Additional environment variables of the ranks.
    """

    nics: set[str] | None
    environment: dict[str, str]


def interface_of(host: str) -> str | None:
    """Return the name of the interface of this machine with the address of `host`, such as `lo` for 127.0.0.1.

    Args:
        host: IPv4 address or host name.

    Returns:
        None if the name is unknown or no interface has its address.
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
    """Restrict Horovod's services on this machine and in the tasks it starts, within the block.

    Horovod uses the interface of Spark's address on the driver; it must have the same name on every machine.

    Args:
        host: Address at which Spark's executors reach this driver (`spark.driver.host`).
    """
    import horovod.runner.gloo_run
    import horovod.spark.runner

    nic, path = interface_of(host), secrets.token_hex(16)
    network = HorovodNetwork({nic} if nic else None, {_PATH: path})
    runner, gloo = horovod.spark.runner, horovod.runner.gloo_run
    task_of, rendezvous_of = runner._task_fn, gloo.RendezvousServer

    class Rendezvous(rendezvous_of):  # type: ignore[misc,valid-type]
        def start(self, handler_cls: Any = None) -> int:
            from horovod.runner.http.http_server import RendezvousHandler

            return int(super().start(_below(path, handler_cls or RendezvousHandler)))

    # Tasks unpickle the function by its name, on this and other machines.
    runner._task_fn, gloo.RendezvousServer = task, Rendezvous
    try:
        with _listening_on(network.nics):
            yield network
    finally:
        runner._task_fn, gloo.RendezvousServer = task_of, rendezvous_of


def task(index: int, driver_addresses: Any, key: bytes, settings: Any, use_gloo: bool, is_elastic: bool) -> Any:
    """Run Horovod's function of a Spark task, listening only on the interface of the run."""
    import horovod.spark.runner

    with _listening_on(settings.nics):
        return horovod.spark.runner._task_fn(index, driver_addresses, key, settings, use_gloo, is_elastic)


def join_rendezvous() -> None:
    """Set the path of the rendezvous for this rank, before `hvd.init()`; does nothing in a run without a path."""
    path = os.environ.pop(_PATH, "")
    if path and _ADDRESS in os.environ:
        os.environ[_ADDRESS] = f"{os.environ[_ADDRESS]}:{os.environ[_PORT]}/{path}"


@contextlib.contextmanager
def _listening_on(nics: set[str] | None) -> Iterator[None]:
    """Bind every server that Horovod starts in this process to the address of the first of the interfaces."""
    import horovod.runner.common.util.network as services
    import horovod.runner.http.http_server as rendezvous

    names = psutil.net_if_addrs()
    addresses = [e.address for n in sorted(nics or ()) for e in names.get(n, ()) if e.family == socket.AF_INET]
    find_any_port = services.find_port

    def find_port(factory: Any) -> Any:
        return find_any_port(lambda address: factory((addresses[0], address[1])))

    if addresses:
        services.find_port = rendezvous.find_port = find_port
    try:
        yield
    finally:
        services.find_port = rendezvous.find_port = find_any_port


def _below(secret: str, handler: type[Any]) -> type[Any]:
    """Return an HTTP handler that answers only requests below `/secret`; `handler` gets them without this prefix."""

    class Below(handler):  # type: ignore[misc]
        path: str

        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            first, _, rest = self.path.lstrip("/").partition("/")
            if not hmac.compare_digest(first.partition(":")[0].encode(), secret.encode()):
                self.send_error(403)
                return False
            self.path = f"/{rest}"
            return True

    return Below
