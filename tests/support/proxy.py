"""A proxy in front of the real model server that makes it fail on some images, or on all."""

import asyncio
import json
import threading

import aiohttp
from aiohttp import web


class Proxy:
    """Fails each request that holds a poisoned image, as a crash of the model server would."""

    def __init__(self, target: str) -> None:
        self.down = False
        self.poison: set[str] = set()
        self.unreadable: set[str] = set()
        self.calls: list[int] = []
        self._target = target
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()

    async def _serve(self) -> None:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_post("/{path:.*}", self._forward)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        images = json.loads(body)["inputs"][0]["data"]
        self.calls.append(len(images))
        if self.down or self.poison & set(images):
            return web.Response(status=503, text="the worker died")
        token = {name: value for name, value in request.headers.items() if name == "Authorization"}
        async with self._session.post(f"{self._target}{request.path}", data=body, headers=token) as answer:
            return web.Response(status=answer.status, body=self._spoiled(images, await answer.read()))

    def _spoiled(self, images: list[str], answer: bytes) -> bytes:
        if not self.unreadable & set(images):
            return answer
        body = json.loads(answer)
        data = {output["name"]: output["data"] for output in body["outputs"]}
        for index, image in enumerate(images):
            if image in self.unreadable:
                data["label"][index], data["error"][index] = "", "expected an image that this version can read"
        return json.dumps(body).encode()
