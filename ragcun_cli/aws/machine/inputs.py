"""Fetch what the run needs: verified recipes and inputs, staged downloads, an earlier machine's results."""

from __future__ import annotations

import sys
from pathlib import Path

from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.aws.record import MIRRORED, RunRecord
from ragcun_cli.aws.staging import fetch_staged, staged_store
from ragcun_cli.errors import DataError, RagcunError
from ragcun_cli.files import replacing, sha256_of_file
from ragcun_cli.safe_paths import UNUSABLE_NAME, safe_join
from ragcun_cli.storage.snapshots import fetch_folder, folders_in

UNTOUCHED = Path("untouched")  # encoders that are scored alongside the arms, one per line
EMBEDDINGS = "embeddings"
DATA = "data"


def fetch_inputs(context: MachineContext) -> None:
    """Fetch everything that the run starts from, and an earlier machine's results and embeddings.

    Raises:
        DataError: if a file differs from what was uploaded.
        UnsafeName: if a name leads outside the working folder.
    """
    record, launch, folder = context.record, context.launch, context.folder
    for key, digest in {**launch.recipes, **launch.inputs}.items():
        _fetch(record, key, safe_join(folder, key), digest)
    (folder / UNTOUCHED).write_text("".join(f"{model}\n" for model in launch.base_models), encoding="utf-8")
    _fetch_results(record, folder)
    caches = record.caches()
    for key in folders_in(caches, f"{EMBEDDINGS}/"):
        fetch_folder(caches, key, safe_join(context.cache, key), keeps_manifest=True)
    staged = staged_store(record.aws, record.bucket, record.region)
    fetch_staged(staged, launch.downloads, folder / DATA, lambda line: print(line, flush=True))


def _fetch(record: RunRecord, key: str, path: Path, digest: str) -> None:
    with replacing(path) as temporary:
        record.store().fetch(key, temporary)
        if sha256_of_file(temporary) != digest:
            raise DataError(f"{record.address}{key}: differs from what was uploaded (sha256)")


def _fetch_results(record: RunRecord, folder: Path) -> None:
    """Fetch the results whose digest matches the recorded one; what is missing, or cannot be had, is scored again."""
    store = record.store()
    for key, digest in record.digests().items():
        if not key.startswith(f"{MIRRORED[0]}/"):
            continue
        try:
            path = safe_join(folder, key)
            with replacing(path) as temporary:
                store.fetch(key, temporary)
            if sha256_of_file(path) != digest:
                path.unlink()
        except (FileNotFoundError, PermissionError, *UNUSABLE_NAME) as error:
            print(f"ragcun: not fetched: {error}", flush=True)


def main() -> None:
    """Entry point of `python -m`."""
    try:
        fetch_inputs(MachineContext.read())
    except (RagcunError, OSError) as error:
        print(f"ragcun: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
