"""Remove credentials from text before it is printed, because other packages' errors may quote them."""

from __future__ import annotations

import configparser
import contextlib
import functools
import netrc
import os
import re
from collections.abc import Iterator
from pathlib import Path

VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY",
)  # fmt: skip
FILES = (
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("AWS_CONFIG_FILE", "~/.aws/config"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", ""),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", ""),
    ("HF_TOKEN_PATH", "~/.cache/huggingface/token"),
)
LOGINS = ("NETRC", "~/.netrc")  # also sent with downloads
SECRET_KEY = re.compile(r"secret|token|password|access_key", re.IGNORECASE)
COMMAND = "credential_process"  # may contain any words; those that look random are treated as credentials
DRAWN = re.compile(r"(?=\S*\d)(?=\S*[A-Za-z])[^\s/\\]{8,}")
LOGIN_IN_URL = re.compile(r"//[^/@\s]+@")
SHORTEST_PART = 6  # characters; shorter parts also occur in ordinary sentences
HIDDEN = "[hidden]"


def redacted(text: str) -> str:
    """Remove credentials of this process's environment and files, and parts of them, from the text.

    Parts matter because a credential pasted with a line break is quoted in pieces.
    """
    for part in _parts():
        if part in text:
            text = text.replace(part, HIDDEN)
    return LOGIN_IN_URL.sub(f"//{HIDDEN}@", text)


def _parts() -> list[str]:
    """List secret strings, longest first, so that replacing one leaves no pieces of another."""
    values = [*_of_environment(), *_of_files(tuple(_places())), *_of_logins()]
    parts = {piece for value in values for piece in (value, *re.split(r"[\s\\]+", value))}
    # The form in which Python quotes bytes and strings in its own errors.
    parts |= {repr(part)[1:-1] for part in parts}
    return sorted((part for part in parts if len(part) >= SHORTEST_PART), key=len, reverse=True)


def _of_environment() -> Iterator[str]:
    for name in VARIABLES:
        if value := os.environ.get(name):
            yield value


def _places() -> Iterator[tuple[str, int]]:
    for variable, usual in FILES:
        path = os.environ.get(variable) or usual
        with contextlib.suppress(RuntimeError, OSError):
            place = Path(path).expanduser()
            if path and place.is_file():
                yield str(place), place.stat().st_mtime_ns


def _of_logins() -> Iterator[str]:
    variable, usual = LOGINS
    with contextlib.suppress(RuntimeError, OSError, netrc.NetrcParseError, UnicodeDecodeError):
        logins = netrc.netrc(str(Path(os.environ.get(variable) or usual).expanduser()))
        yield from (password for _, _, password in logins.hosts.values() if password)


@functools.lru_cache(maxsize=8)
def _of_files(places: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    found = []
    for name, _ in places:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = Path(name).read_text(encoding="utf-8")
            found += _secrets_in(text)
    return tuple(found)


def _secrets_in(text: str) -> list[str]:
    """Return the values of an INI file's secret keys, or the whole of a file that is a single token."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error:
        # Not a valid INI file: take the value of every line.
        return [line.partition("=")[2].strip() or line.strip() for line in text.splitlines() if line.strip()]
    found: list[str] = []
    for section in parser.sections():
        for key, value in parser.items(section):
            if value and key == COMMAND:
                found += DRAWN.findall(value)
            elif value and SECRET_KEY.search(key):
                found.append(value)
    return found
