"""The web server's main process: granian, which starts the workers and replaces those that fail.

It doesn't load Django, so it stays small; `manage.py serve` has checked the settings and passes on what it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server
from granian.server.mp import WorkerProcess

from llmproject.logging import logging_settings
from llmproject.parentwatch import die_with_supervisor
from llmproject.stopsignals import hold_stop_signals_of_children

# Requests that one worker handles at a time; granian's default would stop a worker at a few hundred streams.
BACKPRESSURE = 16_384
# Connections waiting to be accepted.
BACKLOG = 4096
# For a connection on which no request begins, or its headers don't arrive. Only HTTP/1 has this bound from the first
# byte on: where granian detects HTTP/2, it waits for ever. SDKs and proxies speak HTTP/1 to us.
SILENCE_MS = 30_000
# How long a worker may take to stop beyond the time granted to calls: to settle the rest and write it.
KILL_MARGIN_SECONDS = 20
# For systems whose hard limit is "none" but which refuse to set that.
MANY_FILES = 65_536


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    die_with_supervisor()
    hold_stop_signals_of_children()
    WorkerProcess.is_alive = has_not_ended  # type: ignore[assignment, method-assign]
    raise_open_files_limit()
    share_metrics(options.metrics_folder / str(options.port))
    Server(
        "llmproject.asgi:application",
        address=options.host,
        port=options.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=SILENCE_MS),
        workers=options.workers,
        loop=Loops.uvloop,
        websockets=False,
        backlog=BACKLOG,
        backpressure=BACKPRESSURE,
        respawn_failed_workers=True,
        workers_kill_timeout=options.drain_seconds + KILL_MARGIN_SECONDS,
        log_level=LogLevels(options.log_level.lower()),
        log_dictconfig=logging_settings(level=options.log_level, log_format=options.log_format),
        log_access=False,
    ).serve()


def has_not_ended(worker: WorkerProcess) -> bool:
    """What granian calls after waiting for a worker: while it is true, granian reports that the worker refused to stop.

    A granian thread waits for the same process. Whichever of the two comes second learns nothing, and takes the worker
    for alive until the first has recorded its end, for which granian's millisecond may be too short.
    """
    return worker.inner.is_alive() and not connection.wait([worker.inner.sentinel], timeout=0)


def share_metrics(folder: Path) -> None:
    """The workers inherit the variable and write their counts into files there; any one's /metrics sums them up."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def raise_open_files_limit() -> None:
    """A stream takes two sockets, and a usual limit is 1024; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, MANY_FILES):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m llmproject.server", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--drain-seconds", type=int, required=True)
    parser.add_argument("--metrics-folder", type=Path, required=True, help="gets one for each port")
    parser.add_argument("--log-level", required=True)
    parser.add_argument("--log-format", required=True)
    return parser


if __name__ == "__main__":
    main()
