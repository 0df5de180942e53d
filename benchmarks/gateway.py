"""What the gateway costs: `python -m benchmarks.gateway`.

Starts a fake upstream and the gateway on a fresh database, sends whole and streamed chat completions to both, and
prints what the gateway adds in time, CPU and memory. After each run the books must agree with the upstream's ledger to
the last token; otherwise it ends with exit code 1. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.books import BooksWrongError, Keys, check_books, prepare_books, read_totals
from benchmarks.database import (
    AlreadyRunningError,
    BenchDatabase,
    DatabaseMissingError,
    postgres_database,
    sqlite_database,
)
from benchmarks.driver import BadReplyError, Job, Outcome, drive
from benchmarks.processes import Gateway, StartFailedError, Upstream, running_gateway, running_upstream
from benchmarks.procstat import (
    ProcessesChangedError,
    cpu_ms_between,
    cpu_ms_by_process,
    cpu_us_by_thread,
    describe_machine,
    rss_mb,
)
from benchmarks.profiles import ProfilerMissingError, dearest_functions, recorded_profile
from benchmarks.table import Memory, Report, Run, render

_FAILURES = (
    AlreadyRunningError,
    BadReplyError,
    BooksWrongError,
    DatabaseMissingError,
    ProcessesChangedError,
    ProfilerMissingError,
    StartFailedError,
)
# As long as a real one, so that what we do to keep it secret is paid for.
_UPSTREAM_KEY = "sk-bench-0123456789abcdefghijklmnopqrstuvwxyz0123456789"
_SHOWN_FUNCTIONS = 40


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of call. share: of --requests, at most connections; alone_share: of that, at one connection.

    is_limited: by a key whose account has three limits, far away. upstream_model: another name of it there, at
    Anthropic's provider.
    """

    name: str
    model: str
    stream_events: int
    share: float
    alone_share: float
    is_limited: bool = False
    dialect: str = "plain chat"
    body_bytes: int | None = None
    reply_bytes: int | None = None
    upstream_model: str | None = None

    def requests(self, limit: int, *, connections: int) -> int:
        count = limit * self.share * (self.alone_share if connections == 1 else 1)
        return max(10, connections, round(count))


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("whole", "gpt-bench", stream_events=0, share=1.0, alone_share=0.2),
        Shape("limited", "gpt-bench", stream_events=0, share=1.0, alone_share=0.2, is_limited=True),
        # The role, 100 words, the reason to stop, [DONE]; the upstream yields to its loop between two writes.
        Shape("burst", "bench-stream", stream_events=103, share=0.5, alone_share=0.2),
        Shape("paced", "bench-stream-0.003", stream_events=103, share=0.08, alone_share=0.08),
    )
}


PLAIN = tuple(SHAPES)


def _compared(dialect: str, *, is_stream: bool) -> Shape:
    """Bodies and replies of a dialect that are as long as those of the others, with as many events."""
    events, reply_bytes = (COMPARED_EVENTS, 36_000) if is_stream else (0, 3_000)
    model = f"bench-padded-{dialect}" if is_stream else "bench-padded"
    is_claude = dialect == "messages"
    return Shape(
        f"{dialect} stream" if is_stream else dialect,
        f"claude-{model}" if is_claude else model,
        stream_events=events,
        share=0.5 if is_stream else 1.0,
        alone_share=0.2,
        dialect=dialect,
        body_bytes=1_500,
        reply_bytes=reply_bytes,
        upstream_model=model if is_claude else None,
    )


COMPARED_EVENTS = 104
COMPARED = {
    shape.name: shape
    for shape in (
        *(_compared(dialect, is_stream=False) for dialect in ("chat", "messages", "responses", "embeddings")),
        *(_compared(dialect, is_stream=True) for dialect in ("chat", "messages", "responses")),
    )
}
SHAPES |= COMPARED


