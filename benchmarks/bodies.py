"""What large request bodies cost a worker: `python -m benchmarks.bodies`.

Sends 20 bodies of 31 MB with one key at once, of each kind, and asks for /healthz all the while. Prints how late that
was at worst, and the memory of all processes at the peak and half a minute later. docs/decisions/0021 has figures.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.books import prepare_books
from benchmarks.database import sqlite_database
from benchmarks.gateway import environment_of
from benchmarks.processes import Gateway, running_gateway, running_upstream
from benchmarks.procstat import process_tree, rss_mb

_BODY_BYTES = 31 * 1024**2
_AT_ONCE = 20
_SETTLE_SECONDS = 30.0
_PING_SECONDS = 0.02
_MODEL = "gpt-bench"
# Until its standard input ends.
_PINGER = """
import http.client, select, sys, time
slowest = 0.0
while not select.select([sys.stdin], [], [], 0.02)[0]:
    begun = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    connection.close()
    slowest = max(slowest, time.perf_counter() - begun)
print(slowest)
"""


@dataclass(slots=True)
class Watch:
    """What was seen while bodies were sent."""

    answers: Counter[int | str] = field(default_factory=Counter)
    slowest_healthz_s: float = 0.0
    peak_mb: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bodies", description=__doc__)
    parser.add_argument("--settle-seconds", type=float, default=_SETTLE_SECONDS)
    parser.add_argument("--only", choices=sorted(BODIES))
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="llm-bench-") as name, sqlite_database(Path(name)) as database:
        environment = environment_of(database, Path(name))
        secret = prepare_books(environment, models=[_MODEL]).free
        with running_upstream(environment) as upstream:
            environment["LLM_OPENAI_BASE_URL"] = upstream.openai_base_url
            with running_gateway(environment, workers=1, log=Path(name) / "gateway.log") as gateway:
                for kind in [options.only] if options.only else BODIES:
                    _measure(kind, gateway, secret, settle_s=options.settle_seconds)
    return 0


def _numbers() -> bytes:
    head, tail = b'{"model":"%s","messages":[],"y":[' % _MODEL.encode(), b"1]}"
    return head + b"1," * ((_BODY_BYTES - len(head) - len(tail)) // 2) + tail


def _text() -> bytes:
    head, tail = b'{"model":"%s","messages":[{"role":"user","content":"' % _MODEL.encode(), b'"}]}'
    words = "Once upon a time, in a far-off country, there lived a k\u00f6nig; his name was {Bj\u00f6rn}.\\n".encode()
    return head + words * ((_BODY_BYTES - len(head) - len(tail)) // len(words)) + tail


BODIES = {"numbers": _numbers, "text": _text}


def _measure(kind: str, gateway: Gateway, secret: str, *, settle_s: float) -> None:
    body = BODIES[kind]()
    before = _memory_mb(gateway)
    watch = Watch()
    done = threading.Event()
    watchers = [threading.Thread(target=work, args=(gateway, watch, done)) for work in (_ping, _weigh)]
    senders = [threading.Thread(target=_send, args=(gateway, secret, body, watch)) for _ in range(_AT_ONCE)]
    for thread in watchers + senders:
        thread.start()
    for thread in senders:
        thread.join()
    time.sleep(settle_s)
    done.set()
    for thread in watchers:
        thread.join()
    after = _memory_mb(gateway)
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(watch.answers.items(), key=str))
    sys.stdout.write(
        f"{kind}: {answers}; /healthz at most {watch.slowest_healthz_s * 1000:.0f} ms; "
        f"memory {before:.0f} MB, at the peak {watch.peak_mb:.0f} MB, after {settle_s:g} s {after:.0f} MB\n"
    )
    sys.stdout.flush()


def _send(gateway: Gateway, secret: str, body: bytes, watch: Watch) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=120)
    try:
        connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {secret}"})
        answer: int | str = connection.getresponse().status
    except OSError as error:
        # A refusal before the body was read may close the connection while it is still being sent.
        answer = type(error).__name__
    finally:
        connection.close()
    watch.answers[answer] += 1


def _ping(gateway: Gateway, watch: Watch, done: threading.Event) -> None:
    """From a process of its own, which the senders don't hold up."""
    with subprocess.Popen(
        [sys.executable, "-c", _PINGER, str(gateway.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as pinger:
        done.wait()
        slowest, _ = pinger.communicate(b"")
    watch.slowest_healthz_s = float(slowest)


def _weigh(gateway: Gateway, watch: Watch, done: threading.Event) -> None:
    while not done.wait(_PING_SECONDS):
        watch.peak_mb = max(watch.peak_mb, _memory_mb(gateway))


def _memory_mb(gateway: Gateway) -> float:
    total = 0.0
    for pid in process_tree(gateway.pid):
        try:
            total += rss_mb(pid)
        except OSError:
            continue  # A body's checker ended while we looked.
    return total


if __name__ == "__main__":
    sys.exit(main())
