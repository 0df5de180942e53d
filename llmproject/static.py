"""Static files under ASGI."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile


class StaticMiddleware(WhiteNoiseMiddleware):
    """Answers with the whole file at once; Django can't stream what WhiteNoise returns under ASGI, and warns of it."""

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        streamed = WhiteNoiseMiddleware.serve(static_file, request)
        try:
            return HttpResponse(b"".join(streamed), status=streamed.status_code, headers=dict(streamed.items()))
        finally:
            streamed.close()
