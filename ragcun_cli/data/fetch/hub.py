"""A file of a dataset on the Hugging Face hub: its address, its length and its sha256, as the hub lists them.

`HF_ENDPOINT`, `HF_TOKEN` and `HF_HOME` mean what they mean to the hub's own client; what lies in its cache already is
taken from there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.errors import EnvironmentUnfit

PREFIX = "hf:"
ADDRESS = re.compile(r"^hf:(?P<repository>[^@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.+)$")
SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class HubFile:
    """address: a URL, or the path of the copy in the hub's cache. sha256: None for a file that is not in LFS."""

    address: str
    bytes: int
    sha256: str | None
    token: str | None


def find_on_hub(address: str) -> HubFile:
    """What the hub says of `hf:<repository>@<commit>/<path>`.

    Raises:
        EnvironmentUnfit: if the hub cannot be reached, or does not have the file.
    """
    from huggingface_hub import HfApi, get_token, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

    match = ADDRESS.match(address)
    assert match is not None, address
    repository, commit, path = match["repository"], match["commit"], match["path"]
    cached = try_to_load_from_cache(repository, path, revision=commit, repo_type="dataset")
    if isinstance(cached, str) and SHA256.match(name := Path(cached).resolve().name):
        # The hub's client calls a file of LFS by the sha256 that the hub gave it.
        return HubFile(cached, Path(cached).stat().st_size, name, None)
    try:
        found = HfApi().get_paths_info(repository, path, revision=commit, repo_type="dataset")
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "?")
        raise EnvironmentUnfit(
            f"{repository}: the hub answers {status}",
            "It may want a login: set HF_TOKEN. Or use another server: --mirror URL|DIR.",
        ) from None
    except Exception as error:  # of whichever HTTP library the hub's client uses
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnvironmentUnfit(
            f"{repository}: the Hugging Face hub cannot be reached: {reason}",
            "Check the network, HF_HUB_OFFLINE and proxies; HF_ENDPOINT names another hub, --mirror URL|DIR a copy.",
        ) from None
    file = found[0] if found else None
    if not isinstance(file, RepoFile):
        raise EnvironmentUnfit(f"{repository}: the hub has no {path} at {commit[:12]}", "Use --mirror URL|DIR.")
    size = file.lfs.size if file.lfs is not None else file.size
    sha256 = file.lfs.sha256.removeprefix("sha256:") if file.lfs is not None else None
    return HubFile(hf_hub_url(repository, path, repo_type="dataset", revision=commit), size, sha256, get_token())
