"""Whether what is not here yet could come: the hub, BEIR's server, or the mirrors that stand in for them."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ragcun_cli.data.registry import SERVER
from ragcun_cli.preflight.checks import OK, REMARK, Check

HUB = "https://huggingface.co"
SECONDS_TO_ANSWER = 5


def check_network() -> list[Check]:
    """A server that cannot be reached stops nothing as long as all is here, which other checks say."""
    hub = os.environ.get("HF_ENDPOINT", HUB)
    mirrored = " (HF_ENDPOINT)" if "HF_ENDPOINT" in os.environ else ""
    return [
        _check_server("hub", hub, mirrored, "base_model a folder, or HF_ENDPOINT a mirror"),
        _check_server("BEIR's server", SERVER, "", "`ragcun data download --mirror URL|DIR`"),
    ]


def _check_server(name: str, address: str, mirrored: str, otherwise: str) -> Check:
    import requests

    where = urlsplit(address).netloc or address
    try:
        # Any answer will do: it is there.
        status = requests.head(address, timeout=SECONDS_TO_ANSWER, allow_redirects=False).status_code
    except (requests.RequestException, ValueError) as error:
        reason = type(error).__name__
        return Check(name, REMARK, f"{where}{mirrored} cannot be reached ({reason})", f"What is not here: {otherwise}.")
    return Check(name, OK, f"{where}{mirrored} answers ({status})")
