"""What large bodies and replies cost a worker: `python -m benchmarks.bodies`.

Sends 20 of each shape with one key at once, and asks for /healthz all the while. Prints how late that was at worst, the
answers, and the memory of all processes before, at the peak and at the end: half a minute later where bodies are as
large as they may be. Exit code 1 where /healthz was later than 250 ms, or more than 100 MB have stayed.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.body_shapes import LARGE, replies, requests
from benchmarks.books import prepare_books
from benchmarks.database import sqlite_database
from benchmarks.gateway import environment_of
from benchmarks.processes import Gateway, running_gateway, running_large_upstream
from benchmarks.procstat import process_tree, rss_mb

_AT_ONCE = 20
_SETTLE_SECONDS = 30.0
_SHORT_SETTLE_SECONDS = 2.0
_PING_SECONDS = 0.02
_MAX_HEALTHZ_S = 0.25
_MAX_KEPT_MB = 100.0
_MODEL = "gpt-bench"
# A route, so that the model's name is changed in what goes up.
_ALIAS = "alias"
_CHAT, _NATIVE = "/v1/chat/completions", "/api/chat"
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


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    body: bytes
    path: str = _CHAT


@dataclass(slots=True)
class Watch:
    """What was seen while bodies were sent."""

    answers: Counter[int | str] = field(default_factory=Counter)
    slowest_healthz_s: float = 0.0
    peak_mb: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bodies", description=__doc__)
    parser.add_argument("--settle-seconds", type=float, default=_SETTLE_SECONDS, help="after the largest bodies")
    parser.add_argument("--only", default="", help="shapes whose names hold this")
    options = parser.parse_args(arguments)
    is_fine = True
    with TemporaryDirectory(prefix="llm-bench-") as name, sqlite_database(Path(name)) as database:
        environment = environment_of(database, Path(name))
        secret = prepare_books(environment, models=[_MODEL, *replies()]).free
        _prepare_routes()
        with running_large_upstream(environment) as port:
            environment["LLM_OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
            with running_gateway(environment, workers=1, log=Path(name) / "gateway.log") as gateway:
                nothing = Case("nothing", b'{"messages":[]}')
                _measure(replace(nothing, name=""), gateway, secret, settle_s=1)
                _print("shape", "healthz ms", "MB before", "peak", "after", "answers")
                # What is late then is this machine.
                _measure(nothing, gateway, secret, settle_s=_SHORT_SETTLE_SECONDS)
                for case in _cases():
                    if options.only in case.name:
                        is_large = len(case.body) > LARGE // 2
                        settle_s = options.settle_seconds if is_large else _SHORT_SETTLE_SECONDS
                        is_fine &= _measure(case, gateway, secret, settle_s=settle_s)
    return 0 if is_fine else 1


def _prepare_routes() -> None:
    from llm.models import Account, ModelRoute

    ModelRoute.objects.create(name=_ALIAS).targets.create(provider="openai", upstream_model=_MODEL)
    # Then the cost is put into replies.
    Account.objects.update(shows_cost=True)


def _cases() -> Iterator[Case]:
    for name, body in requests(_ALIAS):
        yield Case(name, body)
    for name, body in requests(_MODEL):
        if name.startswith(("messages", "text")):
            yield Case(f"{name}, translated", body, _NATIVE)
    for model in replies():
        is_stream = model.startswith("events")
        small = b'{"model":"%s","stream":%s,"messages":[{"role":"user","content":"Hi"}]}'
        body = small % (model.encode(), b"true" if is_stream else b"false")
        yield Case(model, body)
        yield Case(f"{model}, translated", body, _NATIVE)


def _measure(case: Case, gateway: Gateway, secret: str, *, settle_s: float) -> bool:
    """Whether all was within its bounds."""
    before = _memory_mb(gateway)
    watch = Watch()
    done = threading.Event()
    watchers = [threading.Thread(target=work, args=(gateway, watch, done)) for work in (_ping, _weigh)]
    senders = [threading.Thread(target=_send, args=(gateway, secret, case, watch)) for _ in range(_AT_ONCE)]
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
    if case.name:
        figures = (watch.slowest_healthz_s * 1000, before, watch.peak_mb, after)
        _print(case.name, *(f"{figure:.0f}" for figure in figures), answers)
    return watch.slowest_healthz_s <= _MAX_HEALTHZ_S and after - before <= _MAX_KEPT_MB


def _print(name: str, *columns: str) -> None:
    *figures, answers = columns
    sys.stdout.write(f"{name:34}" + "".join(f"{figure:>11}" for figure in figures) + f"  {answers}\n")
    sys.stdout.flush()


def _send(gateway: Gateway, secret: str, case: Case, watch: Watch) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=120)
    try:
        connection.request("POST", case.path, case.body, {"authorization": f"Bearer {secret}"})
        response = connection.getresponse()
        while response.read(1024**2):
            pass
        answer: int | str = response.status
    except (OSError, http.client.HTTPException) as error:
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
