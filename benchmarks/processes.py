"""The processes that are measured: the fake upstream and the gateway, each started as in production."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.procstat import process_tree, rss_mb

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_DRAIN_SECONDS = 5
_SHOWN_LOG_CHARACTERS = 3000


class StartFailedError(RuntimeError):
    """A process ended, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Gateway:
    pid: int
    port: int

    @property
    def worker_pids(self) -> list[int]:
        """The processes that serve, not the main one and not the helpers of multiprocessing."""
        children = process_tree(self.pid)[1:]
        return [pid for pid in children if rss_mb(pid) > rss_mb(self.pid) / 2]


@dataclass(frozen=True, slots=True)
class Upstream:
    """The fake provider; its ledger holds what it served since it was last reset."""

    pid: int
    port: int

    @property
    def openai_base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic_base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self) -> None:
        _ask(self.port, "POST", "/_reset")

    def totals(self) -> dict[str, int]:
        totals: dict[str, int] = json.loads(_ask(self.port, "GET", "/_totals"))
        return totals


@contextlib.contextmanager
def running_upstream(environment: Mapping[str, str]) -> Iterator[Upstream]:
    command = [sys.executable, "-m", "tests.fakes", "--port", "0", "--lean"]
    with _running(command, environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise StartFailedError("the fake upstream did not start")
        address: dict[str, Any] = json.loads(line)
        yield Upstream(address["pid"], address["port"])


@contextlib.contextmanager
def running_large_upstream(environment: Mapping[str, str]) -> Iterator[int]:
    """The port of `benchmarks.large_upstream`."""
    command = [sys.executable, "-m", "benchmarks.large_upstream"]
    with _running(command, environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextlib.contextmanager
def running_gateway(environment: Mapping[str, str], *, workers: int, log: Path) -> Iterator[Gateway]:
    """log: where the gateway's output goes, one line a call at its default level."""
    port = _free_port()
    options = {"--host": "127.0.0.1", "--port": port, "--workers": workers, "--drain-seconds": _DRAIN_SECONDS}
    options |= {"--metrics-folder": log.parent / "metrics", "--log-level": "INFO", "--log-format": "json"}
    command = [sys.executable, "-m", "llmproject.server", *(str(word) for pair in options.items() for word in pair)]
    environment = {**environment, "LLM_PROCESS": "web", "WEB_WORKERS": str(workers)}
    with log.open("wb") as output, _running(command, environment, stdout=output) as process:
        try:
            _wait_until_it_answers(process, port)
            yield Gateway(process.pid, port)
        except Exception as error:
            error.add_note(f"The gateway's log ends with:\n{log.read_text()[-_SHOWN_LOG_CHARACTERS:]}")
            raise


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], *, stdout: IO[bytes] | int
) -> Iterator[subprocess.Popen[bytes]]:
    stderr = subprocess.STDOUT if stdout != subprocess.PIPE else None
    process = subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=stdout, stderr=stderr)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            _ask(port, "GET", "/healthz")
            return
        time.sleep(0.05)
    raise StartFailedError("the gateway did not start")


def _ask(port: int, method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        body = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise StartFailedError(f"{method} {path} said {reply.status}")
    return body


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
