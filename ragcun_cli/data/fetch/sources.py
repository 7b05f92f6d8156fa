"""Open the source of a download: an HTTP server, or a copied folder."""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ragcun_cli.errors import EnvironmentUnfit

if TYPE_CHECKING:
    import requests

BLOCK_BYTES = 1 << 20
CONTENT_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+|\*)$")
NUMBER = re.compile(r"^[0-9]{1,18}$")
UNSATISFIED_RANGE = re.compile(r"^bytes \*/(\d+)$")
MISDIRECTED = (401, 403, 404, 410, 451)
SLOWEST = 1024  # bytes per second; a slower server is treated as silent


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for a server. seconds: until it answers or sends more; attempts: in a row without any new
    data; pause: seconds before the second attempt, doubled each time; longest_pause: also limits what a server may ask.
    """

    seconds: float = 30
    attempts: int = 6
    pause: float = 1
    longest_pause: float = 120


class ConnectionBroken(Exception):
    """The transfer broke off. wait: seconds requested by the server; useless: the data so far cannot be used."""

    def __init__(self, reason: str, wait: float | None = None, useless: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.useless = useless


@dataclass(frozen=True)
class Stream:
    """A response. start: offset of its first byte in the file; total: size of the file, None if unknown;
    validator: value that changes when the file does, None if there is none; end_is_told: whether a response
    that breaks off can be distinguished from a complete one.
    """

    start: int
    total: int | None
    validator: str | None
    end_is_told: bool
    blocks: Iterator[bytes] = field(repr=False)


Opener = Callable[[int, str | None], contextlib.AbstractContextManager[Stream]]


def open_address(address: str, headers: Mapping[str, str], patience: RetryPolicy) -> Opener:
    """Return a function (first byte wanted, validator of the local part) -> stream, for a URL or a path."""
    if "://" in address:
        return lambda start, validator: _open_url(address, headers, patience, start, validator)
    return lambda start, validator: _open_file(Path(address), start, validator)


@contextlib.contextmanager
def _open_file(path: Path, start: int, validator: str | None) -> Iterator[Stream]:
    try:
        state = path.stat()
        stream = path.open("rb")
    except FileNotFoundError:
        raise EnvironmentUnfit(f"{path}: no such file", "Check that the mirror has it (--mirror).") from None
    with stream:
        found = f"file {state.st_size} {state.st_mtime_ns}"
        start = start if found == validator else 0
        stream.seek(start)
        yield Stream(start, state.st_size, found, True, iter(lambda: stream.read(BLOCK_BYTES), b""))


@contextlib.contextmanager
def _open_url(
    url: str, headers: Mapping[str, str], patience: RetryPolicy, start: int, validator: str | None
) -> Iterator[Stream]:
    import requests
    from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
    from urllib3.exceptions import LocationValueError

    # A file compressed in transit could not be counted or resumed.
    wanted = {**headers, "Accept-Encoding": "identity"}
    if start:
        wanted["Range"] = f"bytes={start}-"
        if validator is not None:
            wanted["If-Range"] = validator
    try:
        with (
            requests.Session() as session,
            session.get(url, headers=wanted, stream=True, timeout=patience.seconds, auth=_as_it_is) as response,
        ):
            yield _stream(response, url, start, validator, patience)
    except (InvalidSchema, InvalidURL, MissingSchema, LocationValueError):
        raise EnvironmentUnfit(f"{url}: not a valid address", "Give --mirror a folder or an http(s) URL.") from None
    except requests.RequestException as error:
        raise ConnectionBroken(_reason(error)) from None


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave the request unchanged: without `auth`, requests would replace the token by ~/.netrc's password."""
    return request


def _stream(response: requests.Response, url: str, start: int, validator: str | None, patience: RetryPolicy) -> Stream:
    status = response.status_code
    found = _validator(response.headers)
    packed = response.headers.get("Content-Encoding", "identity")
    if packed != "identity":
        raise EnvironmentUnfit(
            f"{url}: the server compresses the file ({packed}) although asked not to", "Use --mirror URL|DIR."
        )
    if status == 206:
        match = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise ConnectionBroken("the server sent a different part than requested", useless=True)
        total = None if match[2] == "*" else int(match[2])
        if validator is not None and found is not None and found != validator:
            raise ConnectionBroken("the server sent a part of another version", wait=0, useless=True)
        return Stream(start, total, found or validator, True, _blocks(response, patience))
    if status == 200:
        length = response.headers.get("Content-Length", "")
        total = int(length) if NUMBER.match(length) else None
        told = total is not None or response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        return Stream(0, total, found, told, _blocks(response, patience))
    if status == 416:  # nothing follows the part: it is complete, or from a longer version
        match = UNSATISFIED_RANGE.match(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise ConnectionBroken("the local part is longer than the file", wait=0, useless=True)
        return Stream(start, start, validator, True, iter(()))
    reason = f"{url}: the server answered {status} {response.reason}"
    if status in MISDIRECTED:
        raise EnvironmentUnfit(reason, _cure(status))
    if status in (408, 425, 429) or status >= 500:
        raise ConnectionBroken(reason, _retry_after(response.headers.get("Retry-After", "")))
    raise EnvironmentUnfit(reason, "Try another server: --mirror URL.")


def _blocks(response: requests.Response, patience: RetryPolicy) -> Iterator[bytes]:
    """Yield bytes as they arrive.

    Raises:
        ConnectionBroken: if the connection breaks, or is so slow that it might as well have.
    """
    import urllib3

    since, arrived = time.monotonic(), 0
    while True:
        try:
            block = response.raw.read1(BLOCK_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionBroken(_reason(error)) from None
        if not block:
            return
        yield block
        arrived += len(block)
        elapsed = time.monotonic() - since
        if elapsed > patience.seconds:
            if arrived < SLOWEST * elapsed:
                raise ConnectionBroken(f"only {arrived} bytes arrived in {elapsed:.0f} s")
            since, arrived = time.monotonic(), 0


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return a value for If-Range: a strong ETag, or else the time of last modification."""
    tag = headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    return headers.get("Last-Modified")


def _retry_after(text: str) -> float | None:
    """Parse seconds from a number or a date."""
    if NUMBER.match(text.strip()):
        return float(text)
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _cure(status: int) -> str:
    if status in (401, 403):
        return "It requires a login: set HF_TOKEN, accept the licence on the dataset's page, or use --mirror URL|DIR."
    return "The file was moved or removed. Try another server: --mirror URL|DIR."


def _reason(error: Exception) -> str:
    """Return the innermost cause in a few words, because requests and urllib3 wrap each other's errors."""
    text = str(error) or type(error).__name__
    inner = re.findall(
        r"(?:\[Errno -?\d+\] [^')]+|Read timed out|timed out|Connection refused|[A-Za-z]+Error\([^()]*\))", text
    )
    return (inner[-1] if inner else text.splitlines()[0][:200]).strip(" \"'")
