"""Read files with one record per line, and report problems by file and line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

from ragcun_cli.errors import DataError

SHOWN_PROBLEMS = 10
POINTER, FETCH_IT = "is a Git LFS pointer, not the file itself", "Fetch the file: git lfs pull"
NOT_UTF8 = "not UTF-8 text"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def json_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for a JSON Lines file; blank lines are skipped.

    Raises:
        DataError: naming file and line, at the first line that is not a JSON object.
    """
    for number, line in numbered_lines(stream, name):
        yield number, parse_json_line(line, f"{name}:{number}")


def numbered_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) for non-blank lines, without the byte order mark that some editors add."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            require_utf8_kind(line, name)
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield number, line


def require_utf8_kind(start: bytes, name: str) -> None:
    """Refuse text in another encoding.

    Raises:
        DataError: if a text file's first bytes show that it is UTF-16, as written by Windows programs, or a
            Git LFS pointer.
    """
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(f"{name}: is UTF-16 text", f"Convert it: iconv -f UTF-16 -t UTF-8 {name} > NEW")
    if start.startswith(LFS_POINTER):
        raise DataError(f"{name}: {POINTER}", FETCH_IT)


def require_no_zero_bytes(line: bytes, place: str) -> None:
    """Refuse a file with zero bytes, which is not UTF-8 text.

    Raises:
        DataError: if a line has zero bytes, as UTF-16 without a byte order mark does.
    """
    if b"\0" in line:
        raise DataError(f"{place}: contains zero bytes, so it is UTF-16 or not text at all", "Save it as UTF-8.")


def require_line_ends(first_line: bytes, name: str) -> None:
    """Refuse lines that end in a CR alone.

    Raises:
        DataError: if lines end in a CR only, so that the file would be one long line.
    """
    if b"\r" in first_line.rstrip(b"\r\n"):
        raise DataError(
            f"{name}: its lines end in CR only, as in old Mac files",
            f"Convert it: tr '\\r' '\\n' < {name} > NEW",
        )


def parse_json_line(line: bytes, place: str) -> dict[str, Any]:
    """Parse one JSON object from one line; errors call it `place`."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}: not valid JSON: {error.msg} at column {error.colno}", "Each line must be one JSON object."
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested thousands deep
        raise DataError(f"{place}: cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected a JSON object (got {type(record).__name__})")
    return record


def text_of(record: dict[str, Any], key: str, place: str, required: bool = True, strip: bool = True) -> str:
    """Return the text under `key`. If it is required, an empty or missing one is an error."""
    value = record.get(key)
    if value is None and not required:
        return ""
    if value is None:
        raise DataError(f"{place}: {key!r} is missing")
    if not isinstance(value, str):
        raise DataError(
            f"{place}: {key!r} must be text (got {type(value).__name__})",
            f'Put it in quotes: "{key}": "{value}"' if isinstance(value, int | float) else "",
        )
    if not value.strip() and required:
        raise DataError(f"{place}: {key!r} is empty")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{place}: {key!r} contains half a surrogate pair, which tokenizers cannot read")
    return value.strip() if strip else value


def listed(problems: list[str]) -> str:
    """List the first problems, one per line, and how many more there are."""
    shown = problems[:SHOWN_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    return "\n".join(shown)
