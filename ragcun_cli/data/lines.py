"""Reading files of one record a line, so that what is broken is named by file and line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

from ragcun_cli.errors import DataError

SHOWN_PROBLEMS = 10
POINTER, FETCH_IT = "is a pointer of git-LFS, not the file itself", "Fetch the file: git lfs pull"
NOT_UTF8 = "not UTF-8 text"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def json_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of a JSON Lines file; blank lines are passed over.

    Raises:
        DataError: naming file and line, at the first line that is not a JSON object.
    """
    for number, line in numbered_lines(stream, name):
        yield number, parse_json_line(line, f"{name}:{number}")


def numbered_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of what is not blank, without the byte order mark some editors put first."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            require_utf8_kind(line, name)
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield number, line


def require_utf8_kind(start: bytes, name: str) -> None:
    """
    Raises:
        DataError: if a text file's first bytes say that it is UTF-16, as Windows programs write it, or that it is a
            pointer of git-LFS.
    """
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(f"{name}: is UTF-16 text", f"Convert it: iconv -f UTF-16 -t UTF-8 {name} > NEW")
    if start.startswith(LFS_POINTER):
        raise DataError(f"{name}: {POINTER}", FETCH_IT)


def require_no_zero_bytes(line: bytes, place: str) -> None:
    """
    Raises:
        DataError: if a line has some, as UTF-16 without its mark has.
    """
    if b"\0" in line:
        raise DataError(f"{place}: has zero bytes: UTF-16 text, or no text at all", "Save it as UTF-8.")


def require_line_ends(first_line: bytes, name: str) -> None:
    """
    Raises:
        DataError: if lines end in CR alone, so that the file would be one long line.
    """
    if b"\r" in first_line.rstrip(b"\r\n"):
        raise DataError(
            f"{name}: its lines end in CR alone, as old Mac programs write them",
            f"Convert it: tr '\\r' '\\n' < {name} > NEW",
        )


def parse_json_line(line: bytes, place: str) -> dict[str, Any]:
    """One JSON object from one line; `place` is what an error calls it."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}: not valid JSON: {error.msg} at column {error.colno}", "Each line is one JSON object."
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        raise DataError(f"{place}: cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: a JSON object is expected (got {type(record).__name__})")
    return record


def text_of(record: dict[str, Any], key: str, place: str, required: bool = True, strip: bool = True) -> str:
    """The text under `key`; an empty or absent one is an error where it is required."""
    value = record.get(key)
    if value is None and not required:
        return ""
    if value is None:
        raise DataError(f"{place}: {key!r} is missing")
    if not isinstance(value, str):
        raise DataError(
            f"{place}: {key!r} must be a text (got {type(value).__name__})",
            f'In quotes: "{key}": "{value}"' if isinstance(value, int | float) else "",
        )
    if not value.strip() and required:
        raise DataError(f"{place}: {key!r} is empty")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{place}: {key!r} has half of a surrogate pair, which no tokenizer reads")
    return value.strip() if strip else value


def listed(problems: list[str]) -> str:
    """The first problems, a line each, and how many more there are."""
    shown = problems[:SHOWN_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    return "\n".join(shown)