@dataclass(frozen=True, slots=True)
class Bench:
    """What the runs share."""

    options: argparse.Namespace
    gateway: Gateway
    upstream: Upstream
    keys: Keys

    def job(self, shape: Shape, connections: int) -> Job:
        return Job(
            port=self.gateway.port,
            key=self.keys.limited if shape.is_limited else self.keys.free,
            model=shape.model,
            connections=connections,
            requests=shape.requests(self.options.requests, connections=connections),
            stream_events=shape.stream_events,
            dialect=shape.dialect,
            body_bytes=shape.body_bytes,
            reply_bytes=shape.reply_bytes,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.dialects:
        options.shapes, options.connections, options.turns = list(COMPARED), [max(options.connections)], 5
    try:
        report = _measure(options)
    except _FAILURES as error:
        print("\n".join([f"FAILED: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    print("\n".join(render(report)))
    return 0


def _measure(options: argparse.Namespace) -> Report:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="llm-bench-")))
        database = stack.enter_context(_fresh_database(options.database, folder))
        machine = describe_machine(database.description)
        environment = environment_of(database, folder)
        shapes = [SHAPES[name] for name in options.shapes]
        keys = prepare_books(
            environment,
            models=sorted({shape.model for shape in shapes if shape.upstream_model is None}),
            claude_models={shape.model: shape.upstream_model for shape in shapes if shape.upstream_model is not None},
        )
        upstream = stack.enter_context(running_upstream(os.environ))
        environment["LLM_OPENAI_BASE_URL"] = upstream.openai_base_url
        environment["LLM_ANTHROPIC_BASE_URL"] = upstream.anthropic_base_url
        gateway = stack.enter_context(
            running_gateway({**os.environ, **environment}, workers=options.workers, log=folder / "gateway.log")
        )
        bench = Bench(options, gateway, upstream, keys)
        started_mb = _worker_mb(gateway)
        runs = [_run(bench, SHAPES[name], count) for name in _in_turns(options) for count in options.connections]
        memory = Memory(started_mb, runs[0].memory_mb, runs[-1].memory_mb, rss_mb(gateway.pid))
        if options.py_spy:
            _profile(bench, options.py_spy)
        return Report(machine, options.workers, memory, runs)


def _in_turns(options: argparse.Namespace) -> Iterator[str]:
    """Every other turn backwards: what a machine that grows slower costs, both of two neighbours pay as often."""
    for turn in range(options.turns):
        yield from reversed(options.shapes) if turn % 2 else options.shapes


@contextlib.contextmanager
def _fresh_database(wanted: str | None, folder: Path) -> Iterator[BenchDatabase]:
    """PostgreSQL, unless SQLite was asked for, or nothing was and there is no PostgreSQL."""
    with contextlib.ExitStack() as stack:
        if wanted == "sqlite":
            database = stack.enter_context(sqlite_database(folder))
        else:
            try:
                database = stack.enter_context(postgres_database())
            except DatabaseMissingError as error:
                if wanted:
                    raise
                print(f"NO POSTGRESQL ({error}): measured on SQLite, whose figures don't compare.", file=sys.stderr)
                database = stack.enter_context(sqlite_database(folder))
        yield database


def environment_of(database: BenchDatabase, folder: Path) -> dict[str, str]:
    """What the gateway is told, over whatever the shell says."""
    return {
        "DATABASE_URL": database.url,
        "DEBUG": "false",
        "HTTPS": "false",
        "ANTHROPIC_API_KEY": _UPSTREAM_KEY,
        "LLM_ENV_FILE": "",
        "LLM_KEY_PEPPER": "only-for-benchmarks-0123456789abcdefghij",
        "LLM_PROVIDER": "openai",
        "OPENAI_API_KEY": _UPSTREAM_KEY,
        "SECRET_KEY": "only-for-benchmarks-0123456789-abcdefghijklmnopqrstuvwxyz",
    }


def _run(bench: Bench, shape: Shape, connections: int) -> Run:
    """The upstream directly, then through the gateway, each after a warm-up; then a look into the books."""
    job = bench.job(shape, connections)
    direct = _drive_after_warm_up(_to_upstream(job, shape, bench.upstream))
    _warm_up(job)
    bench.upstream.reset()
    worker = bench.gateway.worker_pids[0]
    books_before, threads_before = read_totals(), cpu_us_by_thread(worker)
    cpu_before = cpu_ms_by_process(bench.gateway.pid)
    through = drive(job)
    cpu_ms = cpu_ms_between(cpu_before, cpu_ms_by_process(bench.gateway.pid))
    threads = cpu_us_by_thread(worker) - threads_before
    check_books(read_totals().since(books_before), bench.upstream.totals(), requests=job.requests)
    print(f"{shape.name}, {connections} connections: {job.requests} requests, books: exact", file=sys.stderr)
    return Run(
        shape=shape.name,
        connections=connections,
        requests=job.requests,
        direct=direct,
        gateway=through,
        gateway_cpu_ms=cpu_ms / job.requests,
        thread_cpu_ms={name: used / 1000 / job.requests for name, used in threads.most_common()},
        memory_mb=_worker_mb(bench.gateway),
    )


def _profile(bench: Bench, folder: Path) -> None:
    """Runs of their own, since sampling slows the worker down; the table knows nothing of them."""
    folder.mkdir(parents=True, exist_ok=True)
    connections = max(bench.options.connections)
    for name in bench.options.shapes:
        job = bench.job(SHAPES[name], connections)
        file = folder / f"{name}-{connections}.txt"
        with recorded_profile(bench.gateway.worker_pids[0], file):
            drive(job)
        print(
            f"\n{name}, {connections} connections: {file}\n", *dearest_functions(file, limit=_SHOWN_FUNCTIONS), sep="\n"
        )


def _drive_after_warm_up(job: Job) -> Outcome:
    _warm_up(job)
    return drive(job)


def _warm_up(job: Job) -> None:
    drive(replace(job, requests=max(job.connections, job.requests // 10)))


def _to_upstream(job: Job, shape: Shape, upstream: Upstream) -> Job:
    return replace(job, port=upstream.port, key=_UPSTREAM_KEY, model=shape.upstream_model or shape.model)


def _worker_mb(gateway: Gateway) -> float:
    """Of the largest worker."""
    return max(rss_mb(pid) for pid in gateway.worker_pids)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument(
        "--requests", type=int, default=3000, help="whole calls at 2 or more connections; the others are parts of it"
    )
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(PLAIN))
    parser.add_argument(
        "--dialects", action="store_true", help="compare the dialects: in turns, by the median of their ratios to chat"
    )
    parser.add_argument(
        "--turns",
        type=int,
        choices=range(1, 1001),
        metavar="N",
        default=1,
        help="how often each shape runs, every other turn backwards",
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--database", choices=("postgres", "sqlite"), help="default: PostgreSQL if there is one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures, for a program")
    parser.add_argument("--py-spy", type=Path, metavar="FOLDER", help="profile the worker in further runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
