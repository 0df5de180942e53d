"""Static files: compressed when they are collected, served under ASGI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse
from whitenoise.compress import Compressor
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile
from whitenoise.storage import CompressedStaticFilesStorage

# Times of files are set less exactly than they are read.
SAME_TIME_SECONDS = 0.001


class StaticStorage(CompressedStaticFilesStorage):
    """Compresses only what has changed: compressing all of it takes seconds, and every `make run` collects."""

    def post_process(self, paths: dict[str, Any], dry_run: bool = False, **options: Any) -> Iterator[Any]:
        changed = {name: source for name, source in paths.items() if not self._is_compressed(name)}
        return super().post_process(changed, dry_run, **options)  # type: ignore[no-any-return]

    def create_compressor(self, **options: Any) -> Compressor:
        # Brotli takes ten times as long, and is there or not depending on what else is installed.
        return Compressor(use_brotli=False, **options)

    def _is_compressed(self, name: str) -> bool:
        """WhiteNoise gives a .gz, once it is whole, the time of its original."""
        original, compressed = Path(self.path(name)), Path(f"{self.path(name)}.gz")
        return compressed.exists() and abs(compressed.stat().st_mtime - original.stat().st_mtime) < SAME_TIME_SECONDS


class StaticMiddleware(WhiteNoiseMiddleware):
    """Answers with the whole file at once; Django can't stream what WhiteNoise returns under ASGI, and warns of it."""

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        streamed = WhiteNoiseMiddleware.serve(static_file, request)
        try:
            return HttpResponse(b"".join(streamed), status=streamed.status_code, headers=dict(streamed.items()))
        finally:
            streamed.close()
