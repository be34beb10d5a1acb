"""A server on 127.0.0.1 that answers as the hub does for one bucket, with byte ranges and faults on demand.

``/api/buckets/lab/set`` and ``.../tree`` tell what there is, ``/buckets/lab/set/resolve/FILE`` redirects to
``/raw/FILE``, which serves bytes. ``/raw/FILE`` is also a plain web address.
"""

import contextlib
import gc
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

BUCKET = "lab/set"


class Server(ThreadingHTTPServer):
    """`faults` is a list used up from the front, one an answer with bytes: a status, or one of

    ``"cut"`` (half of the bytes, then the end), ``"short"`` (half, and says so), ``"slow"`` (a pause in the middle),
    ``"whole"`` (no ranges), ``"drop"`` (no answer), ``"grown"`` (states another size of the file).
    `always` is a fault for every answer. `log` has (path, range, status, bytes sent).
    """

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.faults, self.always, self.log, self.hidden = Path(folder), [], None, [], None
        self.ranges = True
        self.lock = threading.Lock()

    def handle_error(self, *_):
        """Clients that go away in the middle are part of the tests."""

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def web(self, name):
        return f"{self.address}/raw/{name}"

    def sent(self):
        return sum(entry[3] for entry in self.log)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = unquote(self.path.partition("?")[0])
        root = f"/api/buckets/{BUCKET}"
        if self.server.hidden and path.startswith(("/api", "/buckets")):
            self._json({"error": "hidden"}, self.server.hidden)
        elif path == root:
            info = {"id": BUCKET, "private": False, "createdAt": "2026-01-01T00:00:00.000Z", "size": 0, "totalFiles": 1}
            self._json(info)
        elif path.startswith(f"{root}/tree"):
            under = path.removeprefix(f"{root}/tree").strip("/")
            files = sorted(self.server.folder.iterdir()) if not under else []
            self._json([self._entry(file) for file in files if file.is_file()])
        elif path.startswith(f"/buckets/{BUCKET}/resolve/"):
            self.send_response(302)
            self.send_header("Location", self.server.web(path.rpartition("/")[2]))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/raw/") and (self.server.folder / path[5:]).is_file():
            self._bytes(self.server.folder / path[5:])
        else:
            self._json({"error": "not found"}, 404)

    def _entry(self, file):
        stamp = str(file.stat().st_mtime_ns)
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "xetHash": stamp.zfill(64)}

    def _json(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _bytes(self, file):
        with self.server.lock:
            fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        wanted, size = self.headers.get("Range"), file.stat().st_size
        if fault == "drop":
            self.close_connection = True
            return
        if isinstance(fault, int):
            self.server.log.append((self.path, wanted, fault, 0))
            return self._json({"error": "made"}, fault)
        start, stop, status = 0, size, 200
        if wanted and self.server.ranges and fault != "whole":
            first, last = wanted.removeprefix("bytes=").split("-")
            start, stop, status = int(first), min(int(last) + 1 if last else size, size), 206
            if start >= size:
                return self._json({"error": "range"}, 416)
        with open(file, "rb") as source:
            source.seek(start)
            body = source.read(stop - start)
        half = body[: len(body) // 2]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size + (fault == 'grown')}")
        self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
        self.send_header("Content-Length", str(len(half if fault == "short" else body)))
        self.end_headers()
        if fault in ("cut", "short"):
            body, self.close_connection = half, True
        with contextlib.suppress(ConnectionError):
            if fault == "slow":
                self.wfile.write(half)
                self.wfile.flush()
                time.sleep(0.3)
                self.wfile.write(body[len(half) :])
            else:
                self.wfile.write(body)
        self.server.log.append((self.path, wanted, status, len(body)))


@contextlib.contextmanager
def serve(folder):
    """A running `Server` on the files of `folder`.

    It runs in a thread, so garbage must not be collected there: h5py holds its lock while it waits for an answer,
    and deleting one of its objects in the thread that should answer would wait for that lock.
    """
    gc.disable()
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        gc.enable()
