"""TorchServe's key file: the tokens that it asks for, which are new after each of its starts."""

import json
from pathlib import Path
from typing import Final, Literal

from fabwafer.models.model_server import ServerUnavailableError

KEY_FILE: Final = "key_file.json"
"""Its name in TorchServe's working directory."""

Interface = Literal["inference", "management"]


def authorization(key_file: Path | None, interface: Interface) -> dict[str, str]:
    """Return the HTTP header by which one of TorchServe's interfaces takes a request.

    The file is read each time: it is 300 bytes, and a token that was remembered would end with its server.

    Args:
        key_file: The key file; None where TorchServe asks for no token, as in a cluster.
        interface: The interface that is asked.

    Raises:
        ServerUnavailableError: The file does not hold the token; TorchServe writes it while it starts.
    """
    if key_file is None:
        return {}
    try:
        token = json.loads(key_file.read_bytes())[interface]["key"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerUnavailableError(
            f"expected TorchServe's token for {interface} in {key_file}, which it writes while it starts: {error!r}"
        ) from None
    return {"Authorization": f"Bearer {token}"}
