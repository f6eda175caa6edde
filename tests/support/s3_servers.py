"""An S3 server on loopback, and a proxy before it that answers some requests as a server in trouble does."""

import contextlib
import http.client
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "loopback-id", "AWS_SECRET_ACCESS_KEY": "loopback-secret"}
BUCKET: Final = "ward"
_REFUSALS: Final = {
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "AccessDenied": 403,
    "InternalError": 500,
    "SlowDown": 503,
}
Fault = str
"""A code of S3 such as `SlowDown`; `reset`: the connection ends without an answer; `cut`: in the middle of one;
`slow`: the answer comes after `SLOW_S`."""
SLOW_S: Final = 5.0
_HOP: Final = ("connection", "transfer-encoding", "content-length", "server", "date")


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Run a server in a separate process; yields its address. It holds the bucket `BUCKET`.

    Args:
        folder: Where it logs.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
                    break
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.1)
            made = urllib.request.Request(f"{address}/{BUCKET}", method="PUT", headers={"Host": "s3.amazonaws.com"})
            urllib.request.urlopen(made, timeout=30).close()
            yield address
        finally:
            process.terminate()
            process.wait()


def use(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Configure the server of this process, and of those that it starts, by environment variables and nothing else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)


class Proxy:
    """Passes requests on to a server, except those that it answers with a fault.

    Attributes:
        address: Where it listens.
        fault_of: Names the fault of a request by method and path (with query); None: it is passed on.
        faults: How many requests had each fault.
        requests: How many were passed on.
    """

    def __init__(self, server: str) -> None:
        self.fault_of: Callable[[str, str], Fault | None] = lambda method, path: None
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self._lock = threading.Lock()
        host = server.removeprefix("http://")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with proxy._lock:
                    fault = proxy.fault_of(self.command, self.path)
                    proxy.faults.update([fault] if fault else [])
                    proxy.requests += fault is None
                if fault in _REFUSALS:
                    self._send(_REFUSALS[fault], {"Content-Type": "application/xml"}, _error(fault))
                elif fault == "reset":
                    self._reset()
                else:
                    if fault == "slow":
                        time.sleep(SLOW_S)
                    self._pass_on(body, cut=fault == "cut")

            def _pass_on(self, body: bytes, cut: bool) -> None:
                upstream = http.client.HTTPConnection(host, timeout=60)
                try:
                    upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        if name.lower() not in ("connection", "expect"):
                            upstream.putheader(name, value)
                    upstream.endheaders(body)
                    answer = upstream.getresponse()
                    content = answer.read()
                    headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
                    length = int(answer.getheader("Content-Length") or len(content))
                finally:
                    upstream.close()
                self._send(answer.status, headers, content, length, cut)

            def _send(
                self, status: int, headers: dict[str, str], content: bytes, length: int = -1, cut: bool = False
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content) if length < 0 else length))
                self.end_headers()
                self.wfile.flush()
                if self.command != "HEAD":
                    self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    self.wfile.flush()
                    self._reset()

            def _reset(self) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Write nothing: a client that waits no longer closes the connection."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def share(fault: Fault, of: float, seed: int = 1) -> Callable[[str, str], Fault | None]:
    """Return a `fault_of` that gives a share of all requests a fault, the same ones for a seed."""
    draw = random.Random(seed)
    return lambda method, path: fault if draw.random() < of else None


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>of the test</Message></Error>".encode()
