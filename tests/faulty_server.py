"""A local HTTP server of files that does what servers do to downloads, one fault after the other."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Handler = http.server.BaseHTTPRequestHandler
Fault = Callable[["Answer"], None]


@dataclass
class Answer:
    """What the server is about to send, for a fault to spoil."""

    content: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    send: int | None = None  # bytes of the body that are sent before the connection is closed; None for all
    seconds_a_block: float = 0.0
    block: int = 1 << 16
    takes_range: bool = True


@dataclass
class Request:
    """What was asked for."""

    path: str
    headers: dict[str, str]


class FaultyServer:
    """Files by path; `faults`: what spoils the answers, one for each request, none after the last."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.url = ""

    def asked_ranges(self) -> list[str | None]:
        return [request.headers.get("range") for request in self.requests]


def drop_after(count: int) -> Fault:
    def fault(answer: Answer) -> None:
        answer.send = count

    return fault


def ignore_range(answer: Answer) -> None:
    answer.takes_range = False


def status(code: int, **headers: str) -> Fault:
    def fault(answer: Answer) -> None:
        answer.status = code
        answer.headers |= {name.replace("_", "-"): value for name, value in headers.items()}

    return fault


def flip_a_byte(answer: Answer) -> None:
    middle = len(answer.content) // 2
    answer.content = answer.content[:middle] + bytes([answer.content[middle] ^ 1]) + answer.content[middle + 1 :]


def claim_length(count: int) -> Fault:
    """Another Content-Length than the body has; a shorter one cuts the body, as a client reads no further."""

    def fault(answer: Answer) -> None:
        answer.headers["Content-Length"] = str(count)

    return fault


def drip(seconds: float, block: int) -> Fault:
    def fault(answer: Answer) -> None:
        answer.seconds_a_block, answer.block = seconds, block

    return fault


def silent_for(seconds: float) -> Fault:
    def fault(answer: Answer) -> None:
        time.sleep(seconds)

    return fault


def both(*faults: Fault) -> Fault:
    def fault(answer: Answer) -> None:
        for each in faults:
            each(answer)

    return fault


@contextlib.contextmanager
def serving() -> Iterator[FaultyServer]:
    """A running server."""
    state = FaultyServer()
    lock = threading.Lock()

    class Files(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                state.requests.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}))
                fault = state.faults.pop(0) if state.faults else None
            content = state.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            tag = '"' + hashlib.sha256(content).hexdigest() + '"'
            answer = Answer(content, headers={"ETag": tag})
            if fault is not None:
                fault(answer)
            if answer.status != 200:
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            asked = self.headers.get("Range", "")
            start = int(asked[len("bytes=") :].rstrip("-")) if asked and answer.takes_range else 0
            condition = self.headers.get("If-Range")
            if condition is not None and condition != answer.headers.get("ETag"):
                start = 0
            if start >= len(answer.content) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(answer.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = answer.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(answer.content) - 1}/{len(answer.content)}")
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            sent = body if answer.send is None else body[: answer.send]
            with contextlib.suppress(OSError):
                for first in range(0, len(sent), answer.block):
                    self.wfile.write(sent[first : first + answer.block])
                    self.wfile.flush()
                    time.sleep(answer.seconds_a_block)
            # A body that is shorter or longer than was said leaves the connection of no further use.
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
