"""Look up a dataset file on the Hugging Face Hub: its address, length and sha256.

`HF_ENDPOINT`, `HF_TOKEN` and `HF_HOME` have the same meaning as in the Hub's own client; files already in its cache are
used from there.
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
    """A file on the Hub. address: URL, or path of the copy in the Hub's cache. sha256: None if it is not in LFS."""

    address: str
    bytes: int
    sha256: str | None
    token: str | None


def find_on_hub(address: str) -> HubFile:
    """Look up `hf:<repository>@<commit>/<path>` on the Hub.

    Raises:
        EnvironmentUnfit: if the Hub cannot be reached or does not have the file.
    """
    from huggingface_hub import HfApi, get_token, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

    match = ADDRESS.match(address)
    assert match is not None, address
    repository, commit, path = match["repository"], match["commit"], match["path"]
    cached = try_to_load_from_cache(repository, path, revision=commit, repo_type="dataset")
    if isinstance(cached, str) and SHA256.match(name := Path(cached).resolve().name):
        # The Hub's client names LFS files after the sha256 given by the Hub.
        return HubFile(cached, Path(cached).stat().st_size, name, None)
    try:
        found = HfApi().get_paths_info(repository, path, revision=commit, repo_type="dataset")
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "?")
        raise EnvironmentUnfit(
            f"{repository}: the Hub answered {status}",
            "It may require a login: set HF_TOKEN. Or use another server: --mirror URL|DIR.",
        ) from None
    except Exception as error:  # from whichever HTTP library the Hub's client uses
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnvironmentUnfit(
            f"{repository}: the Hugging Face Hub cannot be reached: {reason}",
            "Check the network, HF_HUB_OFFLINE and proxies, or use another hub (HF_ENDPOINT) or --mirror URL|DIR.",
        ) from None
    file = found[0] if found else None
    if not isinstance(file, RepoFile):
        raise EnvironmentUnfit(f"{repository}: the Hub has no {path} at {commit[:12]}", "Use --mirror URL|DIR.")
    size = file.lfs.size if file.lfs is not None else file.size
    sha256 = file.lfs.sha256.removeprefix("sha256:") if file.lfs is not None else None
    return HubFile(hf_hub_url(repository, path, repo_type="dataset", revision=commit), size, sha256, get_token())
