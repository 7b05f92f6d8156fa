"""A metadata service like EC2's, on this machine."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOTICE = b'{"action":"terminate","time":"2026-11-22T08:22:00Z"}'


class MetadataServer(ThreadingHTTPServer):
    """IMDSv2: tokens by PUT, everything else with a token. notice: whether the machine is to be taken away. about: what
    it says of itself, by the path below meta-data.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.notice = False
        self.about: dict[str, str] = {}
        self.tokens = 0
        self.expired = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_PUT(self) -> None:
        right = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        if not right:
            return self._answer(400, b"")
        self.server.tokens += 1
        self.server.expired = False
        return self._answer(200, f"token-{self.server.tokens}".encode())

    def do_GET(self) -> None:
        token = self.headers.get("X-aws-ec2-metadata-token")
        if token != f"token-{self.server.tokens}" or self.server.expired:
            return self._answer(401, b"")
        if self.path == "/latest/meta-data/spot/instance-action" and self.server.notice:
            return self._answer(200, NOTICE)
        if (said := self.server.about.get(self.path.removeprefix("/latest/meta-data/"))) is not None:
            return self._answer(200, said.encode())
        return self._answer(404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
