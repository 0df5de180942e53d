"""Waits for the web server, and announces when a call can really be answered."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable

PATIENCE_SECONDS = 2.0
PAUSE_SECONDS = 0.2


def announce_when_ready(host: str, port: int, announce: Callable[[], None]) -> threading.Event:
    """Calls `announce` once, from its own thread; set the returned event to stop waiting."""
    given_up = threading.Event()

    def wait() -> None:
        while not given_up.is_set():
            if is_ready(host, port):
                announce()
                return
            given_up.wait(PAUSE_SECONDS)

    threading.Thread(target=wait, name="readiness", daemon=True).start()
    return given_up


def is_ready(host: str, port: int) -> bool:
    """Whether the gateway there would accept a call now. Ignores proxies from the environment."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    return False
