"""metrics.jsonl: one object per logged step, and nothing that depends on the clock.

The same recipe gives the same file; how fast it went stands apart in speed.jsonl.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON object as a line."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
