"""Whether a model hub can be asked at all, found out in a moment instead of after many retries."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from kronpress.errors import KronpressError


def require_hub(name: str) -> None:
    """Check that the model `name` is cached or that the hub's host can be resolved.

    Raises:
        KronpressError: neither, or `name` is not a hub id.
    """
    remedy = "name an existing folder, a .gguf file or bundled:smollm2-135m"
    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError as error:
        raise KronpressError(f"there is no folder '{name}' here, and it is not a hub id either; {remedy}") from error
    if not cached and (constants.HF_HUB_OFFLINE or not _resolves(constants.ENDPOINT)):
        raise KronpressError(f"there is no folder '{name}' here, and no hub can be reached to look it up; {remedy}")


def _resolves(address: str) -> bool:
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(address).hostname, None)
    except OSError:
        return False
    return True
