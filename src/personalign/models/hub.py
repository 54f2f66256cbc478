"""What is asked of the hub, and that it is not asked for minutes where nothing answers."""

import os
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlparse

from personalign.errors import PersonalignError

# What a folder of a model or of an adapter holds.
CONFIGS = ("config.json", "adapter_config.json")


def hub_arguments(source: str | Path) -> dict[str, bool]:
    """What to hand to `from_pretrained`: without a network only the cache is asked, else it retries for a minute.

    Raises PersonalignError for what is neither a folder nor in the cache where the hub cannot be reached.
    """
    if Path(source).is_dir() or hub_answers():
        return {}
    if not _is_cached(str(source)):
        raise PersonalignError(
            f"there is no folder '{source}' here; read as a hub id it is not in the cache either, and the hub cannot be "
            "reached: check the spelling, or the network"
        )
    return {"local_files_only": True}


@cache
def hub_answers() -> bool:
    """Whether the hub's name resolves, or a proxy would do that for us; asked once."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlparse(constants.ENDPOINT)
    try:
        socket.getaddrinfo(address.hostname, address.port or 443)
    except OSError:
        return False
    return True


def _is_cached(source: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(source, name), str) for name in CONFIGS)
