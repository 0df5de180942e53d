"""Gateways that are killed and started again, each on a port that stays the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import psutil

from tests.faults.crash_points import FOLDER_VARIABLE, Orders
from tests.gateway_process import free_port

_ROOT = Path(__file__).resolve().parent.parent.parent
# A machine that does much else is slow.
_START_S = 180.0
_STOP_S = 180.0
_NOTICED_S = 10.0
# A worker that dies sooner after its start than this is taken for one that can't start, and its server gives up.
CRASH_LOOP_S = 5.6


class Site:
    """One gateway with its own folder, as on a host of its own; `environment` names its database and its settings."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, workers: int) -> None:
        self.port = free_port()
        self.worker_count = workers
        self.kills = 0
        self.spool = folder / "spool"
        self.orders = Orders(folder / "orders")
        self.environment = {
            **environment,
            "VAR_DIR": str(folder / "var"),
            "LLM_SPOOL_DIR": str(self.spool),
            FOLDER_VARIABLE: str(folder / "orders"),
        }
        self._folder = folder
        self._seen_at: dict[int, float] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._restart: Future[None] | None = None
        self._restarter = ThreadPoolExecutor(1, thread_name_prefix="restart")

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    @property
    def spooled_files(self) -> int:
        """With something in them: what a process that is gone could not write into the books."""
        return sum(path.stat().st_size > 0 for path in self.spool.glob("*.spool"))

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Returns once it answers. Raises RuntimeError if it doesn't."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=_ROOT,
                env={**os.environ, **self.environment, "LLM_PROCESS": "web", "WEB_WORKERS": str(self.worker_count)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_it_answers()
        return self

    def _command(self) -> list[str]:
        drain = self.environment.get("LLM_DRAIN_SECONDS", "30")
        return [
            *(sys.executable, "-m", "tests.faults.warm_server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", str(self.worker_count), "--drain-seconds", drain),
            *("--metrics-folder", str(self._folder / "metrics"), "--log-level", "INFO", "--log-format", "json"),
        ]

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self.is_running:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"http://127.0.0.1:{self.port}/healthz", timeout=2, trust_env=False).status_code == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the gateway did not start:\n{self.log[-4000:]}")

    def workers(self) -> list[psutil.Process]:
        """The processes that serve, oldest first; not those that have died and are still to be replaced."""
        found: dict[psutil.Process, float] = {}
        now = time.monotonic()
        for pid in [] if self._process is None else _children_of(self._process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if (worker := psutil.Process(pid)).status() != psutil.STATUS_ZOMBIE:
                    found[worker] = self._seen_at.get(pid, now)
        self._seen_at = {worker.pid: seen_at for worker, seen_at in found.items()}
        return sorted(found, key=lambda worker: (found[worker], worker.create_time()))

    def await_end(self, worker: psutil.Process) -> None:
        """Until the server has noticed that it died."""
        deadline = time.monotonic() + _NOTICED_S
        while worker.is_running() and time.monotonic() < deadline:
            time.sleep(0.02)

    def age_s(self, worker: psutil.Process) -> float:
        """How long it has been seen to live, at least: the system tells a start no better than to a second."""
        return time.monotonic() - self._seen_at[worker.pid]

    def signal(self, signum: int) -> None:
        """To the main process; returns when it has ended."""
        if self._process is not None:
            if self.is_running:
                self._process.send_signal(signum)
            self._process.wait(_STOP_S)

    def stop(self) -> None:
        """In good order, and for good if need be. Does nothing where it has ended."""
        try:
            self.settle()
            self.signal(signal.SIGTERM)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def restart_soon(self, signum: int) -> None:
        """Signal the main process, and start the gateway again while the caller goes on."""
        self.settle()
        self._restart = self._restarter.submit(self._restart_after, signum)

    def settle(self) -> None:
        """Wait for a restart that is under way. Raises what made it fail."""
        if self._restart is not None:
            restart, self._restart = self._restart, None
            restart.result()

    @property
    def is_restarting(self) -> bool:
        return self._restart is not None and not self._restart.done()

    def _restart_after(self, signum: int) -> None:
        self.signal(signum)
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _children_of(pid: int) -> list[int]:
    """What the kernel says at once; otherwise all processes of the machine would have to be looked at."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
