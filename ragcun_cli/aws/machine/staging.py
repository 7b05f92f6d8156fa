"""Keep what this machine has downloaded in the bucket, for the machines with GPUs that come later (`aws stage`)."""

from __future__ import annotations

import sys

from ragcun_cli.aws.machine.context import MachineContext
from ragcun_cli.aws.machine.inputs import DATA
from ragcun_cli.aws.staging import stage_files, staged_store
from ragcun_cli.errors import RagcunError


def main() -> None:
    """Entry point of `python -m`."""
    try:
        context = MachineContext.read()
        store = staged_store(context.record.aws, context.record.bucket, context.record.region)
        stage_files(store, context.folder / DATA, context.launch.downloads, lambda line: print(line, flush=True))
    except (RagcunError, OSError) as error:
        print(f"ragcun: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
