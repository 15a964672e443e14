"""Starts KServe's server as `python -m fabwafer_handlers.kserve_model` does, on loopback (it has no setting)."""

from typing import Any

import kserve.protocol.rest.server as rest
import uvicorn

from fabwafer_handlers.kserve_model import main


class _LoopbackConfig(uvicorn.Config):
    def __init__(self, app: Any, host: str = "", **settings: Any) -> None:
        super().__init__(app, host="127.0.0.1", **settings)


if __name__ == "__main__":
    rest.uvicorn.Config = _LoopbackConfig
    main()
