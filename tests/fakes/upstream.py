"""The fake upstream as a server: its own thread, its own event loop, a real socket on the loopback."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.fakes.app import FakeApp
from tests.fakes.ledger import Ledger
from tests.fakes.recordings import Recording
from tests.fakes.scripts import Script

HOST = "127.0.0.1"
BACKLOG = 4096
# How long a stop waits for replies that are under way before it cancels them.
SHUTDOWN_S = 0.1
START_TIMEOUT_S = 10.0


class FakeUpstream:
    """A provider on 127.0.0.1. Use it as a context manager, or `start()` and `stop()` it; every method is thread-safe.

    Which script serves a request: the one its model names (`fake-...`, `bench-...`, `recording-...`), else the next
    of the queue, else the default one. `stop()` closes the port (connections are refused), `start()` then opens the
    same one again, with the ledger as it was.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        is_lean: bool = False,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self.port = port
        self.ledger = Ledger(is_lean=is_lean)
        self._app = FakeApp(self.ledger)
        self._loop_factory = loop_factory
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: OSError | None = None

    @property
    def openai_base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    @property
    def anthropic_base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> Self:
        """Return once the port accepts connections. Raises OSError when it is taken."""
        if self._thread is not None:
            raise RuntimeError("already started")
        self._ready.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._run, name="fake-upstream", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise TimeoutError("the fake upstream did not start")
        self._raise_failure()
        return self

    def stop(self) -> None:
        """Close the port and every connection; what hangs lets go. Nothing happens if it isn't running."""
        if self._thread is None:
            return
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def enqueue(self, *scripts: Script) -> None:
        """Each serves one request, in this order."""
        self._app.enqueue(*scripts)

    def set_default(self, script: Script) -> None:
        """Serves all requests that neither a model name nor the queue provides for."""
        self._app.set_default(script)

    def serve_recording(self, *recordings: Recording) -> None:
        """Each answers one request, in this order: `enqueue` for recordings."""
        self._app.enqueue(*(Script(recording=recording) for recording in recordings))

    def publish(self, *recordings: Recording) -> None:
        """Serve them under the model names `recording-<id>`, as often as they are asked for, in any order."""
        self._app.publish(*recordings)

    def reset(self) -> None:
        """An empty ledger, an empty queue, the default script, no published recordings."""
        self._app.reset()

    def _raise_failure(self) -> None:
        if (failure := self._failure) is not None:
            self.stop()
            raise failure

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # Cancellation tells a reply that hangs or waits that its peer has left.
        runner = web.AppRunner(
            self._app.build(self._stop), access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self.port, backlog=BACKLOG).start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()
