"""The fake upstream as a process of its own, for benchmarks and fault harnesses.

`python -m tests.fakes --port 0` prints one line of JSON (`port`, `pid`, `openai_base_url`, `anthropic_base_url`) and
serves until SIGTERM or SIGINT. Its ledger is at GET /_ledger and /_totals; POST /_reset, /_enqueue and /_default.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from tests.fakes.recordings import load
from tests.fakes.upstream import FakeUpstream

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def main() -> None:
    options = _parse_options()
    _raise_file_limit()
    # Before the server's thread exists, so that it inherits the mask and the signals wait for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    upstream = FakeUpstream(port=options.port, is_lean=options.lean, loop_factory=_fastest_loop())
    if options.recordings is not None:
        upstream.publish(*load(options.recordings))
    with upstream:
        print(json.dumps(_address(upstream)), flush=True)
        signal.sigwait(STOP_SIGNALS)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--lean", action="store_true", help="keep neither headers nor bodies in the ledger")
    parser.add_argument("--recordings", type=Path, help="a directory to serve as the models recording-<id>")
    return parser.parse_args()


def _raise_file_limit() -> None:
    """As many connections as the machine lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _address(upstream: FakeUpstream) -> dict[str, str | int]:
    return {
        "port": upstream.port,
        "pid": os.getpid(),
        "openai_base_url": upstream.openai_base_url,
        "anthropic_base_url": upstream.anthropic_base_url,
    }


if __name__ == "__main__":
    main()
