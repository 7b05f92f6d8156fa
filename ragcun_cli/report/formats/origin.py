"""What a printed table says of where it comes from: one line that `report verify` reads again."""

from __future__ import annotations

import json
import re
from typing import Any

from ragcun_cli.report.table import ResultTable

START = "ragcun report table "
ORIGIN = re.compile(re.escape(START) + r"(\{.*\})")


def origin_line(table: ResultTable) -> str:
    """Options and provenance, without what would end a comment of HTML or begin a tag: JSON's escapes mean the same."""
    content = json.dumps({"options": table.options, "provenance": table.provenance})
    for character in "-<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return START + content


def read_origins(text: str) -> list[dict[str, Any]]:
    """What `origin_line` wrote into a text, once for each table."""
    found = []
    for match in ORIGIN.finditer(text):
        try:
            found.append(json.loads(match.group(1)))
        except ValueError:
            found.append({})
    return found


def after_origins(text: str) -> list[str]:
    """What follows each origin, up to the next."""
    ends = [match.end() for match in ORIGIN.finditer(text)]
    starts = [match.start() for match in ORIGIN.finditer(text)]
    return [text[end:stop] for end, stop in zip(ends, [*starts[1:], len(text)], strict=True)]
