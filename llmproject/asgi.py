"""The web process: model calls take the gateway's own path, everything else Django's."""

from __future__ import annotations

import gc
import os

from llmproject.parentwatch import die_with_parent

die_with_parent()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmproject.settings")

import django  # noqa: E402  # after the settings are named

django.setup()

from django.conf import settings  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402

from llm.api.asgi import Receive, Scope, Send  # noqa: E402
from llm.api.handler import GatewayHandler  # noqa: E402
from llm.calls.runtime import close_runtime, runtime  # noqa: E402
from llmproject.front import Front  # noqa: E402
from llmproject.pagegate import PageGate  # noqa: E402
from llmproject.static import StaticFiles  # noqa: E402
from llmproject.stopsignals import begin_drain_at_stop_signal  # noqa: E402

# The last two are requested by SDKs whose base URL lacks /v1: they get that explanation in their own dialect.
_GATEWAY_PREFIXES = ("/v1/", "/api/chat", "/chat/completions", "/models")
_GATEWAY_PATHS = frozenset(("/v1", "/healthz", "/readyz", "/metrics"))

begin_drain_at_stop_signal(lambda: runtime().begin_drain())
_django = Front(PageGate(get_asgi_application(), places=settings.LLM_DB_PAGES))
_static = Front(StaticFiles())
_gateway = GatewayHandler()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http" and (scope["path"].startswith(_GATEWAY_PREFIXES) or scope["path"] in _GATEWAY_PATHS):
        await _gateway(scope, receive, send)
    elif scope["type"] == "http" and scope["path"].startswith("/static/"):
        await _static(scope, receive, send)
    else:
        await _django(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            runtime().load_providers()
            # At once, so that the spool of a dead process is replayed.
            runtime().writer.start()
            runtime().connect_readers()
            _relieve_the_collector()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await close_runtime()
            await send({"type": "lifespan.shutdown.complete"})
            return


def _relieve_the_collector() -> None:
    """Freezes the hundreds of thousands of objects created by imports, which never go: that shortens collections.

    Calls leave few reference cycles, so collections may also be rarer; 700 allocations, the default, are a single
    stream.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
