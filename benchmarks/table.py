"""The figures of a benchmark, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from benchmarks.driver import Outcome
from benchmarks.procstat import Machine

_COLUMNS = (
    "shape", "conns", "calls", "direct/s", "p50 ms", "p99", "gateway/s", "p50 ms", "p99", "+p50 ms", "+p99",
    "+first p50", "pieces", "CPU ms/call",
)  # fmt: skip
# The targets on PostgreSQL, with one worker.
_MAX_CPU_MS = {("whole", 16): 1.5, ("burst", 16): 2.5}
_LEAST_CPU_MS = 0.01
_MAX_IDLE_MB = 150.0
# Of a dialect beside chat, whose bodies and replies are as long.
_MAX_RATIO = 1.2
_BESIDE = {
    "messages": "chat", "responses": "chat", "embeddings": "chat",
    "messages stream": "chat stream", "responses stream": "chat stream",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One shape at one number of connections. CPU is that of one call; thread_cpu_ms: of the first worker, by thread.

    memory_mb: the largest worker's, right after the run.
    """

    shape: str
    connections: int
    requests: int
    direct: Outcome
    gateway: Outcome
    gateway_cpu_ms: float
    thread_cpu_ms: Mapping[str, float]
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the worker (MB) before any call, after the first run, after all; and of the main process."""

    started_mb: float
    idle_mb: float
    ended_mb: float
    main_mb: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: Machine
    workers: int
    memory: Memory
    runs: Sequence[Run]


def render(report: Report) -> Iterator[str]:
    machine, memory = report.machine, report.memory
    yield (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb} GB; {machine.system}; Python {machine.python}; "
        f"{machine.database}; workers: {report.workers}; load before: {machine.load_before}"
    )
    yield ""
    yield from _aligned([_COLUMNS, *(_cells(run) for run in report.runs)])
    yield ""
    yield from _threads(report)
    yield from _turns(report)
    yield from _ratios(report)
    yield (
        f"worker's memory: {memory.started_mb:.0f} MB started, {memory.idle_mb:.0f} MB after the first run, "
        f"{memory.ended_mb:.0f} MB after all; main process: {memory.main_mb:.0f} MB"
    )
    yield from _verdicts(report)
    yield "books: exact"


def _cells(run: Run) -> tuple[str, ...]:
    direct, gateway = run.direct, run.gateway
    return (
        run.shape,
        str(run.connections),
        str(run.requests),
        f"{direct.per_second:.0f}",
        f"{direct.p50_ms:.2f}",
        f"{direct.p99_ms:.2f}",
        f"{gateway.per_second:.0f}",
        f"{gateway.p50_ms:.2f}",
        f"{gateway.p99_ms:.2f}",
        f"{gateway.p50_ms - direct.p50_ms:.2f}",
        f"{gateway.p99_ms - direct.p99_ms:.2f}",
        f"{gateway.first_p50_ms - direct.first_p50_ms:.2f}",
        f"{gateway.pieces:.0f}",
        f"{run.gateway_cpu_ms:.2f}",
    )


def _threads(report: Report) -> Iterator[str]:
    """Where the CPU of the busiest runs of a shape went on average: event loop (main), Rust, the books' writer."""
    connections = max(run.connections for run in report.runs)
    for shape, runs in _by_shape(report, connections).items():
        names = dict.fromkeys(name for run in runs for name in run.thread_cpu_ms)
        means = {name: fmean(run.thread_cpu_ms.get(name, 0) for run in runs) for name in names}
        threads = ", ".join(f"{name} {used:.2f}" for name, used in means.items() if used >= _LEAST_CPU_MS)
        yield f"{shape}, {connections} connections, CPU ms a call by thread: {threads}"


def _turns(report: Report) -> Iterator[str]:
    """What shapes that ran several times cost on average, and how much more than the first one, turn by turn."""
    for connections in sorted({run.connections for run in report.runs}):
        (first, base), *others = _by_shape(report, connections).items()
        if len(base) == 1:
            continue
        mean = fmean(run.gateway_cpu_ms for run in base)
        yield f"{first}, {connections} connections, {len(base)} turns: {mean:.2f} ms CPU a call"
        for shape, runs in others:
            if len(runs) != len(base):
                continue
            more = [run.gateway_cpu_ms - its.gateway_cpu_ms for run, its in zip(runs, base, strict=True)]
            error = stdev(more) / len(more) ** 0.5
            mean = fmean(run.gateway_cpu_ms for run in runs)
            yield (
                f"{shape}, {connections} connections, {len(runs)} turns: {mean:.2f} ms CPU a call, "
                f"{fmean(more):+.3f} beside {first} (standard error {error:.3f})"
            )


def _ratios(report: Report) -> Iterator[str]:
    """What a call of a dialect costs beside one of chat in the same turn."""
    by_shape = _by_shape(report, max(run.connections for run in report.runs))
    for shape, other in _BESIDE.items():
        if shape in by_shape and other in by_shape:
            pairs = zip(by_shape[shape], by_shape[other], strict=True)
            ratios = sorted(run.gateway_cpu_ms / its.gateway_cpu_ms for run, its in pairs)
            turns = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            yield _verdict(f"{shape} beside {other}, of {turns}", median(ratios), _MAX_RATIO, unit="times the CPU")


def _by_shape(report: Report, connections: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {}
    for run in report.runs:
        if run.connections == connections:
            runs.setdefault(run.shape, []).append(run)
    return runs


def _verdicts(report: Report) -> Iterator[str]:
    for (shape, connections), limit in _MAX_CPU_MS.items():
        if runs := _by_shape(report, connections).get(shape):
            mean = fmean(run.gateway_cpu_ms for run in runs)
            yield _verdict(f"{shape}, {connections} connections", mean, limit, unit="ms CPU a call")
    yield _verdict("idle worker", report.memory.idle_mb, _MAX_IDLE_MB, unit="MB")


def _verdict(subject: str, value: float, limit: float, *, unit: str) -> str:
    return f"{subject}: {value:.2f} of at most {limit:g} {unit}: {'met' if value <= limit else 'MISSED'}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
