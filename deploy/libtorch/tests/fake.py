"""A package index of one small wheel, on a free port of this machine, that misbehaves as asked.

Owns the fake wheel and its server. It must not test anything.
"""

import base64
import hashlib
import http.server
import io
import os
import re
import sys
import threading
import zipfile
from typing import Dict, List, Optional

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from pins import Wheel  # noqa: E402

PROJECT = "spotsweep-fake"
FILENAME = "spotsweep_fake-1.0-py3-none-any.whl"
RECORD = "spotsweep_fake-1.0.dist-info/RECORD"
WANTED = ("torch/include/", "torch/lib/libtorch_cpu.so", "late/library.so")
# Random bytes do not pack, so that lengths in the wheel are about those here.
FILES: Dict[str, bytes] = {
    "torch/__init__.py": b"raise ImportError",
    "torch/include/a.h": b"#pragma once\n" * 200,
    "torch/include/deep/b.h": b"",
    "torch/lib/libtorch_cpu.so": os.urandom(700_000),
    # So far from the next wanted member that a request of its own is due.
    "torch/lib/libtorch_cuda.so": os.urandom(3_000_000),
    "late/library.so": b"late" * 1000,
}
WANTED_FILES = ["late/library.so", "torch/include/a.h", "torch/include/deep/b.h", "torch/lib/libtorch_cpu.so"]


def row(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return "%s,sha256=%s,%d\n" % (path, digest, len(data))


def record_of(files: Dict[str, bytes]) -> bytes:
    return ("".join(row(path, data) for path, data in files.items()) + RECORD + ",,\n").encode()


def zip_of(files: Dict[str, bytes], record: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {**files, **PAPERS, RECORD: record}.items():
            archive.writestr(path, data)
    return held.getvalue()


# What pip wants to see in a wheel.
PAPERS = {
    "spotsweep_fake-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: spotsweep-fake\nVersion: 1.0\n",
    "spotsweep_fake-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
WHEEL_BYTES = zip_of(FILES, record_of(FILES))


def pin(record: Optional[bytes] = None) -> Wheel:
    digest = hashlib.sha256(record if record is not None else record_of(FILES)).hexdigest()
    return Wheel(PROJECT, "1.0", FILENAME, RECORD, digest, WANTED)


class Server(http.server.ThreadingHTTPServer):
    """Serves `/simple/spotsweep-fake/` for pip, and the wheel."""

    daemon_threads = True

    def __init__(self, wheel: bytes = WHEEL_BYTES) -> None:
        self.wheel = wheel
        self.ranges = True
        self.cut_after: List[int] = []
        """Each answer with the wheel takes one: how many bytes it gives before the connection breaks."""
        self.statuses: List[int] = []
        """Each request for the wheel takes one and is answered with it, if it is not 200."""
        self.served_bytes = 0
        self.requests: List[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def root(self) -> str:
        return "http://127.0.0.1:%d" % self.server_address[1]

    @property
    def wheel_url(self) -> str:
        return "%s/files/%s" % (self.root, FILENAME)

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def handle_error(self, request: object, client_address: object) -> None:
        # A client that goes away early is what some tests are about; a traceback would look like a failure.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/simple/%s/" % PROJECT:
            link = '<a href="../../files/%s#sha256=%s">%s</a>' % (FILENAME, hashlib.sha256(self.server.wheel).hexdigest(), FILENAME)
            self.give(200, b"<!DOCTYPE html><html><body>%s</body></html>" % link.encode(), {"Content-Type": "text/html"})
        elif self.path == "/files/" + FILENAME:
            self.give_wheel()
        else:
            self.give(404, b"", {})

    def give_wheel(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked or "whole")
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        whole = self.server.wheel
        if status != 200:
            self.give(status, b"no", {})
        elif asked is None or not self.server.ranges:
            self.give(200, whole, {})
        else:
            start, end = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", asked).groups())
            end = min(end, len(whole) - 1)
            self.give(206, whole[start : end + 1], {"Content-Range": "bytes %d-%d/%d" % (start, end, len(whole))})

    def give(self, status: int, body: bytes, headers: Dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cut_after and self.path.startswith("/files/"):
            body = body[: self.server.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        self.server.served_bytes += len(body)

    def log_message(self, *_: object) -> None:
        pass
