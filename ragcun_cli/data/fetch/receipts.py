"""Record which local files match a published checksum, in `<data folder>/.verified/<file>.json`.

A file counts as verified until it is changed. The receipts travel with a copied data folder,
which makes the copy a mirror whose files can be verified.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from ragcun_cli import files

FOLDER = ".verified"
DIGEST = re.compile(r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")


def write_receipt(root: Path, path: Path, address: str, digest: str | None, published: bool) -> None:
    """Write a receipt. If `digest` is None, the file's own sha256 is stored for those who copy it from here."""
    state = path.stat()
    content = {
        "address": address,
        "bytes": state.st_size,
        "modified": state.st_mtime_ns,
        "digest": digest or f"sha256:{files.sha256_of_file(path)}",
        "published": published and digest is not None,
    }
    files.write_json(_receipt(root, path), content)


def read_receipt(root: Path, path: Path) -> dict[str, Any] | None:
    """Return a file's receipt if the file is unchanged since, else None."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content: dict[str, Any] = json.loads(_receipt(root, path).read_text(encoding="utf-8"))
        state = path.stat()
        of_this = (content["bytes"], content["modified"]) == (state.st_size, state.st_mtime_ns)
        if of_this and DIGEST.match(content["digest"]) and isinstance(content["published"], bool):
            return content
    return None


def receipt_place(root: Path, path: Path) -> str:
    """Return the receipt's path relative to the data folder, here and on a mirror."""
    return f"{FOLDER}/{path.relative_to(root).as_posix()}.json"


def _receipt(root: Path, path: Path) -> Path:
    return root / receipt_place(root, path)
