"""The imaginary API of docs/adding-a-provider.md, for real: an upstream of neither OpenAI's nor Anthropic's kind.

A word is a token. It says the last turn back; a model's name asks for what goes wrong.
"""

from __future__ import annotations

import asyncio
import json
import threading
from types import TracebackType
from typing import Any, Self

from aiohttp import web

STATUSES = {"refuses": 400, "busy": 429, "locked": 401, "fails": 500}


class Parrot:
    """Serves on a free port of 127.0.0.1 in a thread of its own. requests: the bodies that came; keys: with which."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_post("/generate", self._generate)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.requests.append(asked)
        self.keys.append(request.headers["authorization"])
        if asked["model"] in STATUSES:
            return web.Response(status=STATUSES[asked["model"]], text=f"Go away with {self.keys[-1]}.")
        response = web.StreamResponse()
        await response.prepare(request)
        for line in _lines(asked):
            await response.write(line + b"\n")
        if asked["model"] == "cut":
            assert request.transport is not None
            request.transport.abort()
        return response


def _lines(asked: dict[str, Any]) -> list[bytes]:
    said = asked["turns"][-1][1].split()
    counts = [sum(len(text.split()) for _, text in asked["turns"]), len(said)]
    texts = [json.dumps({"text": f"{word} "}).encode() for word in said]
    endings = {
        "cut": [],
        "forgetful": [],
        "babbling": [b"not JSON at all"],
        "dreaming": [json.dumps({"model": "dreaming", "tokens": ["many", -1]}).encode()],
        "odd": [json.dumps({"tokens": counts}).encode()],
    }
    return texts + endings.get(asked["model"], [json.dumps({"model": asked["model"], "tokens": counts}).encode()])
