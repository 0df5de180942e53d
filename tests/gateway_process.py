"""Real gateway processes for tests: granian, the database of the test, an environment of choice."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import TracebackType
from typing import IO, Self

import httpx2
import psutil
from django.conf import settings
from django.db import connection

from tests.output import written_to

_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60
_TOLD_CHARACTERS = 4_000


class Gateway:
    """One running web server. `openai_base_url` is what an application would be given."""

    def __init__(self, environment: Mapping[str, str], *, workers: int = 1, is_awaited: bool = True) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.openai_base_url = f"{self.url}/v1"
        self._folder = TemporaryDirectory(prefix="llm-gateway-")
        self._output: IO[bytes] = TemporaryFile()  # noqa: SIM115  # closed by close()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "llmproject.server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--workers", str(workers), "--drain-seconds", environment.get("LLM_DRAIN_SECONDS", "30")),
                *("--metrics-folder", self._folder.name, "--log-level", "INFO", "--log-format", "json"),
            ],
            cwd=_ROOT,
            env={
                **os.environ,
                **_database_environment(),
                "LLM_PROCESS": "web",
                "WEB_WORKERS": str(workers),
                # A server with its usual bound of connections has room for all that run at once.
                "LLM_DB_THREADS": "2",
                **environment,
            },
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        _running.append(self)
        if is_awaited:
            self._wait_until_it_answers()

    def log(self) -> str:
        """All that the server has written so far."""
        return written_to(self._output)

    def workers(self) -> list[psutil.Process]:
        """The processes that serve; the main one only watches over them."""
        workers: list[psutil.Process] = psutil.Process(self.process.pid).children()
        return workers

    def stop(self, *, signum: int = signal.SIGTERM, timeout_s: float = 40) -> int:
        """Signal the main process and wait for its end; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        self.stop()
        self._clean_up()

    def _clean_up(self) -> None:
        _running.remove(self)
        self._output.close()
        self._folder.cleanup()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/healthz", timeout=2).status_code == 200:
                    return
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        log = self.log()
        self._clean_up()
        raise RuntimeError(f"the gateway did not start:\n{log}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_running: list[Gateway] = []


def latest_logs() -> dict[str, str]:
    """What each gateway of this process wrote last, by the address it has: why a test failed may stand there."""
    return {gateway.url: gateway.log()[-_TOLD_CHARACTERS:] for gateway in _running}


# Each holds connections to the database.
_MAX_KEPT = 4


class GatewayPool:
    """Gateways that tests share, one for each environment that was asked for; only those used last are kept."""

    def __init__(self) -> None:
        self._gateways: dict[tuple[tuple[str, str], ...], Gateway] = {}

    def get(self, environment: Mapping[str, str]) -> Gateway:
        key = tuple(sorted(environment.items()))
        gateway = self._gateways.pop(key, None) or Gateway(environment)
        # The last one stands last.
        self._gateways[key] = gateway
        while len(self._gateways) > _MAX_KEPT:
            self._gateways.pop(next(iter(self._gateways))).close()
        return gateway

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for gateway in self._gateways.values():
            gateway.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _database_environment() -> dict[str, str]:
    """The test database, as the server must be told of it."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return {"DATABASE_URL": f"sqlite:///{name}"}
    config = settings.DATABASES["default"]
    return {"DATABASE_URL": f"postgres://{config['USER']}@{config['HOST']}:{config['PORT']}/{name}"}
