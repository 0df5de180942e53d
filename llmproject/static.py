"""Static files: compressed when collected, and served under ASGI beside Django's handler and its gate."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.middleware.security import SecurityMiddleware
from whitenoise.compress import Compressor
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile
from whitenoise.storage import CompressedStaticFilesStorage

from llm.api.asgi import Receive, Scope, Send
from llmproject.refusals import nothing_at, refusal

_THREADS = 2
# File times are set less precisely than they are read.
SAME_TIME_SECONDS = 0.001


class StaticStorage(CompressedStaticFilesStorage):
    """Compresses only what has changed: compressing everything takes seconds, and every `make run` collects."""

    def post_process(self, paths: dict[str, Any], dry_run: bool = False, **options: Any) -> Iterator[Any]:
        changed = {name: source for name, source in paths.items() if not self._is_compressed(name)}
        return super().post_process(changed, dry_run, **options)  # type: ignore[no-any-return]

    def create_compressor(self, **options: Any) -> Compressor:
        # Brotli takes ten times as long, and its presence depends on what else is installed.
        return Compressor(use_brotli=False, **options)

    def _is_compressed(self, name: str) -> bool:
        """WhiteNoise gives a finished .gz the modification time of its original."""
        original, compressed = Path(self.path(name)), Path(f"{self.path(name)}.gz")
        return compressed.exists() and abs(compressed.stat().st_mtime - original.stat().st_mtime) < SAME_TIME_SECONDS


class StaticMiddleware(WhiteNoiseMiddleware):
    """Responds with the whole file at once; Django can't stream WhiteNoise's responses under ASGI, and warns."""

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        streamed = WhiteNoiseMiddleware.serve(static_file, request)
        try:
            return HttpResponse(b"".join(streamed), status=streamed.status_code, headers=dict(streamed.items()))
        finally:
            streamed.close()


class StaticFiles:
    """An ASGI application for static files only: no session, no database, and two threads whatever the load.

    The files are served by Django's middleware too, for deployments without this.
    """

    def __init__(self) -> None:
        self._security = SecurityMiddleware(StaticMiddleware(_nothing_here))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="llm-static")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = ASGIRequest(scope, io.BytesIO())
        response = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, request)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.items()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.content})

    def _answer(self, request: HttpRequest) -> HttpResponse:
        return cast("HttpResponse", self._security(request))


def _nothing_here(request: HttpRequest) -> HttpResponse:
    return refusal(request.path, nothing_at(request.path))
