"""Probes of every port of a cluster and its jobs: requests in each protocol, sent without the secret."""

import contextlib
import http.client
import pickle
import socket
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
from horovod.runner.common.util import secret
from horovod.runner.common.util.network import PingRequest

_TIMEOUT_S = 1.0
_RPC_REQUEST, _RPC_RESPONSE, _RPC_FAILURE, _STREAM_REQUEST, _STREAM_RESPONSE = 3, 4, 5, 6, 7


@dataclass(frozen=True, order=True)
class Port:
    """One listening port.

    Attributes:
        owner: The process a test started, of which the listening one is a child: `master`, `worker-1`, `job`.
        address: The address it is bound to; IPv4-mapped IPv6 addresses as IPv4.
        number: Port number.
        program: Kind of the listening process, such as `worker.Worker`.
    """

    owner: str
    address: str
    number: int
    program: str


def listening(processes: dict[str, psutil.Process]) -> set[Port]:
    """Return every TCP or UDP port that these processes and their children listen on; UDP is not expected."""
    found = set()
    for owner, process in processes.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            for member in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    for entry in member.net_connections(kind="inet"):
                        if entry.status == psutil.CONN_LISTEN or entry.type == socket.SOCK_DGRAM:
                            address = entry.laddr.ip.removeprefix("::ffff:")
                            found.add(Port(owner, address, entry.laddr.port, _program(member)))
    return found


def _program(process: psutil.Process) -> str:
    line = process.cmdline()
    known = ("master.Master", "worker.Worker", "CoarseGrainedExecutorBackend", "gloo_exec_fn", "pyspark.daemon")
    for word in known:
        if any(word in part for part in line):
            return word
    return "java driver" if "java" in line[0] else "python driver"


def answers(port: Port) -> list[str]:
    """Return what a port answered to requests without the secret; empty if it refused all of them."""
    granted = []
    for name, probe in PROBES.items():
        with contextlib.suppress(OSError, EOFError, http.client.HTTPException, struct.error):
            answer = probe(port.address, port.number)
            if answer:
                granted.append(f"{name}: {answer}")
    return granted


def open_ports(ports: Iterable[Port]) -> dict[Port, list[str]]:
    """Return the ports that answered without the secret, with their answers."""
    listed = list(ports)
    with ThreadPoolExecutor(max_workers=16) as pool:
        return {port: granted for port, granted in zip(listed, pool.map(answers, listed), strict=True) if granted}


def exchange(address: str, number: int, message: bytes, most: int = 4096) -> bytes:
    """Send a message; return at most `most` bytes of the answer, waiting at most a second for each part."""
    received = b""
    with socket.create_connection((address, number), timeout=_TIMEOUT_S) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.sendall(message)
        with contextlib.suppress(OSError):
            while len(received) < most:
                part = connection.recv(most)
                if not part:
                    break
                received += part
    return received


def _spark_rpc(address: str, number: int) -> str:
    """A request of Spark's transport protocol, without the challenge that must come first.

    A frame is its own length (8 bytes), a kind (1), and for a request an id (8), a length (4) and a body. A server
    without authentication parses the body and reports an error of the body.
    """
    body = b"no secret"
    payload = struct.pack(">bqi", _RPC_REQUEST, 7, len(body)) + body
    received = exchange(address, number, struct.pack(">q", 8 + len(payload)) + payload)
    if len(received) < 21 or received[8] not in (_RPC_RESPONSE, _RPC_FAILURE):
        return ""
    text = received[21:].decode(errors="replace")
    return "" if "Unknown challenge message" in text or "Authentication failed" in text else text.splitlines()[0]


def _spark_file(address: str, number: int) -> str:
    """A request for the packaged project, as executors send it to the driver."""
    name = b"/files/ids_spark.zip"
    payload = struct.pack(">bi", _STREAM_REQUEST, len(name)) + name
    received = exchange(address, number, struct.pack(">q", 8 + len(payload)) + payload)
    return "the file" if len(received) > 8 and received[8] == _STREAM_RESPONSE else ""


def _http(address: str, number: int) -> str:
    """A web page or a key of a key-value store; 403 is a refusal, 404 an answer."""
    for method, path in (("GET", "/"), ("GET", "/global/0"), ("PUT", "/global/0")):
        connection = http.client.HTTPConnection(address, number, timeout=_TIMEOUT_S)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request(method, path, body=b"x" if method == "PUT" else None)
            status = connection.getresponse().status
            if status not in (400, 401, 403):
                return f"{method} {path} {status}"
        connection.close()
    return ""


def signed(body: bytes, key: bytes) -> bytes:
    """Return a message for a Horovod service: HMAC-SHA256, length, pickled body."""
    return secret.compute_digest(key, body) + struct.pack("i", len(body)) + body


def _horovod(address: str, number: int) -> str:
    """A ping that is signed with another key."""
    received = exchange(address, number, signed(pickle.dumps(PingRequest()), b"wrong key" * 4))
    return "a pong" if b"PingResponse" in received else ""


def _py4j(address: str, number: int) -> str:
    """A request to the JVM of a driver, without the token."""
    received = exchange(address, number, b"r\nu\njava.lang.System\nrj\ne\n")
    return received.decode(errors="replace").strip() if received.startswith(b"!y") else ""


def _pyspark(address: str, number: int) -> str:
    """A wrong password for a Python worker: a length and a text."""
    password = b"no secret"
    received = exchange(address, number, struct.pack(">i", len(password)) + password)
    return "ok" if received == struct.pack(">i", 2) + b"ok" else ""


PROBES: dict[str, Callable[[str, int], str]] = {
    "spark rpc": _spark_rpc,
    "spark file": _spark_file,
    "http": _http,
    "horovod": _horovod,
    "py4j": _py4j,
    "pyspark": _pyspark,
}
