"""Comparing a text with its pinned one, where what every machine has of its own is masked."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

EXPECTED = Path(__file__).parent / "expected"
PICTURE = re.compile(r"data:image/[^\"]+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(\+00:00|Z)?")
DIGEST = re.compile(r"\b(?=[0-9]*[a-f])[0-9a-f]{16,}\b")
VERSION = re.compile(r"\b\d+\.\d+\.\d+[+0-9a-z.]*")
LONG = re.compile(r"-?\d+\.\d{5,}(e-?\d+)?|-?\d+(\.\d+)?e-\d+")


def masked(text: str, root: Path) -> str:
    text = PICTURE.sub("PICTURE", text.replace(str(root), "ROOT"))
    text = DIGEST.sub("DIGEST", TIME.sub("TIME", text))
    return LONG.sub(lambda match: f"{float(match[0]):.5g}", VERSION.sub("VERSION", text))


def content_of(path: Path) -> str:
    """A file as text: compressed ones unpacked, Parquet as its schema and rows."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode()
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        rows = "\n".join(str(row) for row in table.to_pylist())
        return f"{table.schema.to_string(show_schema_metadata=False)}\n{rows}\n"
    return path.read_text(encoding="utf-8")


def shape_of(value: Any) -> Any:
    """JSON's keys in their order, with the kinds of its values: what a run measures is another each time."""
    if isinstance(value, dict):
        return {key: shape_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape_of(each) for each in value[:1]]
    return value if isinstance(value, bool | None) else type(value).__name__


def assert_pinned(name: str, text: str, root: Path) -> None:
    found = masked(text, root)
    path = EXPECTED / name
    if os.environ.get("PINNED") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
    expected = path.read_text(encoding="utf-8")
    assert found == expected, f"{name} is not as it was; see tests/pinned/__init__.py"
