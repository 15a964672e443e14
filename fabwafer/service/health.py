"""The HTTP endpoints of a process: metrics, health, readiness."""

import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.http import HttpProcessingError
from prometheus_client import REGISTRY, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, which nobody uses

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _is_our_own(record: logging.LogRecord) -> bool:
    """Tell whether a record of the server is no fault of a client: those quote all that was sent, 300 KB a time."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class HealthServer:
    """Serves /metrics, /healthz (the process runs) and /readyz (it does its work).

    Args:
        unready: Returns why the process is not ready, or None.
    """

    def __init__(self, unready: Callable[[], str | None]) -> None:
        self._unready = unready
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Begin to serve.

        Returns:
            The address, `http://HOST:PORT`, with the free port that was taken where `port` is 0.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        logging.getLogger("aiohttp.server").addFilter(_is_our_own)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound = self._runner.addresses[0][1]
        return f"http://{host}:{bound}"

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": METRICS_TYPE})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        reason = self._unready()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)
