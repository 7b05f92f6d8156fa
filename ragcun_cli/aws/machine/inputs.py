"""Fetch what the run needs from its prefix: verified recipes and inputs, and an earlier machine's results."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ragcun_cli.aws.machine.node_context import NodeContext
from ragcun_cli.aws.record import FILES, MIRRORED, RunRecord
from ragcun_cli.errors import DataError, RagcunError
from ragcun_cli.files import replacing, sha256_of_file
from ragcun_cli.safe_paths import safe_join
from ragcun_cli.storage.snapshots import fetch_folder, folders_in

UNTOUCHED = Path("untouched")  # encoders that are scored alongside the arms, one per line
EMBEDDINGS = "embeddings"


def fetch_inputs(record: RunRecord, folder: Path, cache: Path) -> None:
    """Fetch everything that the run starts from, and an earlier machine's results and embeddings.

    Raises:
        DataError: if a file differs from what was uploaded.
    """
    launch = record.launch()
    if launch is None:
        raise DataError(f"{record.address}: launch.json is missing")
    for key, digest in {**launch["recipes"], **launch["inputs"]}.items():
        _fetch(record, key, safe_join(folder, key), digest)
    models = "".join(f"{model}\n" for model in launch["base_models"])
    (folder / UNTOUCHED).write_text(models, encoding="utf-8")
    _fetch_mirrored(record, folder)
    caches = record.caches()
    for key in folders_in(caches, f"{EMBEDDINGS}/"):
        fetch_folder(caches, key, safe_join(cache, key), keeps_manifest=True)


def _fetch(record: RunRecord, key: str, path: Path, digest: str) -> None:
    with replacing(path) as temporary:
        record.store().fetch(key, temporary)
        if sha256_of_file(temporary) != digest:
            raise DataError(f"{record.address}{key}: differs from what was uploaded (sha256)")


def _fetch_mirrored(record: RunRecord, folder: Path) -> None:
    """Fetch the results whose digest matches the recorded one; missing ones are scored again."""
    store, listed = record.store(), (record.read_json(FILES) or {}).get("files", {})
    for key, entry in listed.items():
        if key.startswith(f"{MIRRORED[0]}/"):
            path = safe_join(folder, key)
            with replacing(path) as temporary:
                store.fetch(key, temporary)
            if sha256_of_file(path) != entry["sha256"]:
                path.unlink()


def main() -> None:
    """Entry point of `python -m`."""
    try:
        fetch_inputs(NodeContext.read().record(), Path(), Path(os.environ["RAGCUN_CACHE"]))
    except (RagcunError, OSError) as error:
        print(f"ragcun: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
