"""Downloads kept in the bucket, so that no machine with GPUs waits for a public server, at each attempt again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ragcun_cli.aws import names
from ragcun_cli.aws.calls import Aws, AwsError
from ragcun_cli.aws.job import files_of_download
from ragcun_cli.files import replacing
from ragcun_cli.safe_paths import safe_join
from ragcun_cli.storage.s3 import S3Store


def staged_store(aws: Aws, bucket: str, region: str) -> S3Store:
    """Return the store of the downloads that all runs share; keys are laid out like a data folder."""
    return S3Store(aws.client("s3", region), bucket, f"{names.STAGED}/")


def staged_files(aws: Aws, account: str, bucket: str, region: str) -> frozenset[str]:
    """Return the names of the files that are staged; none if there is no bucket yet, or it may not be listed."""
    request = {"Bucket": bucket, "Prefix": f"{names.STAGED}/", "ExpectedBucketOwner": account}
    try:
        found = list(aws.pages("s3", "list_objects_v2", request, region=region, key="Contents"))
    except AwsError:
        return frozenset()  # what is wrong with the bucket, the launch itself says
    return frozenset(each["Key"].removeprefix(f"{names.STAGED}/") for each in found)


def stage_files(store: S3Store, folder: Path, downloads: Sequence[str], say: Callable[[str], None]) -> int:
    """Copy the files of these downloads from a data folder to the bucket, unless they are there; return how many.

    Raises:
        FileNotFoundError: if one is missing; then none is copied.
        OSError: if one cannot be copied.
    """
    there = set(store.keys(""))
    wanted = dict(each for name in downloads for each in files_of_download(name))
    missing = {name: safe_join(folder, name) for name in wanted if name not in there}
    if absent := [str(path) for path in missing.values() if not path.is_file()]:
        raise FileNotFoundError(f"{', '.join(absent)}: not downloaded yet")
    for name, path in missing.items():
        say(f"copying {name} to the bucket")
        store.put(name, path)
    return len(missing)


def fetch_staged(store: S3Store, downloads: Sequence[str], folder: Path, say: Callable[[str], None]) -> int:
    """Copy what is staged of these downloads into a data folder; return how many files.

    `ragcun data download` then checks each against the publisher's checksum, and downloads only the others.
    """
    there = set(store.keys(""))
    copied = 0
    for name in dict(each for download in downloads for each in files_of_download(download)):
        path = safe_join(folder, name)
        if name in there and not path.exists():
            say(f"copying {name} from the bucket")
            with replacing(path) as temporary:
                store.fetch(name, temporary)
            copied += 1
    return copied
