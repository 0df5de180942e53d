"""The web process: calls to models take the gateway's own way, all else Django's."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

from llmproject.parentwatch import die_with_parent

die_with_parent()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmproject.settings")

import django  # noqa: E402  # after the settings are named

django.setup()

from django.conf import settings  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402

from llm.api.asgi import Receive, Scope, Send  # noqa: E402
from llm.api.handler import GatewayHandler  # noqa: E402
from llm.runtime import close_runtime, runtime  # noqa: E402

# The last two are what SDKs ask for whose base URL lacks its /v1: they are told so in their own dialect.
_GATEWAY_PREFIXES = ("/v1/", "/api/chat", "/chat/completions", "/models")
_GATEWAY_PATHS = frozenset(("/v1", "/healthz", "/readyz", "/metrics"))

_django = get_asgi_application()
_gateway = GatewayHandler()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http" and (scope["path"].startswith(_GATEWAY_PREFIXES) or scope["path"] in _GATEWAY_PATHS):
        await _gateway(scope, receive, send)
    else:
        await _django(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            _drain_from_signal_on()
            # Importing an SDK takes a second in which no stream would move.
            runtime().provider(settings.LLM_PROVIDER)
            # At once, so that what a process left behind that died is replayed.
            runtime().writer.start()
            _relieve_the_collector()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await close_runtime()
            await send({"type": "lifespan.shutdown.complete"})
            return


def _drain_from_signal_on() -> None:
    """Servers say `lifespan.shutdown` only once their last stream has ended, so its time is counted from the signal.

    The server hears of the signal all the same: its event loop through the loop's wake-up descriptor, which no handler
    touches, and a handler that it has set itself by being called from ours.
    """
    loop, begin_drain = asyncio.get_running_loop(), runtime().begin_drain

    def on_signal(previous: Callable[[int, FrameType | None], object], signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin_drain)
        previous(signum, frame)

    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            previous = signal.getsignal(signum)
            if callable(previous) and previous is not signal.default_int_handler:
                signal.signal(signum, partial(on_signal, previous))


def _relieve_the_collector() -> None:
    """Hundreds of thousands of objects were made by imports and never go: without them a collection is short.

    Calls leave few cycles behind, so collections may also be rarer; 700 allocations, the default, are a single stream.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
